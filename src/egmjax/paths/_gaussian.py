"""Gaussian paths: `x_t = alpha_t x_1 + sigma_t eps`, and their chain `x_t = c x_r + sqrt(v) eps`,

    c = alpha_t / alpha_r,     v = sigma_t^2 - c^2 sigma_r^2.

The reference density is `N(mean, scale^2)`; its noised version at `t` is `N(alpha_t mean, V_t)` with
`V_t = alpha_t^2 scale^2 + sigma_t^2`, and the prior is that law at `t=0`: where `alpha_0 > 0` (variance
exploding or preserving) this matches the moments of the reference instead of ignoring them.

In standard units `z = (x_t - alpha mean) / sqrt(V)` every Gaussian path is one rotation,

    z = sin(theta) (x_1 - mean) / scale + cos(theta) eps,     tan(theta) = alpha scale / sigma,

from `theta(0)` to exactly `pi / 2`. Processes move in `z` by `theta`, where the reference is standard normal at
every time and no schedule is steep.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..states import Real
from ._base import Path, Scalar, as_time, check_times
from ._schedules import GaussianSchedule, Trigonometric, derivative


class Angle(NamedTuple):
    """`sin`, `cos` and the angle itself, scalars or the shape of `scale`; `cos` is exactly 0 at `t=1`."""

    sin: jax.Array
    cos: jax.Array
    theta: jax.Array


class EndpointBelief(NamedTuple):
    """The reference posterior of `x_1` given `x_t`: its `mean` (shape of the state) and scalar `scale`."""

    mean: jax.Array
    scale: jax.Array


@frozen_pytree
class GaussianPath(Path):
    """A Gaussian path on `R^shape`. `mean` and `scale` of the reference: scalars or the shape of the state."""

    schedule: GaussianSchedule
    mean: float | jax.Array = 0.0
    scale: float | jax.Array = 1.0
    shape: tuple[int, ...] = static(default=(1,))

    @property
    def space(self) -> Real:
        return Real(self.shape)

    def sample_prior(self, key: jax.Array) -> jax.Array:
        return self.unstandardize(jax.random.normal(key, self.shape), 0.0)

    def prior_log_prob(self, x0: jax.Array) -> jax.Array:
        return self.log_reference(x0, 0.0)

    def sample(self, key: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        c, v = self.chain(t, r)
        return c * xr + jnp.sqrt(v) * jax.random.normal(key, self.shape, dtype=xr.dtype)

    def interpolate(self, key: jax.Array, x0: jax.Array, x1: jax.Array, t: Scalar) -> jax.Array:
        """`alpha_t x_1 + sigma_t eps`, `eps` being `x_0` in standard units: a straight line for `CondOT`."""
        alpha, sigma = self.coefficients(t)
        return alpha * x1 + sigma * self.standardize(x0, 0.0)

    def log_prob(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        c, v = self.chain(t, r)
        return _normal_log_prob(xt, c * xr, v)

    def log_reference(self, x: jax.Array, t: Scalar) -> jax.Array:
        alpha, sigma = self.coefficients(t)
        return _normal_log_prob(x, alpha * self.mean, self._reference_variance(alpha, sigma))

    def propose(self, key: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        mean, variance = self._reference_posterior(xt, t, r)
        return mean + jnp.sqrt(variance) * jax.random.normal(key, self.shape, dtype=xt.dtype)

    def reflect(self, xr: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`2 mean - x_r`, about the mean of `propose`."""
        check_times(t, r)
        mean, _ = self._reference_posterior(xt, t, r)
        return 2.0 * mean - xr

    def propose_log_prob(self, xr: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        return _normal_log_prob(xr, *self._reference_posterior(xt, t, r))

    def bridge(
        self, key: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, s: Scalar, r: Scalar = 1.0
    ) -> jax.Array:
        mean, variance = self._bridge_moments(xt, xr, t, s, r)
        return mean + jnp.sqrt(variance) * jax.random.normal(key, self.shape, dtype=xt.dtype)

    def bridge_log_prob(
        self, xs: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, s: Scalar, r: Scalar = 1.0
    ) -> jax.Array:
        return _normal_log_prob(xs, *self._bridge_moments(xt, xr, t, s, r))

    # -- what processes on this path are built from -------------------------------------------------------

    def coefficients(self, t: Scalar) -> tuple[jax.Array, jax.Array]:
        """`(alpha_t, sigma_t)`."""
        t = as_time(t)
        return self.schedule.alpha(t), self.schedule.sigma(t)

    def chain(self, t: Scalar, r: Scalar) -> tuple[jax.Array, jax.Array]:
        """`(c, v)` of `x_t = c x_r + sqrt(v) eps`."""
        (alpha_t, sigma_t), (alpha_r, sigma_r) = self.coefficients(t), self.coefficients(r)
        c = alpha_t / alpha_r
        return c, sigma_t**2 - (c * sigma_r) ** 2

    def endpoint_belief(self, xt: jax.Array, t: Scalar) -> EndpointBelief:
        """Mean and scale of `x_1` given `x_t` under the reference; defined for every `t`, `t=0` included."""
        alpha, sigma = self.coefficients(t)
        variance = self._reference_variance(alpha, sigma)
        mean = (sigma**2 * self.mean + alpha * self._scale2 * xt) / variance
        return EndpointBelief(mean, sigma * self.scale / jnp.sqrt(variance))

    def endpoint(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """An unbiased endpoint: `E[endpoint | x_t] = E[x_1 | x_t]` for every `r > t`; `x_1` itself at `r=1`.

        `(sigma_t^2 x_r - c sigma_r^2 x_t) / (alpha_r v)`: Tweedie's formula applied to the score of
        `p_{t|r}`, rearranged to stay finite at `alpha_t = 0`. Its variance grows as `r` approaches `t`.
        """
        check_times(t, r)
        (_, sigma_t), (alpha_r, sigma_r) = self.coefficients(t), self.coefficients(r)
        c, v = self.chain(t, r)
        return (sigma_t**2 * xr - c * sigma_r**2 * xt) / (alpha_r * v)

    def angle(self, t: Scalar) -> Angle:
        """How far the rotation from noise to data has come at `t`."""
        alpha, sigma = self.coefficients(t)
        root = jnp.sqrt(self._reference_variance(alpha, sigma))
        # broadcast: with a scale for each coordinate sigma alone has no shape
        sin, cos = jnp.broadcast_arrays(alpha * self.scale / root, sigma / root)
        return Angle(sin, cos, jnp.arctan2(sin, cos))

    def angular_speed(self, t: Scalar) -> jax.Array:
        """`d theta / dt = (alpha' sigma - alpha sigma') scale / V`."""
        t = as_time(t)
        alpha, alpha_dot = derivative(self.schedule.alpha, t)
        sigma, sigma_dot = derivative(self.schedule.sigma, t)
        return (alpha_dot * sigma - alpha * sigma_dot) * self.scale / self._reference_variance(alpha, sigma)

    def reference_moments(self, t: Scalar) -> tuple[jax.Array, jax.Array]:
        """Mean `alpha mean` and standard deviation `sqrt(V)` of the noised reference."""
        alpha, sigma = self.coefficients(t)
        return alpha * self.mean, jnp.sqrt(self._reference_variance(alpha, sigma))

    def standardize(self, x: jax.Array, t: Scalar) -> jax.Array:
        """`z = (x - alpha mean) / sqrt(V)`: standard normal under the noised reference."""
        mean, std = self.reference_moments(t)
        return (x - mean) / std

    def unstandardize(self, z: jax.Array, t: Scalar) -> jax.Array:
        """The inverse of `standardize`."""
        mean, std = self.reference_moments(t)
        return mean + std * z

    def velocity(self, residual: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """The velocity whose endpoint is `belief.mean + belief.scale * residual`.

        `z` moves at `theta' residual`; the rest is how `alpha mean` and `V` move. Finite wherever the slope of
        `sigma` is.
        """
        t = as_time(t)
        alpha, alpha_dot = derivative(self.schedule.alpha, t)
        sigma, sigma_dot = derivative(self.schedule.sigma, t)
        variance = self._reference_variance(alpha, sigma)
        growth = (alpha * alpha_dot * self._scale2 + sigma * sigma_dot) / variance
        drift = alpha_dot * self.mean + growth * (xt - alpha * self.mean)
        return drift + self.angular_speed(t) * jnp.sqrt(variance) * residual

    def score(self, residual: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """`grad log p_t` for that endpoint, `(-z + tan(theta) residual) / sqrt(V)`; infinite at `t=1`."""
        alpha, sigma = self.coefficients(t)
        variance = self._reference_variance(alpha, sigma)
        gain = alpha * self.scale / (sigma * jnp.sqrt(variance))
        return -(xt - alpha * self.mean) / variance + gain * residual

    @property
    def _scale2(self) -> jax.Array:
        return jnp.square(jnp.asarray(self.scale, dtype=float))

    def _reference_variance(self, alpha: jax.Array, sigma: jax.Array) -> jax.Array:
        return alpha**2 * self._scale2 + sigma**2

    def _reference_posterior(self, xt: jax.Array, t: Scalar, r: Scalar) -> tuple[jax.Array, jax.Array]:
        c, v = self.chain(t, r)
        alpha_r, sigma_r = self.coefficients(r)
        prior = self._reference_variance(alpha_r, sigma_r)
        total = v + c**2 * prior
        return (v * alpha_r * self.mean + c * prior * xt) / total, prior * v / total

    def _bridge_moments(
        self, xt: jax.Array, xr: jax.Array, t: Scalar, s: Scalar, r: Scalar
    ) -> tuple[jax.Array, jax.Array]:
        check_times(t, s)
        check_times(s, r)
        a, v_sr = self.chain(s, r)
        b, v_ts = self.chain(t, s)
        total = v_ts + b**2 * v_sr
        return (v_ts * a * xr + b * v_sr * xt) / total, v_ts * v_sr / total


def stationary_path(
    shape: tuple[int, ...], *, mean: float = 0.0, scale: float = 1.0, power: float = 1.0
) -> GaussianPath:
    """The trigonometric path with `sigma_0 = scale`: under the reference `N(0, scale^2)` nothing moves at all.

    With a target of about that scale the network learns only how the target differs from a Gaussian; a good
    default for energies. `power` above 1 spends more of the time near the data, for modes much narrower than
    `scale`. Raises `ValueError` for a scale that is not positive or a power below 1.
    """
    if not scale > 0:
        raise ValueError(f"scale: must be positive, got {scale}")
    if not power >= 1:
        raise ValueError(f"power: at least 1, got {power}")
    return GaussianPath(Trigonometric(scale, power), mean=mean, scale=scale, shape=tuple(shape))


def _normal_log_prob(x: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
    variance = jnp.broadcast_to(variance, x.shape)
    return -0.5 * jnp.sum((x - mean) ** 2 / variance + jnp.log(variance) + math.log(2.0 * math.pi))
