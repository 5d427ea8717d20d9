"""Training curves and the histogram of log-weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ..metrics import WeightSummary
from ._histograms import COLORS, draw_note

__all__ = ["draw_ess", "draw_log_weights", "draw_loss"]


def draw_loss(axis: Any, history: Sequence[Mapping[str, Any]]) -> None:
    """Loss over energy evaluations (over steps where they were not logged), with a running mean.

    Objectives that take turns have an axis each: their losses are not one quantity.
    """
    turns = [(name, list(rows)) for name, rows in groupby(history, key=lambda row: row.get("objective"))]
    turns = [(name, rows) for name, rows in turns if _series(rows, "loss")[1].size]
    if not turns:
        draw_note(axis, "loss", "no loss in history")
        return
    for n, (name, rows) in enumerate(turns):
        own = axis if n == 0 else axis.twinx()
        x, y, label = _series(rows, "loss")
        width = max(1, y.size // 25)
        own.plot(x, y, color=COLORS["faint"], lw=0.8, marker="." if y.size < 3 else "", label="logged")
        if width > 1:
            smooth = np.convolve(y, np.ones(width) / width, mode="valid")
            own.plot(x[width - 1 :], smooth, color=COLORS["raw"], lw=1.8, label=f"mean of last {width}")
        if width > 1 and len(turns) == 1:
            own.legend(loc="upper right", frameon=False, fontsize=9)
        if y.min() > 0 and y.max() > 30 * y.min():
            own.set_yscale("log")
        own.set_ylabel("loss" if len(turns) == 1 else str(name))
    seconds = [h["seconds"] for h in history if h.get("seconds") is not None]
    _label_progress(axis, label)
    axis.set_title("loss" + (f", {seconds[-1]:.0f} s" if seconds else ""))


def draw_ess(axis: Any, history: Sequence[Mapping[str, Any]], final: float) -> None:
    """ESS fraction over training, or the acceptance of chains it learned from, and the ESS of these samples."""
    name, what = "ess_fraction", "during training"
    if not any(name in row for row in history):
        name, what = "acceptance", "acceptance of chains"
    x, y, label = _series(history, name)
    if y.size:
        marker = "o" if y.size <= 40 else ""
        axis.plot(x, y, color=COLORS["weighted"], lw=1.6, marker=marker, ms=3.5, label=what)
    axis.axhline(final, color=COLORS["raw"], lw=1.4, ls="--", label=f"these samples: {final:.3f}")
    _label_progress(axis, label)
    axis.set(ylabel="ESS / n", ylim=(-0.02, 1.16), title="effective sample size")
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.legend(loc="upper center", ncols=2, frameon=False, fontsize=9)


def draw_log_weights(
    axis: Any,
    log_weight: np.ndarray,
    summary: WeightSummary,
    *,
    log_z: float | None,
    exact_log_z: float | None,
) -> None:
    """Histogram of `log w - log Z` with the numbers that the weights certify."""
    finite = log_weight[np.isfinite(log_weight)]
    title = "log-weights"
    if finite.size == 0:
        draw_note(axis, title, "no finite log-weight")
        return
    centre = float(summary.log_z) if log_z is None else float(log_z)
    values = finite - centre
    low, high = np.quantile(values, [0.002, 1.0])
    span = max(high - low, 0.1)
    edges = np.linspace(low - 0.02 * span, high + 0.02 * span, 49)
    density, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges, density=True)
    axis.stairs(density, edges, fill=True, color=COLORS["weighted"], alpha=0.75)
    axis.axvline(0.0, ymax=0.6, color="black", lw=0.8, ls=":")
    axis.set(xlabel="log w - log Z [nats]", ylabel="density", title=title)
    axis.set_ylim(0, 1.75 * density.max())
    left = [
        f"log Z   {float(summary.log_z):.4f} ± {float(summary.log_z_stderr):.4f}",
        f"exact   {exact_log_z:.4f}" if exact_log_z is not None else "exact   unknown",
        f"ELBO    {float(summary.elbo):.4f}",
    ]
    right = [
        f"ESS/n     {float(summary.ess_fraction):7.4f}",
        f"Pareto k  {float(summary.pareto_k):7.2f}",
        f"largest   {float(summary.largest_weight):7.1e}",
    ]
    lost = int(summary.num_nonfinite)
    if lost:
        left.append(f"{lost} of {log_weight.size} not finite")
    style = {"transform": axis.transAxes, "va": "top", "family": "monospace", "fontsize": 9}
    axis.text(0.03, 0.97, "\n".join(left), ha="left", **style)
    axis.text(0.97, 0.97, "\n".join(right), ha="right", multialignment="left", **style)


def _label_progress(axis: Any, label: str) -> None:
    axis.set_xlabel(label)
    axis.ticklabel_format(axis="x", scilimits=(-3, 5))  # longer numbers run into each other


def _series(history: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """The finite values of `name`, their abscissae, and the label of these."""
    rows = [h for h in history if h.get(name) is not None and np.isfinite(float(h[name]))]
    y = np.array([float(h[name]) for h in rows])
    for key, label in (("energy_evaluations", "energy evaluations"), ("step", "step")):
        if rows and all(h.get(key) is not None for h in rows):
            return np.array([float(h[key]) for h in rows]), y, label
    return np.arange(y.size, dtype=float), y, "step" if not rows else "entry of history"
