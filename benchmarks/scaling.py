"""What it costs to come within a Kullback-Leibler divergence a site, over the size of the lattice: the suite `scaling`.

    KL(q, p) / L^2 = (log Z - ELBO) / L^2,     log Z by Kaufman's formula, the ELBO of fresh roll-outs

A run is that of `benchmarks.train ising` at the critical temperature, with its defaults but for the number of updates.
The temperature falls during the first fifth of them and the learning rate until the end, so a cost belongs to a whole
schedule, not to a place in one. There are schedules of several lengths for each lattice; what a threshold costs lies
between the shortest that comes below it and the next shorter one. Costs are those of training: energies, those of local
fields included, and processor seconds without compilation.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.stats import linregress

from egmjax.training import fit

from .checks import check
from .markdown import section
from .options import IsingOptions
from .runs import build, compile_roll_out, draw
from .suite_tables import Row
from .trust import CRITICAL
from .trust_tables import number

LENGTHS = (8, 12, 16, 20, 24)
SCHEDULES = (500, 1_000, 2_000, 4_000, 8_000)
THRESHOLDS = (1e-3, 1e-4, 3e-5, 1e-5)
COSTS = {"energy_evaluations": "energy evaluations", "cpu_seconds": "processor seconds"}
NUM_DRAWS = 20_000


def run(length: int, num_updates: int, seed: int, folder: Path, tiny: dict[str, Any]) -> list[Row]:
    """One schedule of one lattice; `tiny` are options that make it a matter of seconds."""
    given: dict[str, Any] = {
        "length": length,
        "beta": CRITICAL,
        "iterations": num_updates,
        "seed": seed,
        **tiny,
    }
    options = IsingOptions(out=folder, **given)
    check(options)
    setup = build("ising", options)
    folder.mkdir(parents=True, exist_ok=True)
    clock: list[float] = []
    (phase,) = setup.phases
    result = fit(
        phase.trainer,
        setup.init(seed),
        options.iterations,
        metrics_file=folder / "metrics.jsonl",
        energies_per_iteration=phase.energies_per_iteration,
        energies_at_start=phase.energies_at_start,
        on_metrics=lambda row: clock.append(time.process_time()),
    )
    key = jax.random.fold_in(jax.random.key(seed), 2)
    num = options.num_samples if tiny else NUM_DRAWS
    _, log_weight = draw(compile_roll_out(setup), result.state.ema_params, key, num)
    gap = setup.target.log_z - log_weight.astype(np.float64)
    weight = np.exp(-gap)
    return [
        {
            "sites": options.length**2,
            "num_updates": options.iterations,
            "kl_per_site": gap.mean() / options.length**2,
            "kl_per_site_stderr": gap.std() / math.sqrt(num) / options.length**2,
            "ess_fraction": weight.mean() ** 2 / np.mean(weight**2),
            "energy_evaluations": setup.training_energies,
            # the first iteration ends when all is compiled
            "cpu_seconds": (clock[-1] - clock[0]) * len(clock) / max(len(clock) - 1, 1),
            "train_seconds": result.train_seconds,
        }
    ]


class Reached(NamedTuple):
    """What a threshold costs; where `is_bound` the shortest schedule is below it already, and this is its cost."""

    cost: float
    is_bound: bool


def cost_of(schedules: list[tuple[float, float]], threshold: float) -> Reached | None:
    """What comes below the threshold, of schedules `(cost, KL)`, the longer ones later.

    Interpolates logarithms between the first below it and the one before. `None` where none is below.
    """
    costs, gaps = np.log(np.maximum(np.asarray(schedules, np.float64), 1e-12)).T
    below = np.flatnonzero(gaps <= math.log(threshold))
    if not below.size:
        return None
    n = int(below[0])
    if n == 0:
        return Reached(math.exp(costs[0]), True)
    share = (gaps[n - 1] - math.log(threshold)) / (gaps[n - 1] - gaps[n])
    return Reached(math.exp(costs[n - 1] + share * (costs[n] - costs[n - 1])), False)


def reached(rows: list[Row], threshold: float, cost: str) -> dict[int, Reached]:
    """`{sites: what the threshold costs}` where it is reached, by the averages over seeds."""
    found = {}
    for sites in sorted({row["sites"] for row in rows}):
        same = [row for row in rows if row["sites"] == sites]
        each = [[r for r in same if r["num_updates"] == n] for n in sorted({r["num_updates"] for r in same})]
        schedules = [
            (_mean([r[cost] for r in some]), _mean([r["kl_per_site"] for r in some])) for some in each
        ]
        if (at := cost_of(schedules, threshold)) is not None:
            found[sites] = at
    return found


class PowerLaw(NamedTuple):
    """`cost = factor sites^exponent`, with the standard error of the exponent, `nan` below three points."""

    exponent: float
    stderr: float
    factor: float


def power_law(points: dict[int, Reached]) -> PowerLaw | None:
    """Least squares in logarithms; bounds do not count. `None` below two points."""
    exact = {sites: at.cost for sites, at in points.items() if not at.is_bound}
    if len(exact) < 2:
        return None
    line = linregress(np.log(list(exact)), np.log(list(exact.values())))
    return PowerLaw(line.slope, line.stderr if len(exact) > 2 else math.nan, math.exp(line.intercept))


def tabulate(rows: list[Row]) -> str:
    """Markdown: KL a site by lattice and schedule; what thresholds cost, with exponents over the number of sites."""
    schedules = sorted({row["num_updates"] for row in rows})
    all_sites = sorted({row["sites"] for row in rows})
    lines = []
    for sites in all_sites:
        cells = [f"{math.isqrt(sites)}"]
        for n in schedules:
            same = [row for row in rows if (row["sites"], row["num_updates"]) == (sites, n)]
            gap, ess, cpu = (
                _mean([r[k] for r in same]) for k in ("kl_per_site", "ess_fraction", "cpu_seconds")
            )
            cells.append(f"{gap:.1e}, {number(ess, 3)}, {number(cpu, 1)} s" if same else "")
        lines.append(cells)
    head = ["L", *(f"{n} updates" for n in schedules)]
    parts = [section("KL / L^2 in nats, ESS, processor seconds of training", head, lines)]
    for cost, label in COSTS.items():
        points = {threshold: reached(rows, threshold, cost) for threshold in THRESHOLDS}
        lines = [
            [f"{math.isqrt(sites)}", *(_cell(found.get(sites)) for found in points.values())]
            for sites in all_sites
        ]
        lines.append(["exponent over L^2", *(_exponent(found) for found in points.values())])
        head = ["L", *(f"{threshold:g}" for threshold in THRESHOLDS)]
        parts.append(section(f"{label.capitalize()} to come within so many nats a site", head, lines))
    return "\n".join(parts)


def draw_figure(rows: list[Row]) -> dict[str, Any]:
    """`{"scaling": figure}`: both costs of each threshold over the number of sites, with fitted powers.

    Triangles are bounds. Nothing where no threshold is reached.
    """
    from matplotlib.figure import Figure

    known = [threshold for threshold in THRESHOLDS if reached(rows, threshold, "cpu_seconds")]
    if not known:
        return {}
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    sites = sorted({row["sites"] for row in rows})
    for axis, (cost, label) in zip(figure.subplots(1, len(COSTS)), COSTS.items()):
        axis.set(
            xscale="log", yscale="log", xlabel="sites", title=f"{label} of training, critical Ising model"
        )
        axis.set_xticks(sites, [f"{math.isqrt(n)}$^2$" for n in sites])
        axis.set_xticks([], minor=True)
        for i, threshold in enumerate(known):
            points, color = reached(rows, threshold, cost), f"C{i}"
            exact = [(n, at.cost) for n, at in points.items() if not at.is_bound]
            bounds = [(n, at.cost) for n, at in points.items() if at.is_bound]
            law = power_law(points)
            name = f"{threshold:g} nats a site" + (f": power {_exponent(points)}" if law else "")
            axis.plot(*_columns(exact), "o", color=color, label=name)
            axis.plot(*_columns(bounds), "v", color=color, mfc="none")
            if law:
                axis.plot(sites, law.factor * np.power(sites, law.exponent), color=color, lw=1)
        axis.legend(frameon=False, fontsize=8)
    return {"scaling": figure}


def _columns(points: list[tuple[int, float]]) -> np.ndarray:
    return np.asarray(points, np.float64).reshape(-1, 2).T


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _cell(found: Reached | None) -> str:
    if found is None:
        return "-"
    return ("< " if found.is_bound else "") + f"{found.cost:.3g}"


def _exponent(found: dict[int, Reached]) -> str:
    law = power_law(found)
    if law is None:
        return "-"
    return f"{law.exponent:.2f}" + ("" if math.isnan(law.stderr) else f" +- {law.stderr:.2f}")
