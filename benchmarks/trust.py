"""How far samples of each target can be trusted, and what they cost: what the suite `trust` runs.

A run is that of `benchmarks.train` with its defaults; its report holds the certificate and, of fresh draws, tests
against exact laws. What is added here are the coverage of the interval for log Z and the rivals, which have as long as
the sampler took from its start to its last sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax

from egmjax.states import Real

from . import train
from .checks import check
from .micro.coverage import Case as CoverageCase
from .micro.coverage import measure
from .options import TARGETS, with_recipe
from .rivals import MAX_CPU_SECONDS, OPTIONAL, RIVALS, rivals_of, run_rival
from .runs import build, load
from .smc_rival import run_smc

RIVAL_SEED = 50_000
COVERAGE_SEED = 60_000
COVERAGE_RUNS, COVERAGE_SAMPLES = 200, 2_000
CRITICAL = 0.4407


class Trusted(NamedTuple):
    """A target of `benchmarks.train`, changed options, whether coverage is measured, Langevin steps of rivals."""

    target: str
    options: dict[str, Any]
    coverage: bool = False
    step_size: float = 0.1


def _ising(length: int, beta: float) -> Trusted:
    return Trusted("ising", {"length": length, "beta": beta}, coverage=length == 5)


LATTICES = [(length, beta) for length in (5, 10) for beta in (0.2, 0.4, CRITICAL, 0.6)]
LATTICES += [(16, CRITICAL), (24, CRITICAL)]
CASES: dict[str, Trusted] = {
    **{f"ising-{length}-{beta}": _ising(length, beta) for length, beta in LATTICES},
    "gb-rbm": Trusted("gb-rbm", {}, step_size=0.8),
    "three-modes": Trusted("three-modes", {}, step_size=0.3),
    "gmm25": Trusted("gmm25", {}, step_size=0.5),
    "many-well": Trusted("many-well", {}, step_size=0.03),
    "spin-glass-8": Trusted("spin-glass", {"length": 8, "beta": 1.0}),
    "potts-12": Trusted("potts", {"length": 12, "beta": 1.00505}),
    "ising-10-any-order": Trusted("ising", {"length": 10, "beta": CRITICAL, "order": "random"}),
}


def _options(case: Trusted, folder: Path, seed: int, tiny: dict[str, Any]) -> Any:
    small = {name: value for name, value in tiny.items() if hasattr(TARGETS[case.target], name)}
    if tiny and "length" in case.options:
        small["length"] = 3 if case.options["length"] % 2 else 4
    return with_recipe(TARGETS[case.target](out=folder, seed=seed), **{**case.options, **small})


def run(case: Trusted, seed: int, folder: Path, tiny: dict[str, Any]) -> list[dict[str, Any]]:
    """Trains, and says what the report says of trust; `tiny` are options that make it a matter of seconds."""
    options = _options(case, folder, seed, tiny)
    check(options)
    report = train.train(train.prepare(case.target, options))
    kept = (
        "log_z",
        "ess_fraction",
        "forward_ess_fraction",
        "pareto_k",
        "largest_weight",
        "num_nonfinite",
        "num_samples",
        "exactness",
        "energy_evaluations",
    )
    row = {name: report[name] for name in kept}
    wall = sum(report["seconds"].values())
    row |= {f"{name}_seconds": value for name, value in report["seconds"].items()}
    cpu = sum(report["cpu_seconds"].values())
    ess = report["ess_fraction"] * report["num_samples"]
    row |= {
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "ess_per_second": ess / wall,
        "ess_per_cpu_second": ess / cpu,
    }
    redraw = report["redraw"]
    for unit in ("second", "cpu_second"):  # trained and compiled
        row[f"ess_per_{unit}_trained"] = report["ess_fraction"] * redraw["num"] / redraw[f"{unit}s"]
    if case.coverage:
        loaded = load(folder)
        setup = loaded.setup
        covered = measure(
            CoverageCase(
                setup.sampler, setup.predictor(loaded.params), setup.psi_fn, report["log_z"]["exact"]
            ),
            jax.random.key(COVERAGE_SEED + seed),
            10 if tiny else COVERAGE_RUNS,
            100 if tiny else COVERAGE_SAMPLES,
        )
        row["coverage"] = covered._asdict()
    return [row]


def rivals(
    case: Trusted,
    seed: int,
    folder: Path,
    seconds: float,
    tiny: dict[str, Any],
    *,
    max_cpu_seconds: float = MAX_CPU_SECONDS,
    only: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """A row for each rival, what it does in `seconds` of wall-clock time; an error where it does not run.

    Raises `ValueError` for a name in `only` that is none of the target's.
    """
    options = _options(case, folder, seed, tiny)
    target = build(case.target, options).target
    limit = 0.0 if tiny else max_cpu_seconds
    names = [*rivals_of(target), *(["smc"] if isinstance(target.space, Real) else [])]
    if unknown := set(only) - set(names):
        raise ValueError(f"only: expected some of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    rows = []
    for i, name in enumerate(names):
        if only and name not in only:
            continue
        key = jax.random.fold_in(jax.random.key(RIVAL_SEED + seed), i)
        how = {"step_size": case.step_size, "max_cpu_seconds": limit}
        row: dict[str, Any] = {"method": name}
        try:
            if name == "smc":
                row |= run_smc(target, key, seconds, scale=getattr(options, "scale", 1.0), **how)
            else:
                row |= run_rival(RIVALS[name], target, key, seconds, **how)
        except Exception as error:  # another package may fail in any way, and the table says how
            if name not in OPTIONAL:
                raise
            row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        rows.append(row)
    return rows
