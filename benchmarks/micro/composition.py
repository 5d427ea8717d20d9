"""What resampling between noise levels is worth, with exact energies: products of densities, and a damaged energy.

    python -m benchmarks.micro.composition [--num-particles 32768] [--num-seeds 5]

Product: two Gaussian mixtures in the plane, followed along the product of their noised marginals, with the steps of the
path itself ("full") and of the narrower path that the product needs ("matched", `ebm.product_path`), and from the
scores alone ("scores", `ebm.FeynmanKacProduct`). Damage: two modes in 16 dimensions, of which the first is too heavy
by `offset` nats at every level but the last, where the energy is exact. "raw" ignores the weights, AIS has them and
never resamples, SMC resamples below an ESS of a half (damage: .3). Masses of modes are mean responsibilities; the
error of log Z is its mean absolute value. All is the mean of the seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.special import logsumexp

from egmjax import ebm, metrics
from egmjax.paths import GaussianPath, VarianceExploding
from egmjax.paths._base import Scalar
from egmjax.processes import DiffusionProcess
from egmjax.simulators import Particles, smc_sampler
from egmjax.targets import GaussianMixture


@dataclass(kw_only=True)
class CompositionOptions:
    """Options of the measurement."""

    num_particles: int = 32_768
    """Particles of the products."""
    num_damaged: int = 8_192
    """Particles under the damaged energy."""
    num_seeds: int = 5
    """Runs for each line."""
    num_levels: tuple[int, ...] = (64, 256)
    """Noise levels."""
    dim: int = 16
    """Dimension of the damaged energy."""


Steps = Literal["full", "matched", "scores"]


class Row(NamedTuple):
    """Means over seeds: total variation of mode masses, and ESS and error of log Z where there are weights."""

    raw: float
    ais: float
    ais_ess: float
    ais_log_z: float
    smc: float
    smc_ess: float
    smc_log_z: float


HEADER = f"{'raw':>8}{'AIS':>9}{'ESS':>7}{'log Z':>8}{'SMC':>9}{'ESS':>7}{'log Z':>8}"


def main() -> None:
    """Prints both tables."""
    options = tyro.cli(CompositionOptions, prog="python -m benchmarks.micro.composition")
    print(f"product of two mixtures, {options.num_particles} particles; total variation of mode masses")
    print(f"{'levels':>7}  {'steps':<9}{HEADER}")
    for num_levels in options.num_levels:
        for steps in get_args(Steps):
            row = product_errors(steps, num_levels, options.num_particles, options.num_seeds)
            print(f"{num_levels:>7}  {steps:<9}{_format(row)}", flush=True)
    print(f"\ndamaged energy, d = {options.dim}, {options.num_damaged} particles")
    print(f"{'levels':>7}  {'offset':<9}{HEADER}")
    for num_levels in options.num_levels:
        for offset in (0.0, 1.0, 3.0, 8.0):
            row = damage_errors(offset, options.dim, num_levels, options.num_damaged, options.num_seeds)
            print(f"{num_levels:>7}  {offset:<9}{_format(row)}", flush=True)


# ---------------------------------------------------------------------------------------------- products


def product_errors(steps: Steps, num_levels: int, num_particles: int, num_seeds: int) -> Row:
    """One line of the first table."""
    pair = (
        mixture([0.3, 0.3, 0.4], [[-2.0, 0.0], [1.0, 1.5], [1.0, -1.5]], 0.15),
        mixture([0.7, 0.3], [[-1.7, 0.2], [1.6, -1.0]], 0.25),
    )
    path = GaussianPath(VarianceExploding(0.02, 10.0), scale=1.0, shape=(2,))
    times = _times(ebm.log_snr_levels(path, num_levels - 1, 0.02, 9.0))
    densities = [ebm.log_density(path, ebm.mixture_psi(m, path)) for m in pair]
    target = product_mixture(*pair)

    def sampler(threshold: float) -> Callable[[jax.Array], Particles]:
        if steps == "scores":
            product = ebm.FeynmanKacProduct(path, (1.0, 1.0))
            smc = smc_sampler(product, times, num_particles=num_particles, threshold=threshold)

            def scores(x: Any, t: Scalar) -> jax.Array:
                return jnp.stack([jax.grad(fn)(x, t) for fn in densities])

            def corrected(key: jax.Array) -> Particles:
                found = smc.sample(key, scores, lambda x, t: jnp.zeros(()))
                return found._replace(log_weight=found.log_weight + product.log_z_start)

            return corrected
        onto = ebm.product_path(path, (1.0, 1.0)) if steps == "matched" else path
        psi = ebm.relative_to(onto, ebm.product_density(densities, (1.0, 1.0)))
        process = DiffusionProcess(onto)
        smc = smc_sampler(process, times, num_particles=num_particles, threshold=threshold)
        return lambda key: smc.sample(key, ebm.predict_from_psi(process, psi), psi)

    return _errors(sampler, target, 0.5, num_seeds)


def mixture(weights: list[float], means: list[list[float]], variance: float) -> GaussianMixture:
    """Normalised, of equal variances."""
    dim = len(means[0])
    log_weights = np.log(weights) - 0.5 * dim * np.log(2 * np.pi * variance)
    return GaussianMixture(np.asarray(means), np.full(len(weights), math.sqrt(variance)), log_weights)


def product_mixture(a: GaussianMixture, b: GaussianMixture) -> GaussianMixture:
    """The product of two mixtures of isotropic Gaussians, a mixture of as many as there are pairs."""
    means, scales, log_weights = [], [], []
    for mean_a, scale_a, log_a in zip(a.means, a.scales, a.log_weights):
        for mean_b, scale_b, log_b in zip(b.means, b.scales, b.log_weights):
            precision = scale_a**-2 + scale_b**-2
            means.append((mean_a / scale_a**2 + mean_b / scale_b**2) / precision)
            scales.append(precision**-0.5)
            gap = np.sum(np.square(mean_a - mean_b))
            log_weights.append(log_a + log_b - gap / (2 * (scale_a**2 + scale_b**2)))
    return GaussianMixture(np.array(means), np.array(scales), np.array(log_weights))


# ------------------------------------------------------------------------------------------------ damage


def damage_errors(offset: float, dim: int, num_levels: int, num_particles: int, num_seeds: int) -> Row:
    """One line of the second table."""
    target = GaussianMixture.two_modes(dim, separation=2.0)
    largest = 12.0 * math.sqrt(max(1.0, dim / 8))
    path = GaussianPath(VarianceExploding(0.02, 1.001 * largest), scale=1.0, shape=(dim,))
    exact = ebm.mixture_psi(target, path)

    def damaged(x: Any, t: Scalar) -> jax.Array:
        _, sigma = path.coefficients(t)
        rise = jax.nn.sigmoid(8.0 * (0.5 * math.log(dim) - jnp.log(sigma) - 0.5))
        tilted = jnp.asarray(target.log_weights) + jnp.stack([offset * rise, jnp.zeros(())])
        # the total mass stays: what is wrong is where it is
        tilted += jax.nn.logsumexp(jnp.asarray(target.log_weights)) - jax.nn.logsumexp(tilted)
        return ebm.mixture_psi(dataclasses.replace(target, log_weights=tilted), path)(x, t)

    score_psi = exact if offset == 0 else damaged
    psi = ebm.with_energy(path, score_psi, target.energy)
    times = _times(ebm.log_snr_levels(path, num_levels - 1, 0.02, largest))
    process = DiffusionProcess(path)

    def sampler(threshold: float) -> Callable[[jax.Array], Particles]:
        smc = smc_sampler(process, times, num_particles=num_particles, threshold=threshold)
        return lambda key: smc.sample(key, ebm.predict_from_psi(process, score_psi), psi)

    return _errors(sampler, target, 0.3, num_seeds)


def _times(levels: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], levels, [1.0]])


def _errors(
    sampler: Callable[[float], Callable[[jax.Array], Particles]],
    target: GaussianMixture,
    threshold: float,
    num_seeds: int,
) -> Row:
    """AIS and SMC of `sampler(threshold)(key)` against the mixture that they should sample."""
    component_log_mass = np.asarray(target.log_weights) + 0.5 * np.shape(target.means)[1] * np.log(
        2 * np.pi * np.square(target.scales)
    )
    log_z = logsumexp(component_log_mass)
    true = np.exp(component_log_mass - log_z)

    @jax.jit
    @jax.vmap
    def responsibilities(x: jax.Array) -> jax.Array:
        gaps = jnp.sum(jnp.square(x[None] - jnp.asarray(target.means)), axis=-1)
        return jax.nn.softmax(jnp.asarray(target.log_weights) - 0.5 * gaps / jnp.square(target.scales))

    def masses_error(x: jax.Array, log_weight: jax.Array) -> float:
        weights = np.asarray(metrics.normalized_weights(log_weight), np.float64)
        return 0.5 * float(np.abs(weights @ np.asarray(responsibilities(x)) - true).sum())

    runs = {"ais": jax.jit(sampler(0.0)), "smc": jax.jit(sampler(threshold))}
    rows = []
    for seed in range(num_seeds):
        row: list[float] = []
        for name, run in runs.items():
            found = run(jax.random.key(seed))
            summary = metrics.summarize_weights(found.log_weight)
            if name == "ais":
                row.append(masses_error(found.x, jnp.zeros_like(found.log_weight)))
            row += [
                masses_error(found.x, found.log_weight),
                float(summary.ess_fraction),
                abs(float(summary.log_z) - log_z),
            ]
        rows.append(row)
    return Row(*np.mean(rows, axis=0).tolist())


def _format(row: Row) -> str:
    return (
        f"{row.raw:>8.4f}{row.ais:>9.4f}{row.ais_ess:>7.3f}{row.ais_log_z:>8.4f}"
        f"{row.smc:>9.4f}{row.smc_ess:>7.3f}{row.smc_log_z:>8.4f}"
    )


if __name__ == "__main__":
    main()
