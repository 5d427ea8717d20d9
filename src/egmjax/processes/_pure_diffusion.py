"""Diffusion without drift along the mixture path in a box: all motion is learned noise, reflected at the ends.

    given x_1 = z    sigma^2 = 2 kappa' / (1 - kappa) L (w^2 / 2 + (u - w)_+ - u^2 / 2) L,   u, w: x and z in units of L
    prediction       f: sigma^2 = kappa' L^2 / 3 exp(f); zero is the reference, whose sigma^2 this is
    generator        L f = 1/2 sum_i sigma_i^2 d^2 f / dx_i^2

(Holderrieth et al., Generator Matching, equation 10, per coordinate.) The conditional noise vanishes at `z`, which
absorbs, and so builds the atom of the path. A step of the marginal process is a reflected Gaussian of the integrated
variance; its backward kernel is that of the later state. Weights are unbiased, exactly one for the reference, and
do not tend to one for an exact network: the drift of the reversal, `d (sigma^2 p) / p`, needs the density, which
noise alone does not tell.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..generators import Diffusion
from ..losses import squared_error
from ..paths import UniformPath
from ..paths._base import Scalar, check_times
from ..paths._masked import _nonzero
from ..paths._schedules import derivative
from ._base import PredictFn, Process

IMAGES = 4  # on each side, for standard deviations up to WIDEST times the box
WIDEST = 1.5  # a reflected Gaussian is uniform to 2e-5 from there on


@frozen_pytree
class PureDiffusionProcess(Process):
    """The drift-free diffusion of a `UniformPath`.

    `loss`: "itakura_saito", `a / b + log b`, free of scale and equal to the KL divergence of Gaussian steps up to a
    factor, or "squared". Raises `ValueError` for another.
    """

    uniform: UniformPath
    loss: Literal["itakura_saito", "squared"] = static(default="itakura_saito")

    def __post_init__(self) -> None:
        if self.loss not in ("itakura_saito", "squared"):
            raise ValueError(f'loss: expected "itakura_saito" or "squared", got {self.loss!r}')

    @property
    def path(self) -> UniformPath:
        return self.uniform

    def prediction_shape(self) -> tuple[int, ...]:
        return self.path.shape

    def target(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`sigma^2` over that of the reference: `(3 g - (1 - kappa_r)) / (kappa_r - kappa_t)`.

        `g = |u - w| (u + w)` below `x_r` and `|u - w| (2 - u - w)` above, `u` and `w` being `x_t` and `x_r` in units
        of the box. Zero where `x_t = x_r`. At `r = 1` positive; for `r < 1` the constant keeps the mean over `x_r`
        given `x_t` that of `r = 1`, and single targets may be negative.
        """
        check_times(t, r)
        kappa_t, kappa_r = self.path.kappa(t), self.path.kappa(r)
        spread = 3.0 * self._profile(xt, xr) - (1.0 - kappa_r)
        return jnp.where(xt == xr, 0.0, spread / _nonzero(kappa_r - kappa_t))

    def divergence(self, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        if self.loss == "squared":
            return squared_error(target, jnp.exp(prediction))
        return jnp.sum(target * jnp.exp(-prediction) + prediction)

    def generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Diffusion:
        _, speed = derivative(self.path.kappa, t)
        covariance = speed / 3.0 * self.path.length**2 * jnp.exp(prediction)
        return Diffusion(jnp.zeros_like(xt), covariance.reshape(-1))

    def sample_endpoint(self, key: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """The reference's posterior: the prediction says nothing of the endpoint."""
        return self.path.propose(key, xt, t)

    def endpoint_log_prob(self, x1: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        return self.path.propose_log_prob(x1, xt, t)

    def step(
        self,
        key: jax.Array,
        xt: jax.Array,
        predict_fn: PredictFn,
        t: Scalar,
        s: Scalar,
        prediction: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        ahead = self._std(predict_fn(xt, t) if prediction is None else prediction, t, s)
        xs = self._fold(xt + ahead * jax.random.normal(key, self.path.shape, dtype=xt.dtype))
        return xs, self._ratio(ahead, xt, xs, predict_fn, t, s)

    def backward(
        self, key: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        noise = jax.random.normal(key, self.path.shape, dtype=xs.dtype)
        return self._fold(xs + self._std(predict_fn(xs, s), t, s) * noise)

    def increment(
        self, key: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        return self._ratio(self._std(predict_fn(xt, t), t, s), xt, xs, predict_fn, t, s)

    def conditional_step(
        self, key: jax.Array, xt: jax.Array, z: jax.Array, t: Scalar, s: Scalar
    ) -> jax.Array:
        """A step given `x_1 = z`, on the clock `-log(1 - kappa)`, where the noise does not depend on time.

        Euler-Maruyama, reflected at the ends and absorbed by `z` when a step crosses it: close to `z` the variance
        is linear in the distance, so that it is reached in finite time, which a Gaussian step never does.
        """
        path, length = self.path, self.path.length
        left = (1.0 - path.kappa(s)) / _nonzero(1.0 - path.kappa(t))
        clock = -jnp.log(jnp.where(left > 0, left, 1.0))
        std = length * jnp.sqrt(self._profile(xt, z) * clock)
        moved = xt + std * jax.random.normal(key, path.shape, dtype=xt.dtype)
        folded = self._fold(moved)
        crossed = ((moved - z) * (xt - z) <= 0) | ((folded - z) * (xt - z) <= 0)
        return jnp.where(crossed | (left <= 0), z, folded)

    def _profile(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """`w^2 + 2 (u - w)_+ - u^2`, factorised: no cancellation near `z`."""
        u, w = ((a - self.path.low) / self.path.length for a in (x, z))
        return jnp.abs(u - w) * jnp.where(u < w, u + w, 2.0 - u - w)

    def _std(self, prediction: jax.Array, t: Scalar, s: Scalar) -> jax.Array:
        share = (self.path.kappa(s) - self.path.kappa(t)) / 3.0
        return self.path.length * jnp.minimum(jnp.sqrt(share) * jnp.exp(0.5 * prediction), WIDEST)

    def _fold(self, x: jax.Array) -> jax.Array:
        """Reflections at both ends; clipped, since one rounding beyond the box the reference has no mass."""
        length = self.path.length
        turned = jnp.mod(x - self.path.low, 2.0 * length)
        folded = self.path.low + jnp.where(turned > length, 2.0 * length - turned, turned)
        return jnp.clip(folded, self.path.low, self.path.high)

    def _log_kernel(self, y: jax.Array, x: jax.Array, std: jax.Array) -> jax.Array:
        """The density of the reflected Gaussian, by images; the factor that both directions share is left out."""
        shifts = 2.0 * jnp.arange(-IMAGES, IMAGES + 1, dtype=float).reshape(-1, *([1] * y.ndim))
        u, w = ((a - self.path.low) / self.path.length for a in (y, x))
        images = jnp.concatenate([(u - w)[None] + shifts, (u + w)[None] + shifts])
        logs = -0.5 * (images * (self.path.length / std)[None]) ** 2
        return jnp.sum(jax.nn.logsumexp(logs, axis=0) - jnp.log(std))

    def _ratio(
        self, ahead: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        behind = self._std(predict_fn(xs, s), t, s)
        return self._log_kernel(xt, xs, behind) - self._log_kernel(xs, xt, ahead)
