"""A diffusion along a Gaussian path, at any noise level.

    prediction   as its head has it, e.g. the residual eta itself; see `_heads.py`
    generator    drift u + (g^2 / 2) score, covariance g^2 = 2 noise cot(theta) theta' V
    step         z_s ~ N(a z_t + f eta(x_t, t), 1 - a^2 + f^2 (v_t - 1)),     f = sin_s cos_t - rho sin_t cos_s
    backward     z_t ~ N(a z_s + b eta(x_s, s), 1 - a^2 + b^2 (v_s - 1)),     b = sin_t cos_s - rho sin_s cos_t
                 a = sin_t sin_s + rho cos_t cos_s,     rho = (tan_t / tan_s)^noise
                 v_t = 1 / ((cos_t / detail)^2 + sin_t^2)

in the standard units `z` and the angle `theta` of the path, `sin_t = sin theta(t)`. Derivation: given `x_1`, the
diffusion is linear, its transition over a step is a Gaussian whose correlation is `rho`, and the endpoint is
known up to the reference's belief, or with `detail` up to that of a Gaussian as much narrower than the reference. So a
step of any length is exact for the reference (`eta = 0`: weights of exactly one) and with `detail` for the narrower
Gaussian wherever it stands, carries the mean of every single endpoint's marginal along, and is the Euler-Maruyama step
of the generator as steps shrink. `noise = 1` is the time reversal of the path's own noising: `rho = tan_t / tan_s`
removes `eta` from the backward kernel, which becomes `p_{t|s}`. At other levels the backward kernel needs the learned
prediction; the noising kernel would be unbiased too, and useless. Near `noise = 0` steps approach the flow.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ..generators import Diffusion
from ..paths._base import Scalar
from ..paths._gaussian import Angle
from ._base import PredictFn
from ._gaussian import GaussianProcess


class _Kernel(NamedTuple):
    """`a`, `1 - a^2`, the gains of the prediction forwards and backwards, and by how much the variance of either kernel
    differs from `1 - a^2`, as a fraction of it.
    """

    decay: jax.Array
    variance: jax.Array
    forward: jax.Array
    backward: jax.Array
    forward_excess: jax.Array
    backward_excess: jax.Array


@frozen_pytree
class DiffusionProcess(GaussianProcess):
    """The diffusion of a `GaussianPath` with `noise` times the path's own noise, a positive scalar leaf.

    `detail`, a leaf of the shape of the path's `scale` or a scalar: the width of the target's modes in units of that
    scale. Once its mode is decided an endpoint is known that much better than the reference believes, and kernels are
    as much narrower. With 1, the default, a step of length `h` in `log tan theta` is wider than that of the exact
    process by a fraction of some `2 h` for modes that are much narrower than the reference, which costs about `h^2`
    nats a coordinate. The best variance is that of the posterior (Bao et al., Analytic-DPM, 2022); `detail` is its
    simplest model. Weights are exact with any, and heavy where it is too small.

    Raises `ValueError` for a concrete `noise` or `detail` that is not positive: without noise it is a `FlowProcess`.
    """

    noise: float | jax.Array = 1.0
    detail: float | jax.Array = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.noise, (int, float)) and not self.noise > 0:
            raise ValueError(f"noise: must be positive (0 is a FlowProcess), got {self.noise}")
        if isinstance(self.detail, (int, float)) and not self.detail > 0:
            raise ValueError(f"detail: must be positive, got {self.detail}")

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
        zs = kernel.decay * zt + shift + jnp.sqrt(kernel.variance * (1.0 + kernel.forward_excess)) * noise
        xs = self.path.unstandardize(zs, s)
        return xs, self._log_ratio(kernel, zt, zs, shift, self._pull(kernel, xs, predict_fn, s))

    def backward(
        self, key: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        kernel = self._kernel(t, s)
        mean = kernel.decay * self.path.standardize(xs, s) + self._pull(kernel, xs, predict_fn, s)
        noise = jax.random.normal(key, self.path.shape, dtype=xs.dtype)
        std = jnp.sqrt(kernel.variance * (1.0 + kernel.backward_excess))
        return self.path.unstandardize(mean + std * noise, t)

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
        variance = lost * (2.0 - lost)
        forward = later.sin * now.cos - rho * now.sin * later.cos
        backward = now.sin * later.cos - rho * later.sin * now.cos
        return _Kernel(
            decay=1.0 - lost,
            variance=variance,
            forward=forward,
            backward=backward,
            forward_excess=jnp.square(forward) * self._surplus(now) / variance,
            backward_excess=jnp.square(backward) * self._surplus(later) / variance,
        )

    def _surplus(self, angle: Angle) -> jax.Array:
        """`v - 1`, `v` the variance of the endpoint over that of the reference's belief; exactly 0 at `detail` 1."""
        narrower = jnp.square(1.0 / jnp.asarray(self.detail, dtype=float)) - 1.0
        return -narrower * angle.cos**2 / (1.0 + narrower * angle.cos**2)

    @staticmethod
    def _log_ratio(
        kernel: _Kernel, zt: jax.Array, zs: jax.Array, shift: jax.Array, pull: jax.Array
    ) -> jax.Array:
        """`log b - log k` relative to the reference; the terms in which both agree with it are cancelled by hand."""

        def less(offset: jax.Array, shift: jax.Array, excess: jax.Array) -> jax.Array:
            """`log N(offset; 0, V) - log N(offset; shift, (1 + excess) V)`, `V` being `1 - a^2`."""
            wider = 0.5 * excess / (1.0 + excess) * jnp.square(offset - shift)
            return (shift * (0.5 * shift - offset) - wider) / kernel.variance + 0.5 * jnp.log1p(excess)

        ahead = less(zs - kernel.decay * zt, shift, kernel.forward_excess)
        behind = less(zt - kernel.decay * zs, pull, kernel.backward_excess)
        return jnp.sum(ahead - behind)
