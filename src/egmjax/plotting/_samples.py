"""The samples panel: lattices as images, points of the plane, points coloured by a discrete pattern."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._histograms import COLORS, draw_note

__all__ = ["draw_states"]

_MAX_POINTS = 5000
_MAX_PATTERNS = 8
_GRID = 6


def draw_states(axis: Any, arrays: list[np.ndarray], weight: np.ndarray, *, are_images: bool = False) -> None:
    """Raw draws `arrays`, the components `[n, ...]` of a state; `weight [n]` normalised.

    `are_images`: the real component is a square picture, to be shown as such.
    """
    components = [a.reshape(a.shape[0], -1) for a in arrays]
    real = [a for a in components if np.issubdtype(a.dtype, np.floating) and a.shape[1] > 0]
    discrete = [a for a in components if np.issubdtype(a.dtype, np.integer) and a.shape[1] > 0]
    if real and discrete:
        _draw_patterns(axis, real[0], discrete[0])
    elif real and are_images:
        _draw_images(axis, real[0])
    elif real:
        _draw_points(axis, real[0], weight)
    elif discrete:
        _draw_sites(axis, discrete[0])
    else:
        draw_note(axis, "samples", "neither a real nor a discrete component")


def _draw_sites(axis: Any, x: np.ndarray) -> None:
    """A grid of 6 x 6 lattices where the number of sites is a square, else one row for each draw."""
    num_states = max(2, int(x.max()) + 1)
    side = math.isqrt(x.shape[1])
    square = side > 1 and side * side == x.shape[1]
    if square:
        image = _tile(x, side)
        title = f"{min(len(x), _GRID * _GRID)} raw samples, {side} x {side}"
    else:
        image = x[:48].astype(float)
        title = f"{len(image)} raw samples"
        axis.set(xlabel="site", ylabel="sample")
    colormap = "cividis" if num_states == 2 else "viridis"
    axis.imshow(
        image,
        cmap=colormap,
        vmin=0,
        vmax=num_states - 1,
        interpolation="nearest",
        aspect="equal" if square else "auto",
    )
    axis.set_title(title)
    if square:
        axis.set_axis_off()


def _draw_images(axis: Any, x: np.ndarray) -> None:
    """A grid of 6 x 6 pictures in grey; the two ends of the scale hold one value in a hundred each."""
    side = math.isqrt(x.shape[1])
    low, high = np.nanquantile(x, [0.01, 0.99])
    axis.imshow(_tile(x, side), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axis.set_title(f"{min(len(x), _GRID * _GRID)} raw samples, {side} x {side}")
    axis.set_axis_off()


def _tile(x: np.ndarray, side: int) -> np.ndarray:
    """The first rows of `x [n, side^2]`, 6 x 6 of them side by side with gaps of nan."""
    gap = max(1, side // 8)
    pitch = side + gap
    image = np.full((_GRID * pitch - gap, _GRID * pitch - gap), np.nan)
    for i, draw in enumerate(x[: _GRID * _GRID]):
        row, column = pitch * (i // _GRID), pitch * (i % _GRID)
        image[row : row + side, column : column + side] = draw.reshape(side, side)
    return image


def _draw_points(axis: Any, x: np.ndarray, weight: np.ndarray) -> None:
    """The first two coordinates, coloured by weight over its mean; a histogram for one coordinate."""
    if x.shape[1] == 1:
        values = x[np.isfinite(x[:, 0]), 0]
        axis.hist(values, bins=48, density=True, histtype="step", color=COLORS["raw"], lw=1.6)
        axis.set(xlabel="x", ylabel="density", title="raw samples")
        return
    x, relative = _thin(x, weight * weight.size)
    order = np.argsort(relative)
    top = max(1.0 + 1e-6, np.quantile(relative, 0.99)) if relative.size else 2.0
    style = {"s": 6, "lw": 0, "cmap": "viridis", "vmin": 0, "vmax": top, "rasterized": True}
    points = axis.scatter(x[order, 0], x[order, 1], c=relative[order], **style)
    axis.figure.colorbar(points, ax=axis, label="weight / mean weight", extend="max", shrink=0.9, pad=0.02)
    _label_plane(axis, x)


def _draw_patterns(axis: Any, x: np.ndarray, symbols: np.ndarray) -> None:
    """The first two real coordinates coloured by the discrete component; rare patterns share one colour."""
    y = x[:, 1] if x.shape[1] > 1 else symbols[:, 0].astype(float)
    x, symbols = _thin(np.stack([x[:, 0], y], axis=1), symbols)
    patterns, index, counts = np.unique(symbols, axis=0, return_inverse=True, return_counts=True)
    index = index.reshape(-1)
    most = np.argsort(-counts, kind="stable")[:_MAX_PATTERNS]
    rest = ~np.isin(index, most)
    if rest.any():
        axis.scatter(*x[rest].T, s=6, lw=0, color=COLORS["faint"], rasterized=True, label="other")
    separator = "" if symbols.max(initial=0) < 10 else ","
    for position, pattern in enumerate(sorted(most)):
        here = index == pattern
        name = separator.join(str(s) for s in patterns[pattern])
        axis.scatter(*x[here].T, s=6, lw=0, color=f"C{position}", rasterized=True, label=name)
    long = patterns.shape[1] > 6
    shown = len(most) + int(rest.any())
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=3 if long else shown if shown <= 5 else math.ceil(shown / 2),
        frameon=False,
        fontsize=8 if long else 9,
        markerscale=2.5,
        columnspacing=1.0,
        handletextpad=0.1,
    )
    _label_plane(axis, x)


def _thin(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `_MAX_POINTS` of the rows with finite coordinates, evenly spaced."""
    keep = np.flatnonzero(np.all(np.isfinite(x[:, :2]), axis=1))
    keep = keep[:: max(1, math.ceil(keep.size / _MAX_POINTS))]
    return x[keep], other[keep]


def _label_plane(axis: Any, x: np.ndarray) -> None:
    axis.set(xlabel="coordinate 0", ylabel="coordinate 1", title=f"{len(x)} raw samples")
    if len(x) < 2:
        return
    # a few far outliers must not shrink the picture; they are left outside of it and counted
    low, high = np.quantile(x[:, :2], [0.002, 0.998], axis=0)
    pad = 0.08 * np.maximum(high - low, 1e-6)
    low, high = low - pad, high + pad
    outside = int(np.sum(np.any((x[:, :2] < low) | (x[:, :2] > high), axis=1)))
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    if outside:
        axis.set_title(f"{len(x)} raw samples, {outside} outside")
