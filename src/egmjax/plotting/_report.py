"""One figure that says how good a sampler is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics import normalized_weights, summarize_weights
from ._curves import draw_ess, draw_log_weights, draw_loss
from ._histograms import draw_laws, draw_note
from ._samples import draw_states

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_report"]


def plot_report(
    *,
    states: Any,
    energies: Any,
    log_weight: Any,
    history: Sequence[Mapping[str, Any]],
    reference_energies: Any = None,
    energy_law: tuple[Any, Any] | None = None,
    observables: Mapping[str, tuple[Any, Any]] | None = None,
    log_z: float | None = None,
    exact_log_z: float | None = None,
    title: str = "",
) -> Figure:
    """Six panels, 1500 x 900 pixels: samples, energies, one observable, loss, ESS, log-weights.

    `states` are `n` draws of the sampler: `[n, sites]` integers, `[n, ...]` floats, or a tuple of those;
    `energies [n]` and `log_weight [n]` belong to them. Weighted curves use the normalised weights; draws
    whose weight or value is not finite are left out of the curves and counted in the text.

    `energy_law = (values [m], probabilities [m])` is the exact law of the energy, else `reference_energies
    [k]` is an exact sample of it. `observables` maps a name to `(values [n], reference [k] or None)`; the
    first is drawn, and a reference may be a law `(values, probabilities)` as well. `history` holds one
    mapping for each logged step, with any of `step, energy_evaluations, loss, ess_fraction, acceptance, seconds,
    objective`: acceptance of chains is drawn where there is no ESS, and objectives that take turns have their losses
    drawn apart. `log_z` is subtracted from the log-weights, by default their own estimate; `exact_log_z` is printed
    beside it.

    The figure belongs to no window: save it with `figure.savefig(path)`. Raises `ValueError` where
    `energies`, `log_weight`, `states` or the drawn observable differ in length or are empty.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    log_weight = _column(log_weight, "log_weight", None)
    num_samples = log_weight.size
    energies = _column(energies, "energies", num_samples)
    arrays = [np.asarray(a) for a in (states if isinstance(states, tuple) else (states,))]
    for array in arrays:
        if array.ndim < 1 or array.shape[0] != num_samples:
            raise ValueError(f"states: expected leading length {num_samples}, got shape {list(array.shape)}")
    weight = np.asarray(normalized_weights(log_weight), np.float64)
    summary = summarize_weights(log_weight)

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.03, hspace=0.05)
    figure = Figure(figsize=(15, 9), dpi=100, layout=layout)
    axes = figure.subplots(2, 3)
    if title:
        figure.suptitle(title, fontsize=14)

    draw_states(axes[0, 0], arrays, weight)
    exact = energy_law if energy_law is not None else reference_energies
    draw_laws(axes[0, 1], energies, weight, exact, label="energy [nats]")
    if observables:
        name, (values, reference) = next(iter(observables.items()))
        values = _column(values, f"observables[{name!r}]", num_samples)
        draw_laws(axes[0, 2], values, weight, reference, label=name)
    else:
        draw_note(axes[0, 2], "observable", "no observable given")
    draw_loss(axes[1, 0], history)
    draw_ess(axes[1, 1], history, float(summary.ess_fraction))
    draw_log_weights(axes[1, 2], log_weight, summary, log_z=log_z, exact_log_z=exact_log_z)
    return figure


def _column(value: Any, name: str, length: int | None) -> np.ndarray:
    value = np.asarray(value, np.float64)
    if value.ndim != 1 or value.size == 0 or (length is not None and value.size != length):
        raise ValueError(f"{name}: expected shape [{length or 'n'}], got {list(value.shape)}")
    return value
