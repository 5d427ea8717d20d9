"""Tables and figures of a suite, from its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from . import markdown

Row = dict[str, Any]
METHODS = ("snis", "bootstrap", "weighted", "mcmc")
COLORS = {"snis": "tab:orange", "bootstrap": "tab:green", "weighted": "tab:blue", "mcmc": "tab:red"}


def tabulate(rows: list[Row]) -> str:
    """Markdown: a table for each experiment, averages over seeds; `a +- b`, b the standard error of the average."""
    return sections(rows, _table)


def sections(rows: list[Row], table: Callable[[list[Row]], str]) -> str:
    """A heading and `table(its rows)` for each experiment."""
    parts = []
    for experiment in unique(row["experiment"] for row in rows):
        chosen = [row for row in rows if row["experiment"] == experiment]
        parts.append(f"### {experiment}\n\n" + table(chosen))
    return "\n".join(parts)


def _table(rows: list[Row]) -> str:
    names = unique(name for row in rows for name in row["metrics"])
    betas = sorted({row["beta"] for row in rows if "beta" in row})
    head = (["beta"] if betas else []) + ["method", "ESS", "log Z - exact", "95 % interval covers"]
    head += [f"{name}: raw, weighted, floor" for name in names] + ["energies", "seconds", "seeds"]
    lines = []
    for beta in betas or [None]:
        for method in METHODS:
            same = [r for r in rows if r["method"] == method and r.get("beta") == beta]
            if same:
                cells = [] if beta is None else [f"{beta:g}"]
                lines.append(cells + _cells(method, same, names))
    return markdown.table(head, lines)


def _cells(method: str, same: list[Row], names: list[str]) -> list[str]:
    has_weights = method != "mcmc"
    cells = [method]
    if has_weights:
        errors = [(r["log_z"] - r["exact_log_z"], r["log_z_stderr"]) for r in same if r["log_z"] is not None]
        inside = sum(abs(error) < 1.96 * stderr for error, stderr in errors)
        cells += [
            _mean(r["ess_fraction"] for r in same),
            _mean(e for e, _ in errors),
            f"{inside} of {len(same)}",
        ]
    else:
        cells += ["-", "-", "-"]
    for name in names:
        entries = [r["metrics"][name] for r in same if name in r["metrics"]]
        kinds = ("value", "weighted", "floor") if has_weights else ("value", "floor")
        numbers = [_mean((e[k] for e in entries), with_error=False) for k in kinds]
        cells.append(", ".join(numbers if has_weights else [numbers[0], "-", numbers[1]]))
    cells.append(f"{np.mean([r['energy_evaluations'] for r in same]):.1e}")
    return [*cells, f"{np.mean([r['seconds'] for r in same]):.0f}", str(len(same))]


def _mean(values: Iterable[Any], *, with_error: bool = True) -> str:
    known = [float(v) for v in values if v is not None]
    if not known:
        return "-"
    digits = 3 if max(abs(v) for v in known) >= 0.1 else 4
    text = f"{np.mean(known):.{digits}f}"
    if with_error and len(known) > 1:
        text += f" +- {np.std(known, ddof=1) / math.sqrt(len(known)):.{digits}f}"
    return text


def draw(rows: list[Row]) -> dict[str, Any]:
    """`{name: figure}`: distances from the exact laws over beta, and for the other experiments side by side."""
    figures = {}
    over_beta = [row for row in rows if "beta" in row]
    if over_beta:
        figures["temperatures"] = _temperatures(over_beta)
    others = [row for row in rows if "beta" not in row]
    if others:
        figures["targets"] = _targets(others)
    return figures


PANELS: tuple[tuple[str, str], ...] = (
    ("energy_w1", "W1 of the energy / kT"),
    ("magnetization_w1", "W1 of the magnetisation"),
    ("ess", "ESS / n"),
)


def _temperatures(rows: list[Row]) -> Any:
    from matplotlib.figure import Figure

    experiments = unique(row["experiment"] for row in rows)
    figure = Figure(figsize=(13, 3.8 * len(experiments)), layout="constrained")
    grid = figure.subplots(len(experiments), len(PANELS), squeeze=False)
    for axes, experiment in zip(grid, experiments):
        for axis, (name, label) in zip(axes, PANELS):
            chosen = [row for row in rows if row["experiment"] == experiment]
            _panel(axis, chosen, name)
            axis.set(xlabel="beta", title=f"{experiment}: {label}")
    grid[0][0].legend(frameon=False, fontsize=8)
    return figure


def _panel(axis: Any, rows: list[Row], name: str) -> None:
    for method in METHODS:
        same = [row for row in rows if row["method"] == method]
        if name == "ess":
            if method != "mcmc" and same:
                axis.plot(*_curve(same, lambda r: r["ess_fraction"]), color=COLORS[method], marker="o", ms=3)
            axis.set_ylim(0, 1)
            continue
        if not same:
            continue
        raw = _curve(same, lambda r: r["metrics"][name]["value"])
        axis.plot(*raw, color=COLORS[method], marker="o", ms=3, ls=":", label=f"{method}, raw")
        if method != "mcmc":
            weighted = _curve(same, lambda r: r["metrics"][name]["weighted"])
            axis.plot(*weighted, color=COLORS[method], marker="o", ms=3, label=f"{method}, weighted")
        axis.set_yscale("log")
    if name != "ess":
        axis.plot(*_curve(rows, lambda r: r["metrics"][name]["floor"]), color="black", lw=1, label="floor")


def _curve(rows: list[Row], read: Callable[[Row], float | None]) -> tuple[list[float], list[float]]:
    betas = sorted({row["beta"] for row in rows})
    values = []
    for beta in betas:
        known = [v for v in (read(row) for row in rows if row["beta"] == beta) if v is not None]
        values.append(float(np.mean(known)) if known else math.nan)
    return betas, values


def _targets(rows: list[Row]) -> Any:
    """Each metric in units of its floor: dots for seeds, hollow raw, full weighted."""
    from matplotlib.figure import Figure

    experiments = unique(row["experiment"] for row in rows)
    figure = Figure(figsize=(5 * len(experiments), 4.5), layout="constrained")
    for axis, experiment in zip(figure.subplots(1, len(experiments), squeeze=False)[0], experiments):
        chosen = [row for row in rows if row["experiment"] == experiment]
        names = unique(name for row in chosen for name in row["metrics"])
        for i, method in enumerate(METHODS):
            for kind in ("value",) if method == "mcmc" else ("value", "weighted"):
                points = [
                    (j + 0.18 * (i - 1.5), row["metrics"][name][kind] / row["metrics"][name]["floor"])
                    for row in chosen
                    if row["method"] == method
                    for j, name in enumerate(names)
                    if row["metrics"].get(name, {}).get("floor")
                ]
                if points:
                    face = COLORS[method] if kind == "weighted" else "none"
                    label = method + (
                        "" if method == "mcmc" else ", raw" if kind == "value" else ", weighted"
                    )
                    axis.scatter(
                        *zip(*points),
                        s=22,
                        marker="o",
                        facecolors=face,
                        edgecolors=COLORS[method],
                        label=label,
                    )
        axis.axhline(1.0, color="black", lw=1)
        axis.set(yscale="log", title=f"{experiment}: distance over its floor")
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
