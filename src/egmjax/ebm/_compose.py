"""Energies put together: products, tempering and negation as one, and mixtures.

    product   log pi_t = sum_m beta_m log q_m(x, t)              beta = 2: tempered; beta < 0: avoided
    mixture   log pi_t = log sum_m w_m q_m(x, t) / Z_m(t)        needs normalised densities

The product of noised densities is not the noised product: `pi_t` is an annealing path and nothing more, so
samples need its weights, which `simulators.smc_sampler` keeps. Its steps have to match it: `B = sum_m beta_m`
Gaussians of variance `V` multiplied have variance `V / B`, so the product is followed on a path with `1 /
sqrt(B)` of the noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ..paths import GaussianPath
from ..paths._base import Scalar
from ..paths._schedules import GaussianSchedule
from ._energies import LogDensityFn


@frozen_pytree
class ScaledNoise(GaussianSchedule):
    """`alpha` of `schedule` and `factor` times its `sigma`."""

    schedule: GaussianSchedule
    factor: float | jax.Array = 1.0

    def alpha(self, t: jax.Array) -> jax.Array:
        return self.schedule.alpha(t)

    def sigma(self, t: jax.Array) -> jax.Array:
        return jnp.asarray(self.factor) * self.schedule.sigma(t)


def product_path(path: GaussianPath, powers: Sequence[float]) -> GaussianPath:
    """The path that a product of densities along `path` is followed on: noise and reference scale over
    `sqrt(B)`.

    Exact where the noise is large, and the step of each length then is that of the product. Raises
    `ValueError` unless the powers add up to a positive number `B`.
    """
    total = math.fsum(powers)
    if not 0 < total < math.inf:
        raise ValueError(f"powers: their sum must be positive and finite, got {list(powers)}")
    factor = 1.0 / math.sqrt(total)
    return dataclasses.replace(
        path, schedule=ScaledNoise(path.schedule, factor), scale=factor * jnp.asarray(path.scale, dtype=float)
    )


def product_density(log_density_fns: Sequence[LogDensityFn], powers: Sequence[float]) -> LogDensityFn:
    """`sum_m beta_m log q_m(x, t)`. Raises `ValueError` unless there is a power for each density."""
    _check(log_density_fns, powers, "powers")

    def log_density(x: jax.Array, t: Scalar) -> jax.Array:
        return sum((b * fn(x, t) for b, fn in zip(powers, log_density_fns)), start=jnp.zeros(()))

    return log_density


def mixture_density(
    log_density_fns: Sequence[LogDensityFn],
    weights: Sequence[float],
    normalizer_fns: Sequence[Callable[[Scalar], jax.Array]] | None = None,
) -> LogDensityFn:
    """`log sum_m w_m exp(log q_m(x, t) - F_m(t))`, with `F_m` zero unless given (see
    `interpolated_normalizers`).

    Raises `ValueError` unless there is a positive weight for each density, and a normaliser where any is
    given.
    """
    _check(log_density_fns, weights, "weights")
    if not all(w > 0 for w in weights):
        raise ValueError(f"weights: must be positive, got {list(weights)}")
    if normalizer_fns is not None:
        _check(log_density_fns, normalizer_fns, "normalizer_fns")

    def log_density(x: jax.Array, t: Scalar) -> jax.Array:
        terms = [fn(x, t) + math.log(w) for w, fn in zip(weights, log_density_fns)]
        if normalizer_fns is not None:
            terms = [term - f(t) for term, f in zip(terms, normalizer_fns)]
        return jax.nn.logsumexp(jnp.stack(terms))

    return log_density


def interpolated_normalizers(levels: jax.Array, normalizers: jax.Array) -> Callable[[Scalar], jax.Array]:
    """`F(t)` between the levels at which it was learned, linear in `t`; constant outside."""
    return lambda t: jnp.interp(
        jnp.asarray(t, dtype=float), jnp.asarray(levels, dtype=float), jnp.asarray(normalizers)
    )


def _check(fns: Sequence, numbers: Sequence, name: str) -> None:
    if len(fns) != len(numbers) or not fns:
        raise ValueError(f"{name}: expected one for each of the {len(fns)} densities, got {len(numbers)}")
