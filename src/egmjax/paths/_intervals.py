"""The standard normal law on intervals, safe in float32 however far from zero they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from ._jump_law import REACH, bisect

FARTHEST = 1e3  # ends are cut off here, where the logarithm of the mass beyond is -5e5


def log_interval_mass(low: jax.Array, high: jax.Array) -> jax.Array:
    """`log (Phi(high) - Phi(low))`, elementwise, `low < high`; finite, with finite gradients."""
    left, right, _ = _below_zero(low, high)
    log_left, log_right = log_ndtr(left), log_ndtr(right)
    return log_right + _log_one_minus_exp(log_left - log_right)


def interval_ppf(u: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """The normal law conditioned on `[low, high]` at its quantile `u`, elementwise, by bisection of `log Phi`."""
    left, right, flipped = _below_zero(low, high)
    u = jnp.where(flipped, 1.0 - u, u)
    log_left, log_right = log_ndtr(left), log_ndtr(right)
    level = log_right + jnp.log(u + (1.0 - u) * jnp.exp(log_left - log_right))
    # the law falls off over 1 / |right| where right is far below zero, over REACH where it is above
    start = jnp.maximum(left, jnp.minimum(right, 0.0) - REACH)
    e = bisect(lambda e: log_ndtr(e) < level, start, right)
    return jnp.where(flipped, -e, e)


def _below_zero(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The interval, or its mirror image, with its centre at or below zero, where `log Phi` keeps its digits."""
    low, high = jnp.clip(low, -FARTHEST, FARTHEST), jnp.clip(high, -FARTHEST, FARTHEST)
    flipped = low + high > 0
    return jnp.where(flipped, -high, low), jnp.where(flipped, -low, high), flipped


def _log_one_minus_exp(log_a: jax.Array) -> jax.Array:
    return jnp.log(-jnp.expm1(jnp.minimum(log_a, -1e-30)))
