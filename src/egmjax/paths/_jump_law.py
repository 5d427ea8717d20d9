"""Closed forms of the jump process that follows `N(alpha_t x_1, sigma_t^2)`, one coordinate at a time.

With `e = (x - alpha x_1) / sigma`, `r = alpha' x_1 / |sigma'|`, and `sigma` decreasing,

    d/dt log p_t(x | x_1) = (|sigma'| / sigma) (1 + r e - e^2)
    forward     rate (|sigma'| / sigma) [e^2 - r e - 1]_+,    lands at e with density [1 + r e - e^2]_+ phi(e) / Z(r)
    backward    rate (|sigma'| / sigma) [1 + r e - e^2]_+,    lands at e with density [e^2 - r e - 1]_+ phi(e) / Z(r)

(Holderrieth et al., Generator Matching, eq. 13 for condot). The roots `low < 0 < high` of `1 + r e - e^2` bound where
forward jumps land; everything else follows from `d/de (e - r) phi(e) = (1 + r e - e^2) phi(e)`. All functions are
elementwise and broadcast; distribution functions are inverted by bisection with a fixed number of halvings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from ._base import Scalar, as_time
from ._gaussian import GaussianPath
from ._schedules import derivative

REACH = 13.0  # standard deviations beyond which a normal density is zero, in float64 too
LARGEST_PULL = 1e6  # |r| is cut off here: at t=0 some schedules have sigma' = 0
Survival = Literal["bernoulli", "exp", "corrected"]


class JumpCoordinates(NamedTuple):
    """`e`, `r` and the speed `|sigma'| / sigma`, elementwise; see the module docstring."""

    e: jax.Array
    r: jax.Array
    speed: jax.Array


def jump_coordinates(path: GaussianPath, xt: jax.Array, x1: jax.Array, t: Scalar) -> JumpCoordinates:
    """Of `xt` given `x1` (broadcast against each other) at `t < 1`, where `sigma` decreases."""
    t = as_time(t)
    alpha, alpha_dot = derivative(path.schedule.alpha, t)
    sigma, sigma_dot = derivative(path.schedule.sigma, t)
    pull = alpha_dot * x1
    slope = jnp.maximum(-sigma_dot, jnp.maximum(jnp.abs(pull) / LARGEST_PULL, jnp.finfo(pull.dtype).tiny))
    e = (xt - alpha * x1) / sigma
    return JumpCoordinates(e, pull / slope, slope / sigma)


def landing_roots(r: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`low, high = (r -+ sqrt(r^2 + 4)) / 2`, the smaller of the two as `-1 / larger`, without cancellation."""
    far = 0.5 * (jnp.abs(r) + jnp.sqrt(r * r + 4.0))
    return jnp.where(r > 0, -1.0 / far, -far), jnp.where(r > 0, far, 1.0 / far)


def landing_normalizer(r: jax.Array) -> jax.Array:
    """`Z(r) = high phi(low) - low phi(high)`: the mean of `[1 + r e - e^2]_+`, and of `[e^2 - r e - 1]_+`."""
    low, high = landing_roots(r)
    return high * _normal_pdf(low) - low * _normal_pdf(high)


def jump_rate(e: jax.Array, r: jax.Array) -> jax.Array:
    """`[e^2 - r e - 1]_+`; times `speed` it is the rate of leaving, with mean `Z(r) speed`."""
    return jnp.maximum(e * e - r * e - 1.0, 0.0)


def backward_jump_rate(e: jax.Array, r: jax.Array) -> jax.Array:
    """`[1 + r e - e^2]_+`; times `speed` it is the rate of leaving backwards in time."""
    return jnp.maximum(1.0 + r * e - e * e, 0.0)


def landing_density(e: jax.Array, r: jax.Array) -> jax.Array:
    """Density of where a forward jump lands, in units of `e`."""
    return backward_jump_rate(e, r) * _normal_pdf(e) / landing_normalizer(r)


def landing_cdf(e: jax.Array, r: jax.Array) -> jax.Array:
    """`((e - r) phi(e) + high phi(low)) / Z` between the roots; `e` may be infinite."""
    low, high = landing_roots(r)
    inside = jnp.clip(e, low, high)
    total = landing_normalizer(r)
    return jnp.clip(((inside - r) * _normal_pdf(inside) + high * _normal_pdf(low)) / total, 0.0, 1.0)


