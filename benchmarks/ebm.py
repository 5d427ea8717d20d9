"""Energies learned from samples of a Gaussian mixture by several losses, held against its exact marginals.

    python -m benchmarks.ebm --target two-modes --dim 2 --method diffclf --out runs/ebm

Trains one time-dependent energy on 60,000 samples and compares it with the exact noised mixture at every level. The
masses of modes are those of the model, `w_k E_{p_k}[q / p]` with exact draws of each mode `k`, never a histogram of
samples. Writes `report.json` and `metrics.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from egmjax import ebm
from egmjax.networks import InnerProduct, ResidualMLP
from egmjax.paths import GaussianPath, VarianceExploding
from egmjax.processes import FlowProcess
from egmjax.targets import GaussianMixture
from egmjax.training import (
    Objective,
    Trainer,
    data_source,
    make_trainer,
    stratified_times,
    sum_objectives,
)

from .commands import one_sentence
from .energy_runs import (
    EnergyRunOptions,
    check_energy_run,
    clipped_adam,
    prepare_energy_run,
    run_energy,
    updates_per_iteration,
)

SUMMARY = ("model_mass_tv", "model_mass_kl", "lowest_level_kl", "lowest_level_ess", "mean_ess", "fisher")


@dataclass(kw_only=True)
class EnergyOptions(EnergyRunOptions):
    """Options of the run."""

    target: Literal["two-modes", "forty-modes"] = "two-modes"
    """Two modes of weights 2/3 and 1/3 in any dimension, or forty equal ones in the plane."""
    dim: int = 2
    """Dimension; 2 for forty modes."""
    method: Literal["dsm", "tsm", "diffclf", "move-nce"] = "diffclf"
    """Score matching alone, or with time scores, classification of levels, or contrast of moves."""
    pick: Literal["random", "local", "mixed"] = "random"
    """Levels compared: any, neighbouring pairs, or half of each (diffclf only)."""
    num_picked: int = 4
    """Levels compared with each other (diffclf with random ones; else 2)."""
    max_gap: int = 4
    """How far apart neighbouring pairs may be, in levels."""
    weight: float = 1.0
    """Weight of the loss beside score matching; time scores and moves are divided by nothing else."""
    num_levels: int = 64
    """Noise levels, equally spaced in log-SNR."""
    noise_min: float = 0.01
    """Least noise, in units of the data's scale."""
    noise_max: float = 10.0
    """Largest noise, in units of the data's scale."""
    num_updates: int = 6_000
    """Gradient steps."""
    noised_batch: int = 512
    """Noised states in a gradient step; data points are as many over the number of levels compared."""
    learning_rate: float = 1e-3
    """Adam's initial rate; decays along a cosine to 0.1 percent."""
    ema_decay: float = 0.999
    """Of the averaged parameters, which are those evaluated."""
    depth: int = 3
    """Residual blocks of the network."""
    modulated: bool = True
    """Let the level scale and shift the features inside every block."""
    num_eval: int = 20_000
    """Exact samples for each mode, and at the lowest level; a fifth of them at every other."""


