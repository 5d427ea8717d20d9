"""What the rivals of a target do by themselves: effective samples a second, R-hat, and log Z where they know it.

    python -m benchmarks.rival_rates gb-rbm [--step-size .8] [--seconds 600] [--max-cpu-seconds 10] [--only NAME ...]

Targets are those of `benchmarks.train` with their defaults. Without a trained sampler to set the time they have
`--seconds`, compilation and adaptation included; a rate per CPU second is that of the chains times the share of
`--seconds` that these leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from .checks import check_seed
from .commands import one_sentence
from .options import TARGETS
from .rivals import MAX_CPU_SECONDS
from .trust import Trusted, rivals
from .trust_tables import costs


@dataclass(kw_only=True)
class RivalOptions:
    """Options of the command."""

    target: Annotated[str, tyro.conf.Positional]
    """Name of a target of `benchmarks.train`."""
    seed: int = 0
    """Of the chains."""
    step_size: float = 0.1
    """Of Langevin steps in tempering and in sequential Monte Carlo."""
    seconds: float = 600.0
    """Wall-clock time that each has, compilation included."""
    max_cpu_seconds: float = MAX_CPU_SECONDS
    """Where chains stop, their rate being known."""
    only: tuple[str, ...] = ()
    """Only these; all if empty."""


def main(args: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Runs the rivals, prints the table and returns its rows."""
    options = tyro.cli(RivalOptions, prog="python -m benchmarks.rival_rates", args=args)
    with one_sentence():
        if options.target not in TARGETS:
            raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {options.target!r}")
        if not options.seconds > 0:
            raise ValueError(f"seconds: must be positive, got {options.seconds}")
        if not options.step_size > 0:
            raise ValueError(f"step_size: must be positive, got {options.step_size}")
        check_seed(options.seed)
        rows = rivals(
            Trusted(options.target, {}, step_size=options.step_size),
            options.seed,
            Path("unused"),
            options.seconds,
            {},
            max_cpu_seconds=options.max_cpu_seconds,
            only=options.only,
        )
    rows = [{"experiment": options.target, "seed": options.seed, **row} for row in rows]
    print(costs(rows))
    return rows


if __name__ == "__main__":
    main()
