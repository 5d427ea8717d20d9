"""A flow along a Gaussian path.

    prediction   as its head has it, e.g. the residual eta itself; see `_heads.py`
    step         dz / dtheta = eta in the standard units z of the path, Euler or Heun: z_s = Phi(z_t)
    increment    log |det dPhi/dz| + log N(z_s; 0, I) - log N(z_t; 0, I)

The determinant is that of the discrete map itself, by `dim` forward derivatives, so the weights are exact for
any step size at which the map is one to one. Rounding is no part of that map: its products are at the highest
precision, those of the network included, whose layers are to be float32. A determinant that is not positive
voids the certificate: the increment is then `nan`, which every summary of weights counts.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from .._precision import highest
from .._pytree import frozen_pytree, static
from ..generators import Flow
from ..paths._base import Scalar, as_time
from ._base import PredictFn
from ._gaussian import GaussianProcess

NEWTON_STEPS = 8  # quadratic convergence: a step is a small change of the identity


@frozen_pytree
class FlowProcess(GaussianProcess):
    """The probability flow of a `GaussianPath`.

    `stepper`: "heun" (second order, two network calls) or "euler" (first order, one). Steps are taken in standard
    units along the angle of the path, in which nothing is steep at `t=1`. Raises `ValueError` for an unknown
    stepper.
    """

    stepper: Literal["heun", "euler"] = static(default="heun")

    def __post_init__(self) -> None:
        if self.stepper not in ("heun", "euler"):
            raise ValueError(f'stepper: expected "heun" or "euler", got {self.stepper!r}')

    @property
    def is_deterministic(self) -> bool:
        return True

    @property
    def follows_couplings(self) -> bool:
        return True

    def generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Flow:
        return Flow(self.path.velocity(self.residual(prediction, xt, t), xt, t))

    def backward_generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Flow:
        return Flow(-self.path.velocity(self.residual(prediction, xt, t), xt, t))

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
        zt = self.path.standardize(xt, t)
        zs, log_det = self._map_with_log_det(zt, predict_fn, t, s)
        return self.path.unstandardize(zs, s), log_det + _log_normal_ratio(zs, zt)

    def backward(
        self, key: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        """Inverts the step by Newton's method; `nan` where it has not converged."""
        t, s = as_time(t), as_time(s)
        size = math.prod(self.path.shape)
        zs = self.path.standardize(xs, s)

        def newton(_: int, z: jax.Array) -> jax.Array:
            value, jacobian = self._map_with_jacobian(z, predict_fn, t, s)
            return z - jnp.linalg.solve(jacobian, (value - zs).reshape(size)).reshape(z.shape)

        zt = jax.lax.fori_loop(0, NEWTON_STEPS, newton, zs)
        error = jnp.max(jnp.abs(self._map(zt, predict_fn, t, s) - zs))
        tolerance = 1e3 * jnp.finfo(zs.dtype).eps * (1.0 + jnp.max(jnp.abs(zs)))
        return jnp.where(error < tolerance, self.path.unstandardize(zt, t), jnp.nan)

    def increment(
        self, key: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        zt = self.path.standardize(xt, t)
        zs, log_det = self._map_with_log_det(zt, predict_fn, t, s)
        return log_det + _log_normal_ratio(zs, zt)

    def _map(self, z: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar) -> jax.Array:
        t, s = as_time(t), as_time(s)
        turn = self.path.angle(s).theta - self.path.angle(t).theta

        @highest
        def slope(z: jax.Array, t: Scalar) -> jax.Array:
            x = self.path.unstandardize(z, t)
            return self.residual(predict_fn(x, t), x, t)

        first = slope(z, t)
        end = z + turn * first
        if self.stepper == "euler":
            return end
        return z + 0.5 * turn * (first + slope(end, s))

    def _map_with_jacobian(
        self, z: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> tuple[jax.Array, jax.Array]:
        size = math.prod(self.path.shape)
        basis = jnp.eye(size, dtype=z.dtype).reshape(size, *z.shape)
        value, linear = jax.linearize(lambda y: self._map(y, predict_fn, t, s), z)
        return value, jax.vmap(linear)(basis).reshape(size, size).T

    def _map_with_log_det(
        self, z: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> tuple[jax.Array, jax.Array]:
        value, jacobian = self._map_with_jacobian(z, predict_fn, t, s)
        sign, log_det = _slogdet(jacobian)
        return value, jnp.where(sign > 0, log_det, jnp.nan)


def _log_normal_ratio(zs: jax.Array, zt: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum(zt**2 - zs**2)


def _slogdet(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sign and log of the determinant; by formula for two dimensions, where a factorisation is all overhead."""
    if matrix.shape[-1] == 1:
        det = matrix[0, 0]
    elif matrix.shape[-1] == 2:
        det = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    else:
        return jnp.linalg.slogdet(matrix)
    return jnp.sign(det), jnp.log(jnp.abs(det))
