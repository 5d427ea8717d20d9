"""Schedules: how fast a path moves from prior (`t=0`) to data (`t=1`).

    Gaussian:  x_t = alpha(t) x_1 + sigma(t) eps          alpha(1) = 1, sigma(1) = 0
    mixture:   x_t[i] = x_1[i] with probability kappa_i(t), else a prior symbol
               kappa(0) = 0, kappa(1) = 1

Derivatives come from `jvp` of the schedule itself, so a new schedule is its values and nothing else.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree, static


def derivative(fn: Any, t: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """`(fn(t), d fn / dt)` of a schedule at a scalar time, by forward differentiation."""
    t = jnp.asarray(t, dtype=float)
    return jax.jvp(fn, (t,), (jnp.ones_like(t),))


@frozen_pytree
class GaussianSchedule:
    """`alpha(t)` and `sigma(t)`, scalars; `sigma / alpha` must not increase with `t` (Markov noising)."""

    def alpha(self, t: jax.Array) -> jax.Array:
        raise NotImplementedError

    def sigma(self, t: jax.Array) -> jax.Array:
        raise NotImplementedError


@frozen_pytree
class CondOT(GaussianSchedule):
    """`alpha = t`, `sigma = scale (1 - t)`: straight lines (conditional optimal transport)."""

    scale: float | jax.Array = 1.0

    def alpha(self, t: jax.Array) -> jax.Array:
        return 1.0 * t

    def sigma(self, t: jax.Array) -> jax.Array:
        return jnp.asarray(self.scale) * (1.0 - t)


@frozen_pytree
class Trigonometric(GaussianSchedule):
    """`alpha = cos(phi)`, `sigma = scale sin(phi)`, `phi = (pi / 2) (1 - t)^power`: keeps a variance of `scale^2`.

    `power = 1` turns at a constant rate. A larger one spends more of the time near the data: with modes of width
    `w` about `2 w / (pi scale)` of the turn is where they come apart, and that share to the power of `1 / power` of
    the time.
    """

    scale: float | jax.Array = 1.0
    power: float | jax.Array = 1.0

    def alpha(self, t: jax.Array) -> jax.Array:
        # sin of the turn already made: exactly zero at t=0, where cos(pi/2) in float32 is not
        return jnp.sin(0.5 * jnp.pi * (1.0 - self._left(t)))

    def sigma(self, t: jax.Array) -> jax.Array:
        return jnp.asarray(self.scale) * jnp.sin(0.5 * jnp.pi * self._left(t))

    def _left(self, t: jax.Array) -> jax.Array:
        """The share of the turn that is left, `(1 - t)^power`."""
        if isinstance(self.power, (int, float)) and self.power == 1:
            return 1.0 - t
        rest = 1.0 - t
        inside = rest > 0
        return jnp.where(inside, jnp.where(inside, rest, 1.0) ** self.power, 0.0)


@frozen_pytree
class VariancePreserving(GaussianSchedule):
    """`alpha = e^{-T/2}`, `sigma = scale sqrt(1 - e^{-T})`, `T = (1-t)^2 (b-a)/2 + (1-t) a`,
    with `a, b = beta_min, beta_max`.

    `alpha(0) = e^{-(a+b)/4}` is small but not zero; the prior's mismatch is corrected by the weights.
    """

    scale: float | jax.Array = 1.0
    beta_min: float | jax.Array = 0.1
    beta_max: float | jax.Array = 20.0

    def _exponent(self, t: jax.Array) -> jax.Array:
        u = 1.0 - t
        return 0.5 * u**2 * (self.beta_max - self.beta_min) + u * self.beta_min

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.exp(-0.5 * self._exponent(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        return jnp.asarray(self.scale) * _safe_sqrt(-jnp.expm1(-self._exponent(t)))


@frozen_pytree
class VarianceExploding(GaussianSchedule):
    """`alpha = 1`, `sigma^2 = sigma_min^2 ((sigma_max / sigma_min)^{2(1-t)} - 1)`.

    Energy-based generator matching's continuous path. The prior is the reference's marginal at `t=0`.
    """

    sigma_min: float | jax.Array = 0.01
    sigma_max: float | jax.Array = 20.0

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.ones_like(t)

    def sigma(self, t: jax.Array) -> jax.Array:
        log_ratio = jnp.log(self.sigma_max / jnp.asarray(self.sigma_min))
        return jnp.asarray(self.sigma_min) * _safe_sqrt(jnp.expm1(2.0 * (1.0 - t) * log_ratio))


@frozen_pytree
class MixtureSchedule:
    """`kappa(t)`: a scalar, or `[sites]` where sites keep different clocks; `inverse(u)` solves `kappa(t) = u`."""

    def kappa(self, t: jax.Array) -> jax.Array:
        raise NotImplementedError

    def inverse(self, u: jax.Array) -> jax.Array:
        """The time `[sites]` at which `kappa_i` reaches `u[i]`, `0 <= u < 1`."""
        raise NotImplementedError


@frozen_pytree
class Linear(MixtureSchedule):
    """`kappa = t`."""

    def kappa(self, t: jax.Array) -> jax.Array:
        return 1.0 * t

    def inverse(self, u: jax.Array) -> jax.Array:
        return u


@frozen_pytree
class Polynomial(MixtureSchedule):
    """`kappa = t^power`."""

    power: float | jax.Array = 2.0

    def kappa(self, t: jax.Array) -> jax.Array:
        return t**self.power

    def inverse(self, u: jax.Array) -> jax.Array:
        return u ** (1.0 / self.power)


@frozen_pytree
class Cosine(MixtureSchedule):
    """`kappa = 1 - cos(pi t / 2)`: slow at first."""

    def kappa(self, t: jax.Array) -> jax.Array:
        # two forms of one function: exact near 0, and exactly 1 at the end
        early, late = 2.0 * jnp.sin(0.25 * jnp.pi * t) ** 2, 1.0 - jnp.sin(0.5 * jnp.pi * (1.0 - t))
        return jnp.where(t < 0.5, early, late)

    def inverse(self, u: jax.Array) -> jax.Array:
        return jnp.arcsin(jnp.sqrt(0.5 * u)) * (4.0 / jnp.pi)


@frozen_pytree
class Ordered(MixtureSchedule):
    """A step schedule for each site: `kappa_i(t) = clip(t num_ranks - rank_i, 0, 1)`.

    Sites of rank `k` are generated between `t = k / num_ranks` and `(k+1) / num_ranks`, after all of lower
    rank, so the order of generation is fixed (raster, coarse-to-fine, checkerboard, coloured blocks). With
    one site a rank the likelihood is that of an autoregressive model; sites of one rank come in random order.
    """

    rank: jax.Array
    num_ranks: int = static(default=1)

    @classmethod
    def from_rank(cls, rank: Any) -> Ordered:
        """Builds the schedule from integer ranks `[sites]`; raises `ValueError` unless they fill `0..max`."""
        ranks = np.asarray(rank)
        if ranks.ndim != 1 or ranks.size == 0 or not np.issubdtype(ranks.dtype, np.integer):
            raise ValueError(f"rank: expected a vector of integers, got {ranks.dtype}{list(ranks.shape)}")
        if not np.array_equal(np.unique(ranks), np.arange(ranks.max() + 1)):
            raise ValueError("rank: every rank from 0 to the largest must occur")
        return cls(rank=jnp.asarray(ranks, dtype=jnp.int32), num_ranks=int(ranks.max()) + 1)

    def kappa(self, t: jax.Array) -> jax.Array:
        u = t * self.num_ranks - self.rank
        # nested where and not clip: at a corner the derivative must be the one to the right
        return jnp.where(u < 0, 0.0, jnp.where(u < 1, u, 1.0))

    def inverse(self, u: jax.Array) -> jax.Array:
        return (self.rank + u) / self.num_ranks


def _safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root with derivative zero, not infinity, at zero."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
