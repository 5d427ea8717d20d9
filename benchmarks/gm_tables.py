"""Table and figure of the suite `gm`, from its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from . import markdown
from .suite_tables import sections, unique

Row = dict[str, Any]
PAIRED = ("frechet", "kernel_distance")
BASELINES = ("flow, Euler", "flow, Heun")


def tabulate(rows: list[Row]) -> str:
    """Markdown: a table for each experiment, averages over seeds; `a +- b`, b the standard error of the average.

    Differences are taken seed by seed from the flow of the same network; `[a, b]` is Student's 95 % interval of their
    mean. Without a second seed there is none.
    """
    return sections(rows, _table)


def _table(rows: list[Row]) -> str:
    head = ["method", "Frechet", "/ floor", "kernel distance x 1000", "nearer"]
    head += [f"{label} - {baseline}" for baseline in BASELINES for label in ("Frechet", "kernel x 1000")]
    head += ["training, CPU s", "seeds"]
    lines = []
    methods = sorted(unique(row["method"] for row in rows), key=lambda method: method.startswith("residual"))
    for method in methods:
        values = {name: by_seed(rows, method, name) for name in ("frechet", "kernel_distance", "nearer")}
        floor = np.mean(list(by_seed(rows, method, "frechet", "floor").values()))
        cells = [method, _mean(values["frechet"]), f"{np.mean(list(values['frechet'].values())) / floor:.2f}"]
        cells += [_mean(values["kernel_distance"], 1e3), _mean(values["nearer"])]
        for baseline in BASELINES:
            for name, unit in zip(PAIRED, (1.0, 1e3)):
                cells.append(_interval(values[name], by_seed(rows, baseline, name), unit))
        seconds = [row["train_cpu_seconds"] for row in rows if row["method"] == method]
        lines.append([*cells, f"{np.mean(seconds):.0f}", str(len(seconds))])
    floors = [by_seed(rows, methods[0], name, "floor") for name in PAIRED]
    lines.append(["floor", _mean(floors[0]), "1", _mean(floors[1], 1e3), "0.500", *[""] * (len(head) - 5)])
    return markdown.table(head, lines)


def by_seed(rows: Sequence[Row], method: str, name: str, kind: str = "value") -> dict[int, float]:
    """`{seed: value}` of a metric."""
    return {row["seed"]: row["metrics"][name][kind] for row in rows if row["method"] == method}


def paired_interval(a: dict[int, float], b: dict[int, float], level: float = 0.95) -> tuple[float, float]:
    """Mean of `a - b` over the seeds of both, and the half-width of its interval, `nan` below two seeds."""
    seeds = sorted(a.keys() & b.keys())
    difference = np.array([a[seed] - b[seed] for seed in seeds])
    if len(seeds) < 2:
        return float(difference.mean()) if seeds else math.nan, math.nan
    stderr = difference.std(ddof=1) / math.sqrt(len(seeds))
    return float(difference.mean()), float(student.ppf(0.5 + level / 2, len(seeds) - 1) * stderr)


def _interval(a: dict[int, float], b: dict[int, float], unit: float) -> str:
    if a == b:
        return "-"
    mean, half = (unit * value for value in paired_interval(a, b))
    if math.isnan(half):
        return "-" if math.isnan(mean) else f"{mean:+.2f}"
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def _mean(values: dict[int, float], unit: float = 1.0) -> str:
    known = unit * np.array(list(values.values()))
    text = f"{known.mean():.3f}"
    return text if len(known) < 2 else f"{text} +- {known.std(ddof=1) / math.sqrt(len(known)):.3f}"


def draw(rows: list[Row]) -> dict[str, Any]:
    """`{name: figure}`: Frechet and kernel distance of every method, a dot for each seed, beside the floor."""
    return {experiment: _figure(rows, experiment) for experiment in unique(row["experiment"] for row in rows)}


def _figure(rows: list[Row], experiment: str) -> Any:
    from matplotlib.figure import Figure

    chosen = [row for row in rows if row["experiment"] == experiment]
    methods = sorted(
        unique(row["method"] for row in chosen), key=lambda method: method.startswith("residual")
    )
    figure = Figure(figsize=(10, 0.7 + 0.4 * len(methods)), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2, sharey=True), PAIRED):
        for i, method in enumerate(methods):
            values = list(by_seed(chosen, method, name).values())
            axis.scatter(values, [i] * len(values), s=18, facecolors="none", edgecolors="tab:blue")
            axis.plot(np.mean(values), i, "|", color="tab:blue", ms=14, mew=2)
        floor = np.mean([row["metrics"][name]["floor"] for row in chosen])
        axis.axvline(floor, color="black", lw=1, label="floor: training images")
        axis.set(
            title=f"{experiment}: {name.replace('_', ' ')}", yticks=range(len(methods)), yticklabels=methods
        )
    figure.axes[0].invert_yaxis()
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure
