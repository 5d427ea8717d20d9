"""Jumps along a Gaussian path with a predicted rate and landing law, the published parameterisation.

    prediction   [*shape, bins + 1]: logits of the landing law over bins, then the rate before softplus
    target       bins: rho J(b), the last entry: rho = [e^2 - r e - 1]_+, the rate in units of |sigma'| / sigma
    divergence   sum_i  rho' - rho + rho log(rho / rho') + rho KL(J | J')       (prime: predicted)
    step         a coordinate jumps by a rule of `paths.survival`, to a bin drawn from J', uniformly within its cell

The divergence is the generalised KL divergence of the intensities in polar form, weighted by `sigma / |sigma'|` so
that it stays finite up to `t = 1`. `J(b)` are exact masses `F(b) - F(a)`: densities at the centres of bins underflow
near `t = 1`, where the law is narrower than a bin. (Holderrieth et al., Generator Matching, eq. 270.) Rates do not say
from where a state would come back, so there are no weights. `GaussianJumpProcess` has them.
"""

from __future__ import annotations

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..generators import RealJump
from ..losses import jump_kl
from ..paths import GaussianPath
from ..paths._base import Scalar, as_time, check_times, is_one
from ..paths._jump_law import Survival, jump_coordinates, jump_rate, landing_masses, survival
from ..paths._schedules import derivative
from ._base import PredictFn, Process
from ._heads import BinnedHead

_NO_WEIGHTS = "RateJumpProcess has no backward kernel, hence no weights; GaussianJumpProcess has both"


@frozen_pytree
class RateJumpProcess(Process):
    """Predicted rates and landing laws on the bins of `grid`, uncertified: increments are `nan`.

    Landings beyond the bins go to the outer ones. `rule`: how a rate becomes the probability of a jump in a step of
    finite length; the corrected one forces a jump at the last step, whatever the rate. Raises `ValueError` for an
    unknown rule.
    """

    gaussian: GaussianPath
    grid: BinnedHead = dataclasses.field(default=BinnedHead())
    rule: Survival = static(default="corrected")

    def __post_init__(self) -> None:
        if self.rule not in get_args(Survival):
            raise ValueError(f"rule: expected one of {get_args(Survival)}, got {self.rule!r}")

    @property
    def path(self) -> GaussianPath:
        return self.gaussian

    @property
    def can_bootstrap(self) -> bool:
        return False

    def prediction_shape(self) -> tuple[int, ...]:
        return (*self.path.shape, self.grid.bins + 1)

    def target(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`(rho J, rho)`, `[*shape, bins + 1]`. Raises `ValueError` for an `r` known not to be 1."""
        check_times(t, r)
        if not is_one(r):
            raise ValueError("r: rates of jumps given x_r are a target at r=1 only")
        alpha, sigma = self.path.coefficients(t)
        e, pull, _ = jump_coordinates(self.path, xt, xr, t)
        edges = self.grid.in_units(self.path, self.grid.edges) - (alpha * xr)[..., None]
        sigma = jnp.broadcast_to(sigma, xt.shape)[..., None]
        masses = landing_masses(edges / sigma, jnp.broadcast_to(pull[..., None], edges.shape))
        rate = jump_rate(e, pull)[..., None]
        return jnp.concatenate([rate * masses, rate], axis=-1)

    def divergence(self, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        rate, aim = self.rate(prediction), target[..., -1]
        log_rate = jnp.log(jnp.maximum(rate, jnp.finfo(rate.dtype).tiny))
        law = target[..., :-1] / jnp.where(aim > 0, aim, 1.0)[..., None]
        return jump_kl(aim, law, log_rate, prediction[..., :-1])

    def rate(self, prediction: jax.Array) -> jax.Array:
        """The predicted rate in units of `|sigma'| / sigma`, shape of the state."""
        return jax.nn.softplus(prediction[..., -1])

    def generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> RealJump:
        """Landing at the centres of bins."""
        sigma, sigma_dot = derivative(self.path.schedule.sigma, as_time(t))
        speed = jnp.broadcast_to(-sigma_dot / sigma, self.path.shape)
        law = jax.nn.softmax(prediction[..., :-1], axis=-1)
        return RealJump((speed * self.rate(prediction))[..., None] * law, self.grid.atoms(self.path))

    def step(
        self,
        key: jax.Array,
        xt: jax.Array,
        predict_fn: PredictFn,
        t: Scalar,
        s: Scalar,
        prediction: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """`(x_s, nan)`."""
        raw = predict_fn(xt, t) if prediction is None else prediction
        key_bin, key_within, key_stay = jax.random.split(key, 3)
        chosen = jax.random.categorical(key_bin, raw[..., :-1], axis=-1)
        cell = chosen + jax.random.uniform(key_within, xt.shape, dtype=xt.dtype) - 0.5 * self.grid.bins
        land = self.path.mean + self.path.scale * self.grid.width * cell
        stay = survival(self.rate(raw), self.path, t, s, self.rule)
        jumps = jax.random.uniform(key_stay, xt.shape, dtype=xt.dtype) >= stay
        return jnp.where(jumps, land, xt).astype(xt.dtype), jnp.full((), jnp.nan, xt.dtype)

    def backward(
        self, key: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        raise NotImplementedError(_NO_WEIGHTS)

    def increment(
        self, key: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        raise NotImplementedError(_NO_WEIGHTS)
