"""Points of the plane on their way from noise to data: a row for each process, a column for each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_film_strip"]

_MAX_POINTS = 3000


def plot_film_strip(
    frames: Mapping[str, Any],
    times: Sequence[float],
    *,
    angles: Mapping[str, Any] | None = None,
    title: str = "",
) -> Figure:
    """A panel for every process and time, all on one scale, 200 pixels each.

    `frames` maps the name of a row to points `[len(times), n, 2]`; points that are not finite or far out are left
    away. `angles` maps some of them to numbers `[n]` in `[-pi, pi]`, shown by colours of a circle that follow points
    through the frames; other rows are grey. Raises `ValueError` for other shapes and where there is no row.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = {name: np.asarray(points, np.float64) for name, points in frames.items()}
    if not rows or not len(times):
        raise ValueError("frames: expected at least one row and one time")
    for name, points in rows.items():
        if points.ndim != 3 or len(points) != len(times) or points.shape[2] != 2 or not points.size:
            raise ValueError(f"frames[{name!r}]: expected [{len(times)}, n, 2], got {list(points.shape)}")
    hues = {name: np.asarray(values, np.float64) for name, values in (angles or {}).items()}
    for name, values in hues.items():
        if name not in rows or values.shape != rows[name].shape[1:2]:
            raise ValueError(f"angles[{name!r}]: expected one number for each point of a row of that name")
    every = np.concatenate([points.reshape(-1, 2) for points in rows.values()])
    every = every[np.all(np.isfinite(every), axis=1)]
    if not len(every):
        raise ValueError("frames: no point is finite")
    bulk, far = np.quantile(np.abs(every), [0.9, 0.995])
    reach = 1.1 * max(min(far, 2.5 * bulk), 1e-6)  # outliers set no scale
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    size = 2.0 * len(times) + 0.4, 2.0 * len(rows) + (0.7 if title else 0.3)
    figure = Figure(figsize=size, dpi=100, layout=layout)
    if title:
        figure.suptitle(title, fontsize=13)
    axes = figure.subplots(len(rows), len(times), squeeze=False, sharex=True, sharey=True)
    for (name, points), line in zip(rows.items(), axes):
        shown = slice(None, None, -(-points.shape[1] // _MAX_POINTS))
        style: dict[str, Any] = {"color": "0.35"}
        if name in hues:
            style = {"c": hues[name][shown], "cmap": "hsv", "vmin": -np.pi, "vmax": np.pi}
        line[0].set_ylabel(name)
        for axis, frame in zip(line, points):
            axis.scatter(*frame[shown].T, s=2.0, lw=0, rasterized=True, **style)
            axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
    for axis, t in zip(axes[0], times):
        axis.set_title(f"t = {t:.2f}", fontsize=11)
    return figure
