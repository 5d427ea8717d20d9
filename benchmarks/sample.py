"""Draw more certified samples from a finished run.

python -m benchmarks.sample RUN --num N [--seed S] [--out FILE]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from egmjax.metrics import summarize_weights

from .commands import one_sentence
from .options import check_seed
from .runs import load, save_states


@dataclass(kw_only=True)
class SampleOptions:
    """Options of the command."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a finished run."""
    num: int = 20_000
    """Number of samples."""
    seed: int = 1
    """Seed of the draws; another seed gives independent samples."""
    out: Path | None = None
    """File to write; default: samples-SEED.npz in the run's folder."""
    overwrite: bool = False
    """Replace the file if it exists."""


def main(arguments: list[str] | None = None) -> None:
    """The command; bad input ends it with one sentence and exit code 2."""
    options = tyro.cli(SampleOptions, args=arguments, prog="python -m benchmarks.sample")
    with one_sentence():
        run(options)


def run(options: SampleOptions) -> Path:
    """Draws, writes, and prints what the weights say."""
    file = options.out or options.run / f"samples-{options.seed}.npz"
    if file.suffix != ".npz":  # numpy would append it
        file = file.with_name(f"{file.name}.npz")
    check_seed(options.seed)
    if options.num < 1:
        raise ValueError(f"num: at least 1, got {options.num}")
    if file.exists() and not options.overwrite:
        raise ValueError(f"out: {file} exists; give --overwrite to replace it")
    x, log_weight = load(options.run).sample(jax.random.fold_in(jax.random.key(options.seed), 3), options.num)
    try:
        save_states(file, x, **({} if log_weight is None else {"log_weight": log_weight}))
    except OSError as error:
        raise ValueError(f"out: cannot write {file} ({error.strerror})") from error
    if log_weight is None:
        print(f"{options.num} samples in {file}, learned from data")
        return file
    summary = summarize_weights(log_weight)
    print(
        f"{options.num} samples in {file}: log Z {float(summary.log_z):.4f} +- {float(summary.log_z_stderr):.4f}, "
        f"ESS {float(summary.ess_fraction):.3f}, Pareto k {float(summary.pareto_k):.2f}"
    )
    return file


if __name__ == "__main__":
    main()
