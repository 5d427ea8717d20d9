"""The maximal coupling of `p = N(mean_t, std_t^2)` and `q = N(mean_s, std_s^2)`, `std_s < std_t`, and its reversal.

    forward     stay with probability min(1, q / p)(x_t), else land with density [q - p]_+ / moved
    backward    stay with probability min(1, p / q)(x_s), else land with density [p - q]_+ / moved
    moved       = integral of [q - p]_+, the distance in total variation

It takes `p` to `q` exactly, for steps of any length, and no kernel that does so moves less mass. With `p` and `q` the
laws of a Gaussian path given `x_1` its generator for short steps is that of `_jump_law.py`. `{q > p}` is the interval
between the roots of a quadratic; forward jumps land inside it and start outside, backward ones the other way round.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ._base import Scalar
from ._gaussian import GaussianPath
from ._jump_law import REACH, bisect

LOG_ROOT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
ROOT_HALF = math.sqrt(0.5)


@frozen_pytree
class MaximalCoupling:
    """Elementwise; all four fields broadcast against each other and against states."""

    mean_t: jax.Array
    std_t: jax.Array
    mean_s: jax.Array
    std_s: jax.Array

    def log_ratio(self, x: jax.Array) -> jax.Array:
        """`log q(x) / p(x)`: while negative, minus the integrated rate of leaving of a state that stays."""
        return self._log_q(x) - self._log_p(x)

    def stay_prob(self, xt: jax.Array) -> jax.Array:
        """`min(1, q / p)`."""
        return jnp.exp(jnp.minimum(self.log_ratio(xt), 0.0))

    def backward_stay_prob(self, xs: jax.Array) -> jax.Array:
        """`min(1, p / q)`."""
        return jnp.exp(jnp.minimum(-self.log_ratio(xs), 0.0))

    @property
    def interval(self) -> tuple[jax.Array, jax.Array]:
        """Ends of `{q > p}` in units of `std_s` about `mean_s`: roots of a quadratic, without cancellation."""
        # short steps may leave both deviations equal, or the later one larger by rounding
        ratio, shift = jnp.minimum(self.std_s / self.std_t, 1.0), (self.mean_s - self.mean_t) / self.std_t
        lost = jnp.maximum(
            (self.std_t - self.std_s) * (self.std_t + self.std_s) / jnp.square(self.std_t), 0.0
        )
        log_ratio = jnp.log(ratio)
        root = jnp.sqrt(jnp.square(shift) - 2.0 * lost * log_ratio)
        far = jnp.maximum(jnp.abs(ratio * shift) + root, jnp.finfo(root.dtype).tiny)
        near = (jnp.square(shift) - 2.0 * log_ratio) / far
        ahead = shift > 0
        return -jnp.where(ahead, near, far / lost), jnp.where(ahead, far / lost, near)

    @property
    def moved(self) -> jax.Array:
        """Total variation distance of `p` and `q`; positive, however short the step."""
        low, high = self.interval
        return jnp.maximum(self._mass(low, high), jnp.square(jnp.finfo(low.dtype).eps))

    def landing_log_prob(self, xs: jax.Array) -> jax.Array:
        """Log-density of `[q - p]_+ / moved`; minus infinity where it is zero."""
        return self._log_q(xs) + log_less(-self.log_ratio(xs)) - jnp.log(self.moved)

    def backward_landing_log_prob(self, xt: jax.Array) -> jax.Array:
        """Log-density of `[p - q]_+ / moved`."""
        return self._log_p(xt) + log_less(self.log_ratio(xt)) - jnp.log(self.moved)

    def landing_cdf(self, xs: jax.Array) -> jax.Array:
        """Distribution function of where forward jumps land."""
        low, high = self.interval
        e = jnp.clip((xs - self.mean_s) / self.std_s, low, high)
        return jnp.clip(self._mass(low, e) / self.moved, 0.0, 1.0)

    def landing_ppf(self, u: jax.Array) -> jax.Array:
        """The inverse of `landing_cdf`, by bisection."""
        low, high = self.interval
        mass = u * self._mass(low, high)
        inside = jnp.maximum(low, -REACH), jnp.minimum(high, REACH)
        return self.mean_s + self.std_s * bisect(lambda e: self._mass(low, e) < mass, *inside)

    def backward_landing_cdf(self, xt: jax.Array) -> jax.Array:
        """Distribution function of where backward jumps land: two tails."""
        low, high = self.interval
        e = (xt - self.mean_s) / self.std_s
        left, right = jnp.minimum(e, low), jnp.maximum(e, high)
        mass = jnp.where(e < high, self._left_mass(left), self.moved - self._right_mass(right))
        return jnp.clip(mass / self.moved, 0.0, 1.0)

    def backward_landing_ppf(self, u: jax.Array) -> jax.Array:
        """The inverse of `backward_landing_cdf`, by bisection in each tail."""
        low, high = self.interval
        left, right = self._left_mass(low), self._right_mass(high)
        total = left + right
        # p reaches REACH of its own deviations
        shift = (self.mean_t - self.mean_s) / self.std_s
        reach = REACH * self.std_t / self.std_s
        start, stop = jnp.minimum(shift - reach, low - 1.0), jnp.maximum(shift + reach, high + 1.0)
        from_left = bisect(lambda e: self._left_mass(e) < u * total, start, low)
        from_right = bisect(lambda e: self._right_mass(e) > (1.0 - u) * total, high, stop)
        return self.mean_s + self.std_s * jnp.where(u * total < left, from_left, from_right)

    def _log_p(self, x: jax.Array) -> jax.Array:
        return -0.5 * jnp.square((x - self.mean_t) / self.std_t) - jnp.log(self.std_t) - LOG_ROOT_TWO_PI

    def _log_q(self, x: jax.Array) -> jax.Array:
        return -0.5 * jnp.square((x - self.mean_s) / self.std_s) - jnp.log(self.std_s) - LOG_ROOT_TWO_PI

    def _earlier(self, e: jax.Array) -> jax.Array:
        """`e` in units of `std_t` about `mean_t`."""
        return (self.std_s * e + (self.mean_s - self.mean_t)) / self.std_t

    def _mass(self, low: jax.Array, high: jax.Array) -> jax.Array:
        """`q - p` of an interval."""
        q = ndtr(high) - ndtr(low)
        return q - (ndtr(self._earlier(high)) - ndtr(self._earlier(low)))

    def _left_mass(self, e: jax.Array) -> jax.Array:
        """`p - q` of `(-inf, e)`."""
        return ndtr(self._earlier(e)) - ndtr(e)

    def _right_mass(self, e: jax.Array) -> jax.Array:
        """`p - q` of `(e, inf)`."""
        return ndtr(-self._earlier(e)) - ndtr(-e)


def conditional_coupling(path: GaussianPath, x1: jax.Array, t: Scalar, s: Scalar) -> MaximalCoupling:
    """The coupling of `p_t(. | x_1)` and `p_s(. | x_1)`, `t < s < 1`, elementwise in `x_1`; `sigma` must decrease."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = path.coefficients(t), path.coefficients(s)
    fields = alpha_t * x1, sigma_t, alpha_s * x1, sigma_s
    return MaximalCoupling(*(jnp.broadcast_to(a, jnp.shape(x1)) for a in fields))


def ndtr(x: jax.Array) -> jax.Array:
    """The normal distribution function; as accurate as jax's, which has an `erf` and two `erfc` to compile."""
    return 0.5 * jax.lax.erfc(-ROOT_HALF * x)


def log_less(log_a: jax.Array) -> jax.Array:
    """`log [1 - exp(log_a)]_+`, minus infinity where `log_a >= 0`; gradients are finite."""
    inside = log_a < 0
    safe = jnp.where(inside, log_a, -1.0)
    return jnp.where(inside, jnp.log(-jnp.expm1(safe)), -jnp.inf)
