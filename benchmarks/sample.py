"""Draw more certified samples from a finished run, or exact chains that it proposes to.

python -m benchmarks.sample RUN --num N [--seed S] [--average M] [--out FILE]
python -m benchmarks.sample RUN --sites-per-step K [K ...] --num N
python -m benchmarks.sample RUN --chains metropolis|i-sir [--candidates N] [--num-steps T] [--local-moves M]
python -m benchmarks.sample RUN --smc PARTICLES --num N
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from egmjax.metrics import summarize_weights
from egmjax.training import write_atomically

from .blocks import sample_in_blocks
from .checks import check_seed
from .commands import one_sentence, use_compilation_cache
from .report import clean
from .rollout_chains import ChainPlan, check_plan, run_exact_chains
from .runs import load, save_states
from .twisted_smc import draw_twisted


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
    chains: Literal["none", "metropolis", "i-sir"] = "none"
    """none: independent samples with weights. Else chains whose limit is the target, by roll-outs that are accepted
    one by one (metropolis), or one of several of which is drawn by weight (i-sir); --num-chains times --num-steps
    samples, their acceptance, autocorrelation times and R-hat in a .chains.json file of the same name."""
    num_chains: int = 16
    """Chains, each started from a roll-out."""
    num_steps: int = 500
    """Moves of each chain, of which every state is kept."""
    burn_in: int = 50
    """Moves before these, whose states are not kept."""
    candidates: int = 8
    """Candidates of a move, the present state among them (i-sir only)."""
    local_moves: int = 0
    """Gibbs sweeps or Langevin steps, or pairs of them, after each move."""
    local_step: float = 0.05
    """Langevin step of these, in squared units of the real coordinates."""
    average: int | None = None
    """Symmetries of the lattice that the density is averaged over; None is what the run was given (fixed orders)."""
    sites_per_step: tuple[int, ...] | None = None
    """Sites revealed at once, of every step or of the first, second, ..., last and all later ones (masks in random
    order); what that costs and saves is in a .blocks.json file of the same name: ESS, EUBO, total correlation in all
    and of each step, seconds. None is what the run was given."""
    smc: int = 0
    """Particles in each run of sequential Monte Carlo twisted by the learned noised energy (--objective bootstrap),
    for a sampler whose ESS is low; 0 draws independent samples."""


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
    key = jax.random.fold_in(jax.random.key(options.seed), 3)
    if options.chains != "none" and options.smc:
        raise ValueError("smc: cannot be combined with --chains")
    if options.average is not None and options.smc:
        raise ValueError("average: particles have no density to average, so not with --smc")
    if options.sites_per_step is not None and (options.smc or options.chains != "none"):
        raise ValueError("sites_per_step: of independent samples, so not with --chains or --smc")
    if options.chains != "none":
        return _chains(options, file, key)
    if options.smc:
        return _twisted(options, file, key)
    if options.sites_per_step is not None:
        return _in_blocks(options, file, key)
    x, log_weight = load(options.run, average=options.average).sample(key, options.num)
    _save(file, x, {} if log_weight is None else {"log_weight": log_weight})
    if log_weight is None:
        print(f"{options.num} samples in {file}, learned from data")
        return file
    summary = summarize_weights(log_weight)
    print(
        f"{options.num} samples in {file}: log Z {float(summary.log_z):.4f} +- {float(summary.log_z_stderr):.4f}, "
        f"ESS {float(summary.ess_fraction):.3f}, Pareto k {float(summary.pareto_k):.2f}"
    )
    return file


def _chains(options: SampleOptions, file: Path, key: jax.Array) -> Path:
    assert options.chains != "none"
    plan = ChainPlan(
        options.chains,
        options.num_chains,
        options.num_steps,
        options.burn_in,
        options.candidates,
        options.local_moves,
        options.local_step,
    )
    check_plan(plan)
    note = _note(options, file, ".chains.json")
    x, report = run_exact_chains(load(options.run, average=options.average), key, plan)
    _save(file, x, {})
    write_atomically(note, json.dumps(clean(report), indent=1) + "\n")
    print(
        f"{options.num_chains} chains of {options.num_steps} in {file}: acceptance {report['acceptance']:.3f}, "
        f"lowest of a chain {report['lowest_acceptance']:.3f}"
    )
    for name, entry in report["observables"].items():
        print(
            f"  {name:<20}{entry['mean']:>12.4f} +- {entry['stderr']:.4f}   tau_int {entry['tau_int']:.2f}   "
            f"ESS {entry['ess']:.0f}   R-hat {entry['r_hat']:.3f}"
        )
    return file


def _in_blocks(options: SampleOptions, file: Path, key: jax.Array) -> Path:
    note = _note(options, file, ".blocks.json")
    run = load(options.run, average=options.average, sites_per_step=options.sites_per_step)
    x, log_weight, report = sample_in_blocks(run, key, options.num)
    _save(file, x, {"log_weight": log_weight})
    report = clean(report)
    write_atomically(note, json.dumps(report, indent=1) + "\n")
    log_z, correlation = report["log_z"], report["total_correlation"]
    print(
        f"{options.num} samples in {file}, {report['num_steps']} steps each: log Z {log_z['estimate']:.4f} "
        f"+- {log_z['stderr']:.4f}, ESS {report['ess_fraction']:.3f}, total correlation "
        f"{correlation['total']:.4f} +- {correlation['stderr']:.4f}, {report['seconds']:.1f} s"
    )
    return file


def _note(options: SampleOptions, file: Path, suffix: str) -> Path:
    """The report beside the samples."""
    note = file.with_suffix(suffix)
    if note.exists() and not options.overwrite:
        raise ValueError(f"out: {note} exists; give --overwrite to replace it")
    return note


def _twisted(options: SampleOptions, file: Path, key: jax.Array) -> Path:
    found = draw_twisted(load(options.run), key, options.smc, options.num)
    _save(file, found.x, {"log_weight": found.log_weight})
    print(
        f"{len(found.log_weight)} particles in {file}, runs of {options.smc}: log Z {found.log_z:.4f} "
        f"+- {found.log_z_stderr:.4f} (over runs), lowest ESS of a step {found.lowest_ess_fraction:.3f}, "
        f"{found.num_resampled:.1f} times resampled"
    )
    return file


def _save(file: Path, x: Any, arrays: dict[str, Any]) -> None:
    try:
        save_states(file, x, **arrays)
    except OSError as error:
        raise ValueError(f"out: cannot write {file} ({error.strerror})") from error


if __name__ == "__main__":
    use_compilation_cache()
    main()
