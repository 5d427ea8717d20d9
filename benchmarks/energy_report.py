"""What every energy learned from data leaves beside its figures: weighted draws, and a picture of them.

`samples.npz` holds states `x` of a sampler whose density, or whose path's, is known, and `log_weight` to the model:
`mean(exp(log_weight))` is unbiased for its Z. Where the model has left its sampler behind, as an energy of chains that
do not mix has, the weights rest on few draws, and `sample_ess` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from egmjax import metrics
from egmjax.targets import MixtureTarget

from .laws import true_masses

CHUNK = 2048  # states at a time
POINTS = 3_000  # in a panel
PIXELS = 240
DEEPEST = 20.0  # nats below the highest density of the data that have a colour
MODEL, TRUTH, FAINT = "#1b4f9c", "#b8c4ce", "#d95f02"


def chunked(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`fn` of one state or key, for many, compiled."""
    return jax.jit(lambda xs: jax.lax.map(fn, xs, batch_size=CHUNK))


def sample_figures(law: Any, x: Any, log_weight: Any) -> dict[str, Any]:
    """What weighted draws say of the model: ESS, log Z, and the total variation of its masses from the true ones.

    `sample_mass_tv` is that of the weighted draws, `sample_mass_tv_raw` that of the draws as they are.
    """
    true = true_masses(law)
    summary: Any = metrics.summarize_weights(log_weight)
    weight = np.asarray(metrics.normalized_weights(log_weight), np.float64)
    index = np.asarray(chunked(law.mode_index)(jnp.asarray(x)))
    raw = np.bincount(index, minlength=len(true)) / len(index)
    is_lost = not weight.sum() > 0  # no log-weight is finite
    weighted = np.full(len(true), np.nan) if is_lost else np.bincount(index, weight, len(true)) / weight.sum()
    return {
        "sample_ess": float(summary.ess_fraction),
        "sample_log_z": float(summary.log_z),
        "sample_pareto_k": float(summary.pareto_k),
        "sample_largest_weight": float(summary.largest_weight),
        "sample_num_nonfinite": int(summary.num_nonfinite),
        "sample_mass_tv": 0.5 * float(np.abs(weighted - true).sum()),
        "sample_mass_tv_raw": 0.5 * float(np.abs(raw - true).sum()),
    }


def write_model(
    out: Path,
    title: str,
    law: MixtureTarget,
    truth: MixtureTarget,
    data: np.ndarray,
    x: Any,
    log_weight: Any,
    log_density: Callable[[jax.Array], jax.Array],
    report: dict[str, Any],
) -> dict[str, Any]:
    """Writes `samples.npz` and `report.png` to `out`; the `sample_figures`.

    `truth` is the law that the model's `log_density` should have: `law`, or it with the noise of the lowest level.
    """
    x, log_weight = np.asarray(x), np.asarray(log_weight)
    np.savez(out / "samples.npz", x=x, log_weight=log_weight)
    figures = sample_figures(law, x, log_weight)
    densities = None
    if x.shape[1] == 2:
        densities = {"model": log_density, "data": lambda y: -truth.energy(y)}
    plot_model(title, data, x, log_weight, {**report, **figures}, densities).savefig(out / "report.png")
    return figures


def plot_model(
    title: str,
    data: np.ndarray,
    x: np.ndarray,
    log_weight: np.ndarray,
    report: dict[str, Any],
    densities: dict[str, Callable[[jax.Array], jax.Array]] | None,
) -> Any:
    """Data, draws of the model, masses, and ESS of levels or log-weights; in the plane both log-densities too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9), dpi=90, layout="constrained")
    figure.suptitle(title)
    names: list[Any] = [["data", "draws", "masses"], ["true", "model", "rest"]]
    axes = figure.subplot_mosaic(names if densities else names[:1] + [["rest"] * 3])
    data, x = _plane(data), _plane(x)
    low, high = data.min(axis=0), data.max(axis=0)
    pad = 0.08 * np.maximum(high - low, 1e-6)
    box: dict[str, Any] = {
        "xlim": (low[0] - pad[0], high[0] + pad[0]),
        "ylim": (low[1] - pad[1], high[1] + pad[1]),
    }
    picked = np.asarray(metrics.resample(jax.random.key(0), jnp.asarray(log_weight), POINTS))
    _points(axes["data"], data[:POINTS], "0.35", "data")
    _points(axes["draws"], x[:POINTS], FAINT, "as drawn", alpha=0.35)
    _points(axes["draws"], x[picked[picked < len(x)]], MODEL, "resampled by weight")
    axes["data"].set(title="data", **box)
    axes["draws"].set(title=f"draws of the model, ESS fraction {report['sample_ess']:.3g}", **box)
    axes["draws"].legend(frameon=False, markerscale=4, loc="upper right")
    place = np.arange(len(report["true_mass"]))
    axes["masses"].bar(place - 0.2, report["true_mass"], 0.4, color=TRUTH, label="true")
    axes["masses"].bar(place + 0.2, report["model_mass"], 0.4, color=MODEL, label="model")
    axes["masses"].set(
        xlabel="mode",
        title=f"masses of modes, total variation {report['model_mass_tv']:.3g}",
        xticks=place[:: -(-len(place) // 20)],
    )
    axes["masses"].legend(frameon=False)
    if "levels" in report:
        axes["rest"].plot(report["noise"], report["ess"], ".-", color=MODEL)
        axes["rest"].set(xscale="log", ylim=(0, 1.04), xlabel="noise of the level", title="ESS of levels")
    else:
        finite = log_weight[np.isfinite(log_weight)] - report["sample_log_z"]
        if finite.size:
            axes["rest"].hist(np.maximum(finite, np.quantile(finite, 0.002)), 60, color=MODEL)
        axes["rest"].set(title="log-weights of the draws less log Z", xlabel="nats", yticks=[])
    if densities:
        _densities(axes, densities, box)
    return figure


def _plane(x: np.ndarray) -> np.ndarray:
    """The first two coordinates; beside a single one a random height, so that points can be seen."""
    height = np.random.default_rng(0).uniform(-1.0, 1.0, (len(x), 1))
    return x[:, :2] if x.shape[1] > 1 else np.concatenate([x, height], axis=1)


def _points(axis: Any, x: np.ndarray, color: str, label: str, **style: Any) -> None:
    axis.scatter(*x.T, s=3, lw=0, color=color, label=label, rasterized=True, **style)


def _densities(axes: dict[str, Any], densities: dict[str, Any], box: dict[str, Any]) -> None:
    """Both log-densities, normalised on the box, on one scale of colours."""
    x, y = (np.linspace(float(low), float(high), PIXELS) for low, high in (box["xlim"], box["ylim"]))
    grid = jnp.asarray(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), dtype=float)
    cell = np.log((x[1] - x[0]) * (y[1] - y[0]))
    values = {name: np.asarray(chunked(fn)(grid), np.float64) for name, fn in densities.items()}
    values = {name: v - np.logaddexp.reduce(v) - cell for name, v in values.items()}
    top = float(values["data"].max())
    for panel, name in (("true", "data"), ("model", "model")):
        image = axes[panel].imshow(
            values[name].reshape(PIXELS, PIXELS),
            origin="lower",
            extent=(*box["xlim"], *box["ylim"]),
            vmin=top - DEEPEST,
            vmax=top,
            aspect="auto",
        )
        axes[panel].set_title(f"log-density of the {name}")
        axes[panel].figure.colorbar(image, ax=axes[panel], extend="both", shrink=0.9)
