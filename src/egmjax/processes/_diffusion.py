"""A diffusion along a Gaussian path, at any noise level.

    prediction   as its head has it, e.g. the residual eta itself; see `_heads.py`
    generator    drift u + (g^2 / 2) score, covariance g^2 = 2 noise cot(theta) theta' V
    step         z_s ~ N(a z_t + (sin_s cos_t - rho sin_t cos_s) eta(x_t, t), 1 - a^2)
    backward     z_t ~ N(a z_s + (sin_t cos_s - rho sin_s cos_t) eta(x_s, s), 1 - a^2)
                 a = sin_t sin_s + rho cos_t cos_s,     rho = (tan_t / tan_s)^noise

in the standard units `z` and the angle `theta` of the path, `sin_t = sin theta(t)`. Derivation: given `x_1`, the
diffusion is linear, its transition over a step is a Gaussian whose correlation is `rho`, and the endpoint is
known up to the reference's belief. So a step of any length is exact for the reference (`eta = 0`: weights of
exactly one), carries the mean of every single endpoint's marginal along, and is the Euler-Maruyama step of the
generator as steps shrink. `noise = 1` is the time reversal of the path's own noising: `rho = tan_t / tan_s` removes
`eta` from the backward kernel, which becomes `p_{t|s}`. At other levels the backward kernel needs the learned
prediction; the noising kernel would be unbiased too, and useless. Near `noise = 0` steps approach the flow.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ..generators import Diffusion
from ..paths._base import Scalar
from ._base import PredictFn
from ._gaussian import GaussianProcess


class _Kernel(NamedTuple):
    """`a`, `1 - a^2`, and the gains of the prediction forwards and backwards."""

    decay: jax.Array
    variance: jax.Array
    forward: jax.Array
    backward: jax.Array


@frozen_pytree
class DiffusionProcess(GaussianProcess):
    """The diffusion of a `GaussianPath` with `noise` times the path's own noise, a positive scalar leaf.

    Raises `ValueError` for a concrete `noise` that is not positive: without noise it is a `FlowProcess`.
    """

    noise: float | jax.Array = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.noise, (int, float)) and not self.noise > 0:
            raise ValueError(f"noise: must be positive (0 is a FlowProcess), got {self.noise}")

    @property
    def is_reversal(self) -> bool:
        """Whether `noise` is the literal 1: the backward kernel is then the path's and needs no prediction.

        A `noise` that is an array, traced ones included, may take any value and does not count.
        """
        return isinstance(self.noise, (int, float)) and self.noise == 1

    def generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Diffusion:
        """Infinite at `t=0` where `alpha = 0`: the endpoint is forgotten there at once."""
        added = self._added(prediction, xt, t)
        return Diffusion(
            self.path.velocity(self.residual(prediction, xt, t), xt, t) + added.drift, added.covariance
        )

    def backward_generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Diffusion:
        """The flow backwards, the noise and its score as ever."""
        added = self._added(prediction, xt, t)
        return Diffusion(
            -self.path.velocity(self.residual(prediction, xt, t), xt, t) + added.drift, added.covariance
        )

    def _added(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Diffusion:
        """What a diffusion has that the flow has not: Langevin dynamics of the marginal."""
        path, angle = self.path, self.path.angle(t)
        residual = self.residual(prediction, xt, t)
        speed, cot = path.angular_speed(t), angle.cos / angle.sin
        _, std = path.reference_moments(t)
        drift = residual - cot * path.standardize(xt, t)  # of the score and its noise, in units of speed
        covariance = 2.0 * self.noise * speed * cot * std**2
        if covariance.ndim:
            covariance = jnp.broadcast_to(covariance, path.shape).reshape(-1)
        return Diffusion(self.noise * speed * std * drift, covariance)

    def step(
        self,
        key: jax.Array,
        xt: jax.Array,
        predict_fn: PredictFn,
        t: Scalar,
        s: Scalar,
        prediction: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        kernel = self._kernel(t, s)
        zt = self.path.standardize(xt, t)
        raw = predict_fn(xt, t) if prediction is None else prediction
        shift = kernel.forward * self.residual(raw, xt, t)
        noise = jax.random.normal(key, self.path.shape, dtype=xt.dtype)
        zs = kernel.decay * zt + shift + jnp.sqrt(kernel.variance) * noise
        xs = self.path.unstandardize(zs, s)
        return xs, self._log_ratio(kernel, zt, zs, shift, self._pull(kernel, xs, predict_fn, s))

    def backward(
        self, key: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        kernel = self._kernel(t, s)
        mean = kernel.decay * self.path.standardize(xs, s) + self._pull(kernel, xs, predict_fn, s)
        noise = jax.random.normal(key, self.path.shape, dtype=xs.dtype)
        return self.path.unstandardize(mean + jnp.sqrt(kernel.variance) * noise, t)

    def increment(
        self, key: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        kernel = self._kernel(t, s)
        zt, zs = self.path.standardize(xt, t), self.path.standardize(xs, s)
        shift = kernel.forward * self.residual(predict_fn(xt, t), xt, t)
        return self._log_ratio(kernel, zt, zs, shift, self._pull(kernel, xs, predict_fn, s))

    def _pull(self, kernel: _Kernel, xs: jax.Array, predict_fn: PredictFn, s: Scalar) -> jax.Array:
        if self.is_reversal:
            return jnp.zeros_like(xs)
        return kernel.backward * self.residual(predict_fn(xs, s), xs, s)

    def _kernel(self, t: Scalar, s: Scalar) -> _Kernel:
        now, later = self.path.angle(t), self.path.angle(s)
        # tan_t / tan_s in [0, 1], zero at both ends of the path
        log_ratio = jnp.log(now.sin * later.cos) - jnp.log(now.cos * later.sin)
        rho = jnp.exp(self.noise * log_ratio)
        turn = later.theta - now.theta
        # 1 - a without cancellation: steps may be short and the noise weak
        lost = 2.0 * jnp.sin(0.5 * turn) ** 2 - jnp.expm1(self.noise * log_ratio) * now.cos * later.cos
        return _Kernel(
            decay=1.0 - lost,
            variance=lost * (2.0 - lost),
            forward=later.sin * now.cos - rho * now.sin * later.cos,
            backward=now.sin * later.cos - rho * later.sin * now.cos,
        )

    @staticmethod
    def _log_ratio(
        kernel: _Kernel, zt: jax.Array, zs: jax.Array, shift: jax.Array, pull: jax.Array
    ) -> jax.Array:
        """`log b - log k` relative to the reference; the terms in which both agree with it are cancelled by hand."""
        ahead = shift * (0.5 * shift - (zs - kernel.decay * zt))
        behind = pull * (0.5 * pull - (zt - kernel.decay * zs))
        return jnp.sum((ahead - behind) / kernel.variance)
