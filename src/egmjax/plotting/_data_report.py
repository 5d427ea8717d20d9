"""One figure of a sampler that learned from data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._curves import draw_loss
from ._histograms import draw_laws, draw_note
from ._samples import draw_states

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_data_report"]


def plot_data_report(
    *,
    states: Any,
    reference: Any,
    history: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, float | None]],
    title: str = "",
    are_images: bool = False,
) -> Figure:
    """Six panels, 1500 x 900 pixels: samples, data, two marginals, loss, metrics.

    `states [n, ...]` and `reference [m, ...]` are samples and held-out data, arrays or tuples of those. Marginals
    are of the first two coordinates; `are_images` shows states of real numbers as square pictures.
    `history` is as for `plot_report`; `metrics` maps a name to `value`, `stderr`, `floor`. Raises `ValueError` where
    there are no states, and for images that are not square.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    samples, data = (
        [np.asarray(a) for a in (x if isinstance(x, tuple) else (x,))] for x in (states, reference)
    )
    for name, arrays in (("states", samples), ("reference", data)):
        if any(a.ndim < 1 or len(a) == 0 for a in arrays):
            raise ValueError(f"{name}: expected at least one state")
    num_pixels = math.prod(samples[0].shape[1:])
    if are_images and math.isqrt(num_pixels) ** 2 != num_pixels:
        raise ValueError(f"states: expected square images, got {num_pixels} pixels")
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.03, hspace=0.05)
    figure = Figure(figsize=(15, 9), dpi=100, layout=layout)
    axes = figure.subplots(2, 3)
    if title:
        figure.suptitle(title, fontsize=14)
    for axis, arrays, label in ((axes[0, 0], samples, "samples"), (axes[0, 1], data, "held-out data")):
        draw_states(axis, arrays, np.full(len(arrays[0]), 1.0 / len(arrays[0])), are_images=are_images)
        axis.set_title(label)
    columns = [np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1) for arrays in (samples, data)]
    for i, axis in enumerate((axes[0, 2], axes[1, 2])):
        if i < columns[0].shape[1]:
            values = columns[0][:, i].astype(float)
            draw_laws(
                axis,
                values,
                None,
                columns[1][:, i].astype(float),
                label=f"coordinate {i}",
                names=("samples", "held-out data"),
            )
        else:
            draw_note(axis, "marginal", "one coordinate only")
    draw_loss(
        axes[1, 0], [{**row, "energy_evaluations": None, "step": row.get("iteration")} for row in history]
    )
    _draw_metrics(axes[1, 1], metrics)
    return figure


def _draw_metrics(axis: Any, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
    """Values with standard errors beside their floors, as text: they have no common scale."""
    lines = [f"{'':<24}{'value':>9}{'error':>9}{'floor':>9}"]
    for name, entry in metrics.items():
        cells = (entry.get(kind) for kind in ("value", "stderr", "floor"))
        lines.append(f"{name:<24}" + "".join(f"{'-' if c is None else format(c, '.4f'):>9}" for c in cells))
    axis.set_axis_off()
    axis.set_title("metrics against held-out data")
    axis.text(0.0, 0.95, "\n".join(lines), transform=axis.transAxes, va="top", family="monospace", fontsize=9)
