"""A flow along a Gaussian path.

    prediction   residual eta, the endpoint in units of what the reference leaves open:
                 E[x_1 | x_t] = belief.mean + belief.scale * eta
    step         x_s = Phi(x_t), Euler or Heun
    increment    log |det dPhi/dx| + log reference_s(x_s) - log reference_t(x_t)

The determinant is that of the discrete map itself, by `dim` forward derivatives, so the weights are exact for
any step size at which the map is one to one. A determinant that is not positive voids the certificate: the
increment is then `nan`, which every summary of weights counts.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..generators import Flow
from ..losses import squared_error
from ..paths import GaussianPath
from ..paths._base import Scalar, as_time
from ._base import PredictFn, Process

NEWTON_STEPS = 8  # quadratic convergence: a step is a small change of the identity


@frozen_pytree
class FlowProcess(Process):
    """The probability flow of a `GaussianPath`.

    `stepper`: "heun" or "midpoint" (second order, two network calls) or "euler" (first order, one). Heun's
    evaluates the velocity at `t=1`, which schedules with an infinite slope there do not have. Raises
    `ValueError` for an unknown stepper, or for "heun" on such a schedule.
    """

    gaussian: GaussianPath
    stepper: Literal["heun", "midpoint", "euler"] = static(default="heun")

    def __post_init__(self) -> None:
        if self.stepper not in ("heun", "midpoint", "euler"):
            raise ValueError(f'stepper: expected "heun", "midpoint" or "euler", got {self.stepper!r}')
        schedule = getattr(self.gaussian, "schedule", None)
        if self.stepper == "heun" and getattr(schedule, "is_steep_at_one", False):
            kind = type(schedule).__name__
            raise ValueError(
                f'stepper: sigma of {kind} has an infinite slope at t=1; use "midpoint" or "euler"'
            )

    @property
    def path(self) -> GaussianPath:
        return self.gaussian

    @property
    def is_deterministic(self) -> bool:
        return True

    def prediction_shape(self) -> tuple[int, ...]:
        return self.path.shape

    def target(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`(endpoint - belief.mean) / belief.scale`, shape of the state."""
        belief = self.path.endpoint_belief(xt, t)
        return (self.path.endpoint(xt, xr, t, r) - belief.mean) / belief.scale

    def divergence(self, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """Squared error: that of the endpoint over the variance of the reference's belief."""
        return squared_error(target, prediction)

    def generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Flow:
        return Flow(self.path.velocity(prediction, xt, t))

    def step(
        self,
        key: jax.Array,
        xt: jax.Array,
        predict_fn: PredictFn,
        t: Scalar,
        s: Scalar,
        prediction: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        # a cached prediction is of no use here: the determinant differentiates through the call
        xs, log_det = self._map_with_log_det(xt, predict_fn, t, s)
        return xs, log_det + self.path.log_reference(xs, s) - self.path.log_reference(xt, t)

    def backward(
        self, key: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        """Inverts the step by Newton's method; `nan` where it has not converged."""
        t, s = as_time(t), as_time(s)
        size = math.prod(self.path.shape)

        def newton(_: int, x: jax.Array) -> jax.Array:
            value, jacobian = self._map_with_jacobian(x, predict_fn, t, s)
            return x - jnp.linalg.solve(jacobian, (value - xs).reshape(size)).reshape(x.shape)

        xt = jax.lax.fori_loop(0, NEWTON_STEPS, newton, xs)
        error = jnp.max(jnp.abs(self._map(xt, predict_fn, t, s) - xs))
        tolerance = 1e3 * jnp.finfo(xs.dtype).eps * (1.0 + jnp.max(jnp.abs(xs)))
        return jnp.where(error < tolerance, xt, jnp.nan)

    def increment(
        self, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        _, log_det = self._map_with_log_det(xt, predict_fn, t, s)
        return log_det + self.path.log_reference(xs, s) - self.path.log_reference(xt, t)

    def _map(self, x: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar) -> jax.Array:
        t, s = as_time(t), as_time(s)
        u = self.path.velocity(predict_fn(x, t), x, t)
        if self.stepper == "midpoint":
            half, middle = x + 0.5 * (s - t) * u, 0.5 * (s + t)
            return x + (s - t) * self.path.velocity(predict_fn(half, middle), half, middle)
        end = x + (s - t) * u
        if self.stepper == "euler":
            return end
        return x + 0.5 * (s - t) * (u + self.path.velocity(predict_fn(end, s), end, s))

    def _map_with_jacobian(
        self, x: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> tuple[jax.Array, jax.Array]:
        size = math.prod(self.path.shape)
        basis = jnp.eye(size, dtype=x.dtype).reshape(size, *x.shape)
        value, linear = jax.linearize(lambda y: self._map(y, predict_fn, t, s), x)
        return value, jax.vmap(linear)(basis).reshape(size, size).T

    def _map_with_log_det(
        self, x: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> tuple[jax.Array, jax.Array]:
        value, jacobian = self._map_with_jacobian(x, predict_fn, t, s)
        sign, log_det = _slogdet(jacobian)
        return value, jnp.where(sign > 0, log_det, jnp.nan)


def _slogdet(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sign and log of the determinant; by formula for two dimensions, where a factorisation is all overhead."""
    if matrix.shape[-1] == 1:
        det = matrix[0, 0]
    elif matrix.shape[-1] == 2:
        det = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    else:
        return jnp.linalg.slogdet(matrix)
    return jnp.sign(det), jnp.log(jnp.abs(det))
