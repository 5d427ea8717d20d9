"""What jump processes of independent sites share: predictions, rates that are linear in the posterior, backward kernel.

posterior     D_i(z) = P(x_1[i] = z | x_t) of a raw prediction
intensities   Q[i, y] = sum_z D_i(z) Q^z[i, y], the rates given `x_1[i] = z` averaged
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..generators import Jump
from ..losses import cross_entropy
from ..paths import DiscretePath, MaskedPath, MixturePath
from ..paths._base import Scalar, is_one
from ..paths._masked import _log
from ._base import PredictFn, Process


@frozen_pytree
class JumpProcess(Process):
    """Sites that jump on their own given the state, backwards as the path's noising chain has it.

    `weighting` of the divergence: "rate" is that of the rates, "uniform" counts all sites alike. Raises `ValueError`
    for another one.
    """

    mixture: MaskedPath | MixturePath | DiscretePath
    weighting: Literal["rate", "uniform"] = static(default="rate")

    def __post_init__(self) -> None:
        if self.weighting not in ("rate", "uniform"):
            raise ValueError(f'weighting: expected "rate" or "uniform", got {self.weighting!r}')

    @property
    def is_reversal(self) -> bool:
        return True

    def prediction_shape(self) -> tuple[int, ...]:
        return (self.mixture.sites, self.mixture.num_states)

    def posterior(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """`log D_i(z)`, `[sites, S]`, of a raw prediction."""
        raise NotImplementedError

    def intensities(self, posterior: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """Off-diagonal rates `[sites, S]` for a posterior `D [sites, S]` of probabilities; linear in it."""
        raise NotImplementedError

    def conditional_target(
        self, xt: jax.Array, x1: jax.Array, t: Scalar, site_logits: jax.Array
    ) -> jax.Array:
        """`softmax(site_logits + log p_t(x_t[i] | z))`."""
        return jax.nn.softmax(site_logits + _log(self.path.likelihood(xt, t)))  # type: ignore[attr-defined]

    def sample_endpoint(self, key: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """Every site drawn from its `D_i`."""
        return jax.random.categorical(key, self.posterior(prediction, xt, t), axis=-1).astype(xt.dtype)

    def endpoint_log_prob(self, x1: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        log_posterior = self.posterior(prediction, xt, t)
        return jnp.sum(jnp.take_along_axis(log_posterior, x1[:, None], axis=-1))

    def divergence(self, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        log_posterior = self.posterior(prediction, xt, t)
        if self.weighting == "uniform":
            return jnp.sum(cross_entropy(target, log_posterior))
        # a log(a / b) - a + b without the terms of the target alone, which may be negative for r < 1
        aim = self.intensities(target, xt, t)
        rates = self.intensities(jnp.exp(log_posterior), xt, t)
        # a rate that underflows is as bad as the smallest number, not free
        return jnp.sum(rates - aim * jnp.log(jnp.maximum(rates, jnp.finfo(rates.dtype).tiny)))

    def generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Jump:
        return Jump(self.intensities(jnp.exp(self.posterior(prediction, xt, t)), xt, t))

    def log_ratios(self, predict_fn: PredictFn, xt: jax.Array, t: Scalar) -> jax.Array:
        """`log p_t(x_t[i <- y]) - log p_t(x_t)` of the model, `[sites, symbols]`; the mask counts as a symbol.

        For `generators.metropolis` and `generators.gibbs`.
        """
        raise NotImplementedError

    def weighted_target(
        self, weights: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0
    ) -> jax.Array:
        """At `r = 1` the indicators of `xr`, summed one symbol at a time and never stored."""
        if not is_one(r):
            return super().weighted_target(weights, xt, xr, t, r)
        counted = [weights @ (xr == y).astype(weights.dtype) for y in range(1, self.mixture.num_states)]
        first = jnp.sum(weights) - sum(counted)
        return jnp.stack([first, *counted], axis=-1)

    def backward(
        self, key: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        return self.mixture.sample(key, xs, t, s)
