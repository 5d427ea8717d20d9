"""What a model of the skewed digits is worth: the classes' masses under it, by reweighted draws of a flow.

    mass_k = sum_i W_i 1{class(x_i) = k},      W_i = p(x_i) / q(x_i), normalised,      x_i ~ q

or, with `num_annealed` Langevin moves on the way, by annealed importance sampling (Neal, 2001): moves of
`q^(1 - b) p^b` at levels `b` between 0 and 1, and `log w` the sum of `(b' - b) (log p - log q)` from each to the next.
`q` is the best law a run has to draw from (`Setup.reweighted`). Where the weights rest on a few draws (`ess`,
`largest_weight`), as they do for an energy that no flow follows, so do the masses; `mass_noise` is the total variation
that their standard errors alone would make. Nothing exact is known of the density; the classes' true masses are, and
those that the classifier finds among held-out rows of the same skew. So `lowest_level_kl` and `lowest_level_ess` are
null.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import rel_entr

from egmjax import ebm, metrics
from egmjax.proposals import Density

from .data_sets import SEED
from .energy_report import chunked, sample_figures
from .energy_runs import FROZEN, upper_log_z
from .likelihood_report import Setup
from .skewed_digits import NUM_HELD_OUT, SkewedDigits, draw_rows

GRID = 8


def evaluate_digits(
    setup: Setup,
    params: Any,
    chains: Any = None,
    *,
    num_eval: int = 50_000,
    num_annealed: int = 0,
    seed: int = 0,
    rollouts: tuple[Any, Any] | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """The report; writes the picture `report.png` and `samples.npz` to the folder `out`.

    Samples are the draws that masses rest on, or `rollouts`, other states with their log-weights to the same model;
    `sample_mass_tv` and its like are theirs.

    `model_mass_tv` is the total variation from the true masses, `model_mass_tv_held_out` from those of held-out rows,
    `held_out_mass_tv` that of the two, the classifier's own error. `proposal_mass_tv` is that of the draws before they
    are weighted, `fitted_mass_tv` that of the flow fitted to data first, `chain_mass_tv` that of the chains.
    `nll` and `nll_train` are nats an image, by `log_z`, which in the mean is too low, and so are they.
    """
    law = setup.law
    assert isinstance(law, SkewedDigits)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 4), 5)
    num_classes = len(law.masses)
    classify = chunked(law.mode_index)

    def log_density(x: jax.Array) -> jax.Array:
        return setup.log_density(params, x)

    def shares(x: Any) -> np.ndarray:
        return np.bincount(np.asarray(classify(x)), minlength=num_classes) / len(x)

    def tv(p: np.ndarray, q: np.ndarray = law.masses) -> float:
        return 0.5 * float(np.abs(p - q).sum())

    def mean_nats(log_probs: Any) -> float:
        return -float(np.mean(np.asarray(log_probs, np.float64)))

    step_size = float(jnp.exp(chains.log_step)) if num_annealed > 0 else 1.0
    draw = chunked(annealed_draw(setup.reweighted(params), log_density, num_annealed, step_size))
    start, x, log_w = draw(jax.random.split(keys[0], num_eval))
    summary: Any = metrics.summarize_weights(log_w)
    mass, stderr = (
        np.asarray(a, np.float64)
        for a in metrics.weighted_mean(jax.nn.one_hot(classify(x), num_classes), log_w)
    )
    log_densities = chunked(log_density)
    held_out, _ = draw_rows(law.held_out, NUM_HELD_OUT, SEED)
    train, _ = draw_rows(law.train, NUM_HELD_OUT, SEED)
    masses = {"true": law.masses, "held-out rows": shares(held_out), "model": mass}
    report: dict[str, Any] = {
        "model_mass_tv": tv(mass),
        "model_mass_kl": float(rel_entr(law.masses, np.maximum(mass, 1e-300)).sum()),
        "lowest_level_kl": None,
        "lowest_level_ess": None,
        "model_mass_tv_held_out": tv(mass, masses["held-out rows"]),
        "held_out_mass_tv": tv(masses["held-out rows"]),
        "mass_noise": float(0.5 * np.sqrt(2.0 / np.pi) * stderr.sum()),
        "proposal_mass_tv": tv(shares(start)),
        "ess": float(summary.ess_fraction) * num_eval,
        "ess_fraction": float(summary.ess_fraction),
        "largest_weight": float(summary.largest_weight),
        "pareto_k": float(summary.pareto_k),
        "num_nonfinite": int(summary.num_nonfinite),
        "log_z": float(summary.log_z),
        "nll": float(summary.log_z) + mean_nats(log_densities(held_out)),
        "nll_train": float(summary.log_z) + mean_nats(log_densities(train)),
        "model_mass_stderr": stderr.tolist(),
    }
    if setup.fitted is not None:
        flow, fitted = setup.fitted, params[FROZEN]
        drawn = chunked(lambda key: flow.sample(fitted, key))(jax.random.split(keys[1], num_eval))
        masses["flow fitted to data"] = shares(drawn)
        report["fitted_mass_tv"] = tv(masses["flow fitted to data"])
        report["fitted_nll"] = mean_nats(chunked(lambda y: flow.log_prob(fitted, y))(held_out))
    if chains is not None:
        masses["chains"] = shares(chains.position)
        report["chain_mass_tv"] = tv(masses["chains"])
        if setup.proposal is not None and setup.negatives is not None:
            report["log_z_upper"] = upper_log_z(keys[2], setup.negatives, chains, params)
    kept = (x, log_w) if rollouts is None else rollouts
    report |= sample_figures(law, *kept)
    if rollouts is not None:
        weight = metrics.normalized_weights(rollouts[1])
        index = np.asarray(classify(rollouts[0]))
        masses["roll-outs"] = np.bincount(index, minlength=num_classes) / len(index)
        masses["roll-outs, weighted"] = np.bincount(index, np.asarray(weight, np.float64), num_classes)
    report["masses"] = {name: values.tolist() for name, values in masses.items()}
    if out is not None:
        picked = metrics.resample(keys[3], log_w, GRID**2)
        images = {
            "model: draws resampled by weight": x[jax.random.permutation(keys[4], picked)],
            "draws before weighting": start[: GRID**2],
            "held-out rows": np.random.default_rng(SEED).permutation(held_out)[: GRID**2],
        }
        if chains is not None:
            images["chains"] = chains.position[: GRID**2]
        if rollouts is not None:
            images["roll-outs"] = rollouts[0][: GRID**2]
        np.savez(out / "samples.npz", x=np.asarray(kept[0]), log_weight=np.asarray(kept[1]))
        plot_digits(images, masses, stderr).savefig(out / "report.png")
    return report


def annealed_draw(
    density: Density, log_density: Callable[[jax.Array], jax.Array], num_annealed: int, step_size: float
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """`draw(key) -> (start, x, log_w)`: from `density`, after `num_annealed` Langevin moves, and with what weight.

    Without moves `x` is `start` and `w = p(x) / q(x)`. Cost: three or so gradients of both densities a move.
    """
    levels = np.linspace(0.0, 1.0, num_annealed + 2)
    move = ebm.langevin(step_size)

    def log_q(x: jax.Array) -> jax.Array:
        return density.log_prob(x, None, 0.0, 1.0)

    def gained(x: jax.Array, before: Any, after: Any) -> jax.Array:
        return (after - before) * (log_density(x) - log_q(x))

    def level(carry: tuple[jax.Array, jax.Array], inputs: tuple) -> tuple[tuple[jax.Array, jax.Array], None]:
        (x, log_w), (key, before, after) = carry, inputs
        log_w = log_w + gained(x, before, after)
        x, _ = move(key, x, lambda y: (1.0 - after) * log_q(y) + after * log_density(y))
        return (x, log_w), None

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        key_draw, key_moves = jax.random.split(key)
        start = density.sample(key_draw, None, 0.0, 1.0)
        between = (jnp.asarray(levels[:-2], start.dtype), jnp.asarray(levels[1:-1], start.dtype))
        keys = jax.random.split(key_moves, num_annealed)
        (x, log_w), _ = jax.lax.scan(level, (start, jnp.zeros((), start.dtype)), (keys, *between))
        return start, x, log_w + gained(x, float(levels[-2]), 1.0)

    return draw


def plot_digits(images: dict[str, Any], masses: dict[str, np.ndarray], stderr: np.ndarray) -> Any:
    """Images by kind, `[GRID^2, 64]` each, above the classes' masses by kind; `stderr` belongs to the model's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    axes = figure.subplot_mosaic([[str(i) for i in range(len(images))], ["bars"] * len(images)])
    for i, (name, x) in enumerate(images.items()):
        axes[str(i)].imshow(_tiled(np.asarray(x)), cmap="gray", vmin=-1.1, vmax=1.1, interpolation="nearest")
        axes[str(i)].set(title=name, xticks=[], yticks=[])
    place, width = np.arange(len(stderr)), 0.8 / len(masses)
    for i, (name, mass) in enumerate(masses.items()):
        error: dict[str, Any] = {"yerr": stderr, "capsize": 2} if name == "model" else {}
        axes["bars"].bar(place + (i - (len(masses) - 1) / 2) * width, mass, width, label=name, **error)
    axes["bars"].set(xticks=place, xlabel="class", ylabel="mass")
    axes["bars"].legend(frameon=False)
    return figure


def _tiled(x: np.ndarray) -> np.ndarray:
    """Rows `[n, 64]` as pictures side by side with gaps of nan."""
    tiles = np.full((GRID, GRID, 9, 9), np.nan)
    flat = tiles.reshape(-1, 9, 9)
    flat[: len(x), :8, :8] = x.reshape(-1, 8, 8)
    return flat.reshape(GRID, GRID, 9, 9).transpose(0, 2, 1, 3).reshape(9 * GRID, 9 * GRID)
