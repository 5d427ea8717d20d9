"""Histograms of one quantity: raw, weighted and exact, in the same bins."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["COLORS", "draw_laws", "draw_note"]

COLORS = {"raw": "#d95f02", "weighted": "#1b4f9c", "exact": "#b8c4ce", "faint": "#9aa5af"}
_MAX_BINS = 48


def draw_laws(
    axis: Any,
    values: np.ndarray,
    weight: np.ndarray | None,
    exact: Any,
    *,
    label: str,
    names: tuple[str, str] = ("raw", "exact"),
) -> None:
    """Densities of `values [n]` raw (line) and, where there is one, with `weight [n]` (line), and of `exact` (filled).

    `exact` is `None`, a sample `[k]` or a law `(values [m], probabilities [m])`; `names` are those of `values` and
    `exact` in the legend. Values beyond the bins are counted in the outermost ones, and their share is in the legend.
    """
    finite = np.isfinite(values)
    weight = np.zeros(values.shape) if weight is None else weight
    values, weight = values[finite], weight[finite]
    law = _as_law(exact)
    if values.size == 0:
        draw_note(axis, label, "no finite value")
        return
    edges = _bin_edges(values, weight, law)
    if law is not None:
        axis.stairs(_density(*law, edges), edges, fill=True, color=COLORS["exact"], label=names[1])
    beyond = np.mean((values < edges[0]) | (values > edges[-1]))
    raw_label = names[0] + (f" ({beyond:.1%} beyond)" if beyond > 0.0005 else "")
    raw = _density(values, np.ones(values.size), edges)
    axis.stairs(raw, edges, color=COLORS["raw"], lw=1.6, label=raw_label)
    if weight.sum() > 0:
        weighted = _density(values, weight, edges)
        axis.stairs(weighted, edges, color=COLORS["weighted"], lw=1.6, ls=(0, (4, 1.5)), label="weighted")
    name = label.split(" [")[0]
    lost = np.sum(~finite)
    axis.set(xlabel=label, ylabel="density", title=name + (f" ({lost} not finite)" if lost else ""))
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(0, 1.22 * axis.dataLim.ymax)
    axis.legend(loc="upper center", ncols=3, frameon=False, fontsize=9)


def draw_note(axis: Any, title: str, text: str) -> None:
    """An empty panel that says why it is empty."""
    axis.set(title=title, xticks=[], yticks=[])
    axis.text(0.5, 0.5, text, ha="center", va="center", color=COLORS["faint"], transform=axis.transAxes)


def _as_law(exact: Any) -> tuple[np.ndarray, np.ndarray] | None:
    if exact is None:
        return None
    if isinstance(exact, tuple):
        values, weight = (np.asarray(a, np.float64) for a in exact)
    else:
        values = np.asarray(exact, np.float64)
        weight = np.ones(values.shape)
    if values.ndim != 1 or values.shape != weight.shape:
        raise ValueError(f"exact: expected a sample [k] or a law of two [m], got shape {list(values.shape)}")
    keep = np.isfinite(values) & (weight > 0)
    return (values[keep], weight[keep]) if keep.any() else None


def _bin_edges(
    values: np.ndarray, weight: np.ndarray, law: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """Edges over the bulk of all laws; for values on a lattice, whole steps of it around its points."""
    ranges = [_bulk(values, np.ones(values.size))]
    if weight.sum() > 0:
        ranges.append(_bulk(values, weight))
    if law is not None:
        ranges.append(_quantiles(law[0], law[1], 0.0005))
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    if high - low < 1e-6 * max(1.0, abs(high)):
        return np.array([low - 0.5, low + 0.5])
    points = values if law is None else np.concatenate([values, law[0]])
    inside = np.unique(points[(points >= low) & (points <= high)])
    gaps = np.diff(inside)
    gaps = gaps[gaps > 1e-4 * (high - low)]
    step = gaps.min() if gaps.size else high - low
    on_lattice = np.allclose((inside - low) / step, np.round((inside - low) / step), atol=0.05)
    if not on_lattice or inside.size > 0.5 * points.size:
        return np.linspace(low, high, _MAX_BINS + 1)
    width = step * np.ceil(((high - low) / step + 1) / _MAX_BINS)
    return np.arange(low - 0.5 * step, high + width, width)


def _bulk(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """All but .2% on each side, at most three times the central 80% beyond it: one outlier sets no scale."""
    (low, high), (inner_low, inner_high) = _quantiles(values, weight, 0.002), _quantiles(values, weight, 0.1)
    reach = 3 * (inner_high - inner_low)
    if reach == 0:
        return low, high
    return max(low, inner_low - reach), min(high, inner_high + reach)


def _quantiles(values: np.ndarray, weight: np.ndarray, tail: float) -> tuple[float, float]:
    order = np.argsort(values)
    level = np.cumsum(weight[order]) / weight.sum()
    index = np.minimum(np.searchsorted(level, [tail, 1 - tail]), values.size - 1)
    low, high = values[order][index]
    return float(low), float(high)


def _density(values: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> np.ndarray:
    count, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges, weights=weight)
    return count / (weight.sum() * np.diff(edges))
