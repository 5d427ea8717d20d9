"""The experiments of a paper, several seeds each, beside baselines of equal budget.

    python -m benchmarks.suite egm --out DIR
    python -m benchmarks.suite gm --out DIR
    python -m benchmarks.suite trust --out DIR
    python -m benchmarks.suite scaling --out DIR

`egm`: 5x5 and 10x10 Ising models over `beta` (one network for all temperatures), the Gaussian-Bernoulli RBM, JointDW4
and JointMoG, each learned from the energy by three objectives (`snis`, the published one; `bootstrap`, with a learned
noised energy; `weighted`), and Markov chains that may evaluate the energy as often as the most expensive of the three.

`gm`: handwritten digits by flow, diffusion, jumps and superpositions of them, all of one network (`bins`), beside the
flow of a network of its own (`residual`); distances to held-out images, and their differences from the flow's.

`trust`: certificate, tests against exact laws and cost of the sampler of each target with its defaults, beside cluster
moves, parallel tempering and thrml at equal wall-clock time (a package of its own; its row holds the error without it).

`scaling`: energies and processor seconds to come within several KL divergences a site of the critical Ising model, by
training schedules of several lengths, over the size of the lattice; one seed, about half an hour on one core.

DIR gets a folder for each run, `rows.jsonl` (one line for each method, seed and temperature), `tables.md` and figures.
An interrupted suite goes on where it stopped: runs whose report exists are not repeated. `--tiny` makes every run
in seconds, for a look at the machinery; its numbers mean nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from egmjax.targets import Ising, Target
from egmjax.training import write_atomically

from . import amortized, gm, gm_tables, scaling, suite_tables, train, trust, trust_tables
from .chains import run_chains
from .checks import check
from .commands import is_taken, one_sentence, use_compilation_cache
from .options import TARGETS
from .report import clean, compare
from .runs import build

METHODS = ("snis", "bootstrap", "weighted")
# what each costs: two networks are called for every proposal of a bootstrapped target, one energy in the others
LEAN: dict[str, dict[str, Any]] = {
    "snis": {"batch_size": 256, "num_proposals": 256, "site_conditionals": False},
    "bootstrap": {"batch_size": 256, "num_bootstrap_proposals": 64, "site_conditionals": False},
    "weighted": {},
}
TINY = {
    "iterations": 2,
    "num_rollouts": 16,
    "batch_size": 8,
    "width": 4,
    "depth": 1,
    "num_samples": 200,
    "num_proposals": 8,
    "num_bootstrap_proposals": 4,
}
FLOOR_SEED = 30_000


@dataclass(kw_only=True)
class SuiteOptions:
    """Options of the suite."""

    out: Path
    """Folder for the results; an interrupted suite in it is resumed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training and of the chains or samples; scaling has one if left out."""
    experiments: tuple[str, ...] = ()
    """Which of the suite's experiments; all of them if left out."""
    methods: tuple[str, ...] = ()
    """Which of the suite's objectives or networks to learn by; all of them if left out."""
    tiny: bool = False
    """Runs of seconds, whose numbers mean nothing."""


class Experiment(NamedTuple):
    """`run(options, method, seed, folder) -> rows` of a learned sampler; `chains(options, seed, budget) -> rows`.

    The budget of the chains is the largest `budget` of the rows of learned samplers. A row may name a finer `method`
    than the one that was run. There are no chains where there is no energy.
    """

    run: Callable[[SuiteOptions, str, int, Path], list[dict[str, Any]]]
    chains: Callable[[SuiteOptions, int, Any], list[dict[str, Any]]] | None = None
    budget: str = "energy_evaluations"