class Setup(NamedTuple):
    """The parts of a run; `log_q(params)` is `(x, t) -> log q(x, t)`."""

    mixture: GaussianMixture
    path: GaussianPath
    levels: np.ndarray
    trainer: Trainer
    init: Callable[[int], Any]
    log_q: Callable[[Any], ebm.LogDensityFn]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; bad input ends it with one sentence and exit code 2."""
    options = tyro.cli(EnergyOptions, args=arguments, prog="python -m benchmarks.ebm")
    with one_sentence():
        check(options)
        setup = build(options)
        prepare_energy_run(options)
    return run(options, setup)


def check(options: EnergyOptions) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    check_energy_run(options, counts=("dim", "noised_batch", "max_gap"), positive=("weight",))
    if options.target == "forty-modes" and options.dim != 2:
        raise ValueError(f"dim: forty modes are in the plane, got {options.dim}")


def build(options: EnergyOptions) -> Setup:
    """Composes the run. The path's reference has the data's mean and scale, so nothing is standardised."""
    forty = options.target == "forty-modes"
    mixture = GaussianMixture.gmm40() if forty else GaussianMixture.two_modes(options.dim)
    key_data, _, _ = jax.random.split(jax.random.key(options.seed), 3)
    data = np.asarray(mixture.sample(key_data, options.num_data))
    scale = float(np.sqrt(data.var(axis=0).mean()))
    path = GaussianPath(
        VarianceExploding(options.noise_min * scale, options.noise_max * scale * 1.001),
        mean=jnp.asarray(data.mean(axis=0)),
        scale=scale,
        shape=(options.dim,),
    )
    levels = ebm.log_snr_levels(
        path, options.num_levels, options.noise_min * scale, options.noise_max * scale
    )
    network = InnerProduct(
        ResidualMLP(
            path.space, (options.dim,), width=options.width, depth=options.depth, modulated=options.modulated
        )
    )

    def apply_network(params: Any, z: jax.Array, t: Any) -> jax.Array:
        return network.apply(params, z, t)  # type: ignore[return-value]

    psi = ebm.preconditioned_psi(path, apply_network)

    def apply_psi(params: Any, x: jax.Array, t: Any) -> jax.Array:
        return psi(params["psi"], x, t)

    objective, num_compared = make_objective(options, path, levels, apply_psi)
    trainer = make_trainer(
        data_source(data, path.space),
        objective,
        clipped_adam(options, last=1e-3),
        batch_size=max(2, options.noised_batch // num_compared),
        updates_per_iteration=updates_per_iteration(options),
        ema_decay=options.ema_decay,
        time_fn=stratified_times(lambda u: levels[0] + u * (levels[-1] - levels[0]), last_time=1.0),
    )

    def init(seed: int) -> Any:
        _, key_network, key_train = jax.random.split(jax.random.key(seed), 3)
        params = network.init(key_network, jnp.zeros(options.dim), jnp.zeros(()))
        return trainer.init(key_train, {"psi": params, "normalizers": jnp.zeros(options.num_levels)})

    def log_q(params: Any) -> ebm.LogDensityFn:
        return ebm.log_density(path, lambda x, t: apply_psi(params, x, t))

    return Setup(mixture, path, levels, trainer, init, log_q)


def make_objective(
    options: EnergyOptions, path: GaussianPath, levels: np.ndarray, apply_psi: Any
) -> tuple[Objective, int]:
    """The loss, and how many noised states it makes of a data point."""
    process = FlowProcess(path)
    matching = ebm.score_matching_objective(
        process, apply_psi, weight_fn=lambda t: jnp.full_like(t, 1 / options.dim)
    )
    if options.method == "dsm":
        return matching, 1
    if options.method == "tsm":
        both = {"score": matching, "time": ebm.time_score_objective(path, apply_psi)}
        return sum_objectives(both, {"time": options.weight}), 2
    if options.method == "move-nce":
        both = {"score": matching, "moves": ebm.move_contrastive_objective(path, apply_psi)}
        return sum_objectives(both, {"moves": options.weight}), 4
    num = options.num_levels
    picks = {
        "random": lambda: ebm.random_levels(num, options.num_picked),
        "local": lambda: ebm.local_pairs(num, options.max_gap),
        "mixed": lambda: ebm.mixed_pick((ebm.random_levels(num), ebm.local_pairs(num, options.max_gap)), 0.5),
    }
    objective = ebm.classification_objective(
        path,
        apply_psi,
        levels,
        picks[options.pick](),
        normalizers_fn=lambda params: params["normalizers"],
        matching=process,
        classification_weight=options.weight,
    )
    return objective, options.num_picked if options.pick == "random" else 2


def run(options: EnergyOptions, setup: Setup) -> dict[str, Any]:
    """Trains, evaluates, writes the folder `options.out`, prints a summary and returns the report."""

    def found(state: Any) -> dict[str, Any]:
        return evaluate(options, setup, setup.log_q(state.ema_params))

    return run_energy(
        options, setup.trainer, setup.init(options.seed), found, shown=("loss",), summary=SUMMARY
    )


def evaluate(options: EnergyOptions, setup: Setup, log_q: ebm.LogDensityFn) -> dict[str, Any]:
    """The model against the exact marginals: mode masses and KL at the lowest level, ESS and Fisher at every one."""
    mixture, path, levels = setup.mixture, setup.path, setup.levels
    key = jax.random.fold_in(jax.random.key(options.seed), 3)

    def log_ratio(x: jax.Array, t: jax.Array) -> jax.Array:
        return log_q(x, t) + ebm.noised_mixture(mixture, path, t).energy(x)

    @jax.jit
    def mode_ratios(key: jax.Array, mean: jax.Array, scale: jax.Array) -> jax.Array:
        alpha, sigma = path.coefficients(levels[-1])
        noise = jax.random.normal(key, (options.num_eval, options.dim))
        x = alpha * mean[None, :] + jnp.sqrt((alpha * scale) ** 2 + sigma**2) * noise
        return jax.vmap(log_ratio, (0, None))(x, jnp.asarray(levels[-1], dtype=float))

    num_each = max(2, options.num_eval // 5)

    @jax.jit
    def level_summary(key: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        noised = ebm.noised_mixture(mixture, path, t)
        x = noised.sample(key, num_each)
        ratio = jax.vmap(log_ratio, (0, None))(x, t)
        wrong = jax.vmap(jax.grad(log_ratio), (0, None))(x[: num_each // 4], t)
        _, sigma = path.coefficients(t)
        return ratio, sigma**2 * jnp.mean(wrong**2)

    means, scales = jnp.asarray(mixture.means), jnp.asarray(mixture.scales)
    true = mixture.component_weights
    keys = jax.random.split(key, len(true) + len(levels))
    ratios = np.stack([np.asarray(mode_ratios(*args), np.float64) for args in zip(keys, means, scales)])
    log_mass = np.log(true) + log_mean_exp(ratios)
    mass = np.exp(log_mass - log_mass.max())
    mass /= mass.sum()
    log_total = np.logaddexp.reduce(log_mass)
    at_levels = [level_summary(k, jnp.asarray(t)) for k, t in zip(keys[len(true) :], levels)]
    ess = [float(ess_fraction(np.asarray(r, np.float64))) for r, _ in at_levels]
    return {
        "model_mass_tv": 0.5 * float(np.abs(mass - true).sum()),
        "model_mass_kl": float(np.sum(true * (np.log(true) - log_mass + log_total))),
        "lowest_level_kl": float(log_total - true @ ratios.mean(axis=1)),
        "lowest_level_ess": float(
            np.exp(2 * log_total - np.logaddexp.reduce(np.log(true) + log_mean_exp(2 * ratios)))
        ),
        "mean_ess": float(np.mean(ess)),
        "least_ess": float(np.min(ess)),
        "fisher": float(np.mean([float(f) for _, f in at_levels])),
        "model_mass": mass.tolist(),
        "true_mass": true.tolist(),
        "ess": ess,
        "levels": levels.tolist(),
    }


def log_mean_exp(log_ratio: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    return np.logaddexp.reduce(log_ratio, axis=-1) - math.log(log_ratio.shape[-1])


def ess_fraction(log_ratio: np.ndarray) -> np.ndarray:
    """`(sum w)^2 / (n sum w^2)` of `w = q / p` at draws of `p`."""
    return np.exp(2 * log_mean_exp(log_ratio) - log_mean_exp(2 * log_ratio))


if __name__ == "__main__":
    main()
