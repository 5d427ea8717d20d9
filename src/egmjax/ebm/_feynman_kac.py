"""Products of densities from their scores alone, corrected by weights of Feynman and Kac.

    y = x / alpha,   u = (sigma / alpha)^2 falling,   s_m = grad_y log q_m(y, u),   S = sum_m beta_m s_m
    dy     = (1 + b) / 2 S (-du) + sqrt(b) dW                   |dW|^2 = -du in each coordinate
    dlog w = 1/2 (|S|^2 - sum_m beta_m |s_m|^2) (-du)

In these coordinates noising has no drift, every `q_m` obeys `d q / du = 1/2 laplacian q`, and the two equations follow
`prod_m q_m^beta_m` for every `b >= 0`: noise and half as much drift along `S` leave it alone. Exact for short steps;
what knows its energies is better served by `relative_to` and `simulators.smc_sampler`, whose weights are exact for
steps of any length. (Skreta et al., Feynman-Kac correctors in diffusion, 2025.)
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree, static
from ..paths import GaussianPath
from ..paths._base import Scalar
from ..processes import PredictFn
from ._compose import product_path


@frozen_pytree
class FeynmanKacProduct:
    """What `simulators.smc_sampler` needs to follow `prod_m q_m^beta_m` by scores, with a `psi_fn` of zero.

    `marginals` is the path of each `q_m`, whose schedule has `alpha_0 > 0` (variance exploding); `predict_fn(x, t)`
    gives the scores `grad_x log q_m(x, t)`, `[len(powers), *shape]`. `noise` is `b`: the more of it the more even the
    weights and the shorter the steps must be. Particles start from the Gaussian that the product is where noise is
    large; `mean(exp(log_weight))` is `Z / exp(log_z_start)`. A step costs one call.
    Raises `ValueError` for `alpha_0 = 0`, negative noise, and powers whose sum is not positive.
    """

    marginals: GaussianPath
    powers: tuple[float, ...] = static()
    noise: float | jax.Array = dataclasses.field(default=4.0, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.noise, (int, float)) and self.noise < 0:
            raise ValueError(f"noise: at least 0, got {self.noise}")
        product_path(self.marginals, self.powers)
        alpha, _ = self.marginals.coefficients(0.0)
        if not isinstance(alpha, jax.core.Tracer) and np.any(np.asarray(alpha) <= 0):
            raise ValueError("marginals: alpha must be positive at t=0, as where the variance explodes")

    @property
    def path(self) -> GaussianPath:
        """The narrower path whose prior the particles start from."""
        return product_path(self.marginals, self.powers)

    @property
    def log_z_start(self) -> jax.Array:
        """`log` of the integral of `N(mean, V)^B`, `B` the sum of the powers, `V` the variance at `t=0`."""
        total = math.fsum(self.powers)
        _, std = self.marginals.reference_moments(0.0)
        log_v = jnp.broadcast_to(2.0 * jnp.log(std), self.marginals.shape)
        return -0.5 * jnp.sum((total - 1.0) * (math.log(2.0 * math.pi) + log_v) + math.log(total))

    def step(
        self, key: jax.Array, xt: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> tuple[jax.Array, jax.Array]:
        """`x_s`, and the increment of its log-weight."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (
            self.marginals.coefficients(t),
            self.marginals.coefficients(s),
        )
        # variances of the reference; rate, drift and noise are integrated as if its score were all there is
        wide, narrow = (
            (std / alpha) ** 2 + jnp.square(self.marginals.scale)
            for alpha, std in ((alpha_t, sigma_t), (alpha_s, sigma_s))
        )
        log_ratio = jnp.broadcast_to(jnp.minimum(jnp.log(narrow / wide), 0.0), xt.shape)
        scores = alpha_t * predict_fn(xt, t)
        powers = jnp.asarray(self.powers, dtype=float).reshape(-1, *(1,) * xt.ndim)
        total = jnp.sum(powers * scores, axis=0)
        pull = 0.5 * math.fsum(self.powers) * (1.0 + self.noise)
        drift = 0.5 * (1.0 + self.noise) * total * wide * _one_minus_exp(pull, log_ratio)
        variance = self.noise * narrow * _one_minus_exp(2.0 * pull - 1.0, log_ratio)
        noise = jnp.sqrt(variance) * jax.random.normal(key, xt.shape, dtype=xt.dtype)
        rate = 0.5 * (jnp.square(total) - jnp.sum(powers * jnp.square(scores), axis=0))
        return alpha_s * (xt / alpha_t + drift + noise), -jnp.sum(rate * wide * log_ratio)


def _one_minus_exp(power: jax.Array | float, log_ratio: jax.Array) -> jax.Array:
    """`(1 - exp(power log_ratio)) / power`; `-log_ratio` for a power of zero."""
    power = jnp.asarray(power, dtype=float)
    safe = jnp.where(power == 0, 1.0, power)
    return jnp.where(power == 0, -log_ratio, -jnp.expm1(safe * log_ratio) / safe)