class Suite(NamedTuple):
    """Experiments by name, what they learn by, `tabulate(rows) -> markdown`, and `draw(rows) -> {name: figure}`."""

    experiments: dict[str, Experiment]
    methods: tuple[str, ...]
    tabulate: Callable[[list[dict[str, Any]]], str]
    draw: Callable[[list[dict[str, Any]]], dict[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """The command; bad input ends it with one sentence and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.strip() + "\n\noptions: python -m benchmarks.suite egm --help")
        raise SystemExit(0 if arguments else 2)
    with one_sentence():
        if arguments[0] not in SUITES:
            raise ValueError(f"suite: unknown {arguments[0]!r}, expected one of {', '.join(SUITES)}")
    suite = SUITES[arguments[0]]
    options = tyro.cli(
        SuiteOptions,
        args=arguments[1:],
        prog=f"python -m benchmarks.suite {arguments[0]}",
        default=SuiteOptions(out=tyro.MISSING, seeds=suite.seeds),
    )
    with one_sentence():
        if not options.seeds or len(set(options.seeds)) < len(options.seeds) or min(options.seeds) < 0:
            raise ValueError(f"seeds: expected different numbers of at least 0, got {options.seeds}")
        for name, known in (("experiments", tuple(suite.experiments)), ("methods", suite.methods)):
            unknown = set(getattr(options, name)) - set(known)
            if unknown:
                raise ValueError(f"{name}: unknown {sorted(unknown)}, expected some of {', '.join(known)}")
        claim(arguments[0], options)
    return run_suite(options, suite)


def claim(name: str, options: SuiteOptions) -> None:
    """Makes the folder and notes what is in it; refuses one that holds something else."""
    note, mark = options.out / "suite.json", {"suite": name, "tiny": options.tiny}
    if is_taken(options.out):
        if not note.exists():
            raise ValueError(f"out: {options.out} exists and is not the folder of a suite")
        if json.loads(note.read_text()) != mark:
            raise ValueError(f"out: {options.out} holds another suite, {note.read_text().strip()}")
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(note, json.dumps(mark) + "\n")


def run_suite(options: SuiteOptions, suite: Suite) -> list[dict[str, Any]]:
    """Every run that is missing, seed by seed; tables and figures anew after each experiment."""
    for seed in options.seeds:
        for name in options.experiments or suite.experiments:
            experiment, budget = suite.experiments[name], 0
            for method in options.methods or suite.methods:
                rows = _once(
                    options, f"{name}-{method}-{seed}", _learned(options, name, experiment, method, seed)
                )
                budget = max(budget, rows[0].get(experiment.budget, 0))
            if experiment.chains is not None:
                _once(options, f"{name}-mcmc-{seed}", _chains(options, name, experiment.chains, seed, budget))
            write(options, suite)
    return read_rows(options)


def _learned(
    options: SuiteOptions, name: str, experiment: Experiment, method: str, seed: int
) -> Callable[[Path], list[dict[str, Any]]]:
    def run(folder: Path) -> list[dict[str, Any]]:
        labels = {"experiment": name, "method": method, "seed": seed}
        return [labels | row for row in experiment.run(options, method, seed, folder)]

    return run


def _chains(
    options: SuiteOptions,
    name: str,
    chains: Callable[[SuiteOptions, int, Any], list[dict[str, Any]]],
    seed: int,
    budget: float,
) -> Callable[[Path], list[dict[str, Any]]]:
    def run(folder: Path) -> list[dict[str, Any]]:
        labels = {"experiment": name, "method": "mcmc", "seed": seed}
        return [labels | row for row in chains(options, seed, budget)]

    return run


def _once(
    options: SuiteOptions, name: str, run: Callable[[Path], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The rows of a run: read where it is finished, else made; what a killed run left behind is removed."""
    folder = options.out / name
    done = folder / "rows.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        rows = run(folder)
        seconds = time.perf_counter() - started
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(done, json.dumps(clean([row | {"seconds": seconds} for row in rows])) + "\n")
        jax.clear_caches()  # dozens of compiled programs would fill the memory
    return json.loads(done.read_text())


def read_rows(options: SuiteOptions) -> list[dict[str, Any]]:
    """The rows of all finished runs."""
    return [row for path in sorted(options.out.glob("*/rows.json")) for row in json.loads(path.read_text())]


def write(options: SuiteOptions, suite: Suite) -> None:
    """`rows.jsonl`, `tables.md` and the figures, from the finished runs."""
    rows = read_rows(options)
    write_atomically(options.out / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_atomically(options.out / "tables.md", suite.tabulate(rows))
    for name, figure in suite.draw(rows).items():
        figure.savefig(options.out / f"{name}.png", dpi=110)


# ------------------------------------------------------------------------------------ experiments


def ising(length: int, **recipe: Any) -> Experiment:
    """The Ising model at six temperatures."""

    def amortized_options(options: SuiteOptions, folder: Path, **values: Any) -> amortized.AmortizedOptions:
        small = {**TINY, "length": 3, "num_betas": 2} if options.tiny else {}
        given: dict[str, Any] = {"length": length, "num_betas": 6, **recipe, **values, **small}
        return amortized.AmortizedOptions(out=folder, **given)

    def run(options: SuiteOptions, method: str, seed: int, folder: Path) -> list[dict[str, Any]]:
        given = amortized_options(options, folder, objective=method, seed=seed, **LEAN[method])
        amortized.check(given)
        report = amortized.run(given)
        return [row | {"energy_evaluations": report["energy_evaluations"]} for row in report["rows"]]

    def chains(options: SuiteOptions, seed: int, budget: int) -> list[dict[str, Any]]:
        given = amortized_options(options, options.out)
        betas = np.linspace(given.beta_low, given.beta_high, given.num_betas)
        rows = [
            {"beta": float(beta)}
            | _chain_row(Ising(length=given.length, beta=float(beta)), seed, budget // len(betas), options)
            for beta in betas
        ]
        # as for the network, which serves all temperatures: what all of them cost together
        total = sum(row["energy_evaluations"] for row in rows)
        return [row | {"energy_evaluations": total} for row in rows]

    return Experiment(run, chains)


def mixed(name: str, *, scale: float, step_size: float, **recipe: Any) -> Experiment:
    """A target of `benchmarks.train`."""

    def run(options: SuiteOptions, method: str, seed: int, folder: Path) -> list[dict[str, Any]]:
        values = {**recipe, **LEAN[method], "objective": method, "seed": seed, "num_samples": 10_000}
        if options.tiny:
            values |= {**TINY, "num_steps": 4, "num_exact": 50}
        given = TARGETS[name](out=folder, **values)
        check(given)
        report = train.train(train.prepare(name, given))
        row = {
            key: report[key]
            for key in ("metrics", "ess_fraction", "forward_ess_fraction", "energy_evaluations")
        }
        log_z = report["log_z"]
        return [
            row | {"log_z": log_z["estimate"], "log_z_stderr": log_z["stderr"], "exact_log_z": log_z["exact"]}
        ]

    def chains(options: SuiteOptions, seed: int, budget: int) -> list[dict[str, Any]]:
        target = build(name, TARGETS[name](out=options.out)).target
        return [_chain_row(target, seed, budget, options, scale=scale, step_size=step_size)]

    return Experiment(run, chains)


def _chain_row(
    target: Target, seed: int, budget: int, options: SuiteOptions, **start: float
) -> dict[str, Any]:
    key = jax.random.fold_in(jax.random.key(seed), 3)
    done = run_chains(key, target, max(budget, 10**6) if options.tiny else budget, **start)
    num = jax.tree.leaves(done.x)[0].shape[0]
    reference = None if isinstance(target, Ising) else target.sample(jax.random.key(FLOOR_SEED + seed), num)
    entries, _ = compare(target, done.x, np.zeros(num), reference, key)
    return {
        # chains have no weights: what is weighted is what is raw
        "metrics": {name: entry | {"weighted": entry["value"]} for name, entry in entries.items()},
        "energy_evaluations": done.energy_evaluations,
        "num_sweeps": done.num_sweeps,
        "acceptance_rate": done.acceptance_rate,
    }


EGM: dict[str, Experiment] = {
    "ising-5": ising(5, iterations=120),
    "ising-10": ising(10, iterations=120, num_rollouts=128, batch_size=256, width=16, num_samples=3_000),
    "gb-rbm": mixed("gb-rbm", scale=5.0, step_size=0.8, iterations=40),
    # one perceptron for all targets: the network of particles, which is the command's default, is no part of the paper
    "joint-dw4": mixed(
        "joint-dw4",
        scale=0.8,
        step_size=0.01,
        iterations=120,
        network="mlp",
        width=128,
        depth=3,
        num_rollouts=1000,
        buffer_rollouts=10,
        learning_rate=2e-3,
        num_steps=None,
    ),
    "joint-mog": mixed("joint-mog", scale=1.1, step_size=0.05, iterations=120),
}


def _digits(options: SuiteOptions, network: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    return gm.run(network, seed, folder, recipe=gm.TINY if options.tiny else gm.RECIPES[network])


def trusted(case: trust.Trusted) -> Experiment:
    """A target of `benchmarks.train` and its rivals."""

    def tiny(options: SuiteOptions) -> dict[str, Any]:
        return {**TINY, "num_exact": 50} if options.tiny else {}

    def run(options: SuiteOptions, method: str, seed: int, folder: Path) -> list[dict[str, Any]]:
        return trust.run(case, seed, folder, tiny(options))

    def chains(options: SuiteOptions, seed: int, budget: float) -> list[dict[str, Any]]:
        return trust.rivals(case, seed, options.out, budget, tiny(options))

    return Experiment(run, chains, budget="wall_seconds")


def scaled(length: int) -> Experiment:
    """The critical Ising model; a method is a number of updates."""

    def run(options: SuiteOptions, method: str, seed: int, folder: Path) -> list[dict[str, Any]]:
        few = {"length": length // 2, "iterations": 1 + int(method) // scaling.SCHEDULES[0]}
        return scaling.run(length, int(method), seed, folder, {**TINY, **few} if options.tiny else {})

    return Experiment(run)


SUITES = {
    "egm": Suite(EGM, METHODS, suite_tables.tabulate, suite_tables.draw),
    "gm": Suite({"digits": Experiment(_digits)}, gm.NETWORKS, gm_tables.tabulate, gm_tables.draw),
    "trust": Suite(
        {name: trusted(case) for name, case in trust.CASES.items()},
        ("sampler",),
        trust_tables.tabulate,
        lambda rows: {},
    ),
    "scaling": Suite(
        {f"ising-{length}": scaled(length) for length in scaling.LENGTHS},
        tuple(map(str, scaling.SCHEDULES)),
        scaling.tabulate,
        scaling.draw_figure,
        seeds=(0,),
    ),
}

if __name__ == "__main__":
    use_compilation_cache()
    main()