def landing_ppf(u: jax.Array, r: jax.Array) -> jax.Array:
    """The inverse of `landing_cdf`."""
    low, high = landing_roots(r)
    low, high = jnp.maximum(low, -REACH), jnp.minimum(high, REACH)
    return bisect(lambda e: landing_cdf(e, r) < u, low, high)


def landing_masses(edges: jax.Array, r: jax.Array) -> jax.Array:
    """`F(edges[1:]) - F(edges[:-1])` along the last axis; with infinite outer edges they sum to one."""
    return jnp.diff(landing_cdf(edges, r), axis=-1)


def backward_landing_density(e: jax.Array, r: jax.Array) -> jax.Array:
    """Density of where a backward jump lands: two tails."""
    return jump_rate(e, r) * _normal_pdf(e) / landing_normalizer(r)


def backward_landing_cdf(e: jax.Array, r: jax.Array) -> jax.Array:
    """`(r - e) phi(e) / Z` left of the roots, `1 + (r - e) phi(e) / Z` right of them, constant in between."""
    low, high = landing_roots(r)
    total = landing_normalizer(r)
    left, right = jnp.minimum(e, low), jnp.maximum(e, high)
    below = (r - left) * _normal_pdf(left) / total
    above = 1.0 + (r - right) * _normal_pdf(right) / total
    return jnp.where(e < high, below, above)


def backward_landing_ppf(u: jax.Array, r: jax.Array) -> jax.Array:
    """The inverse of `backward_landing_cdf`; each tail is searched on its own, the right one from its end."""
    low, high = landing_roots(r)
    total = landing_normalizer(r)
    from_left = bisect(lambda e: (r - e) * _normal_pdf(e) < u * total, low - REACH, low)
    from_right = bisect(lambda e: (e - r) * _normal_pdf(e) > (1.0 - u) * total, high, high + REACH)
    return jnp.where(u * total < high * _normal_pdf(low), from_left, from_right)


def survival(rate: jax.Array, path: GaussianPath, t: Scalar, s: Scalar, rule: Survival) -> jax.Array:
    """Probability of no jump in `(t, s]` for a rate in units of `|sigma'| / sigma`, frozen at its value at `t`.

    `"bernoulli"`: `1 - h speed rate` (Euler); `"exp"`: `exp(-h speed rate)`; `"corrected"`: the rate stays and
    `sigma` moves, `exp(-rate ((sigma_t / sigma_s)^2 - 1) / 2)`, zero at `s=1` (Generator Matching, eq. 349-356, for
    any schedule). Raises `ValueError` for another rule.
    """
    if rule not in get_args(Survival):
        raise ValueError(f"rule: expected one of {get_args(Survival)}, got {rule!r}")
    t, s = as_time(t), as_time(s)
    sigma, sigma_dot = derivative(path.schedule.sigma, t)
    if rule == "corrected":
        _, later = path.coefficients(s)
        growth = (sigma / jnp.maximum(later, jnp.finfo(later.dtype).eps * sigma)) ** 2 - 1.0
        return jnp.exp(-0.5 * growth * rate)
    hazard = (s - t) * -sigma_dot / sigma * rate
    return jnp.maximum(1.0 - hazard, 0.0) if rule == "bernoulli" else jnp.exp(-hazard)


def bisect(is_below: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array) -> jax.Array:
    """Elementwise root of an increasing function on `[low, high]`; `is_below(x)`: the root is above `x`.

    As many halvings as the mantissa has bits, and a few.
    """
    low, high = jnp.broadcast_arrays(low, high)
    low, high = jnp.broadcast_arrays(low, high + jnp.zeros(jnp.shape(is_below(low)), low.dtype))

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = 0.5 * (bracket[0] + bracket[1])
        below = is_below(middle)
        return jnp.where(below, middle, bracket[0]), jnp.where(below, bracket[1], middle)

    low, high = jax.lax.fori_loop(0, jnp.finfo(low.dtype).nmant + 6, halve, (low, high))
    return 0.5 * (low + high)


def _normal_pdf(e: jax.Array) -> jax.Array:
    # what is beyond is zero, and its square may overflow
    return jnp.exp(-0.5 * jnp.square(jnp.clip(e, -40.0, 40.0))) / math.sqrt(2.0 * math.pi)
