"""The mixture path: each site keeps its symbol with probability `kappa_i(t)`, else shows a draw of the prior.

    p_{t|r}(x | y)  =  rho 1{x = y} + (1 - rho) prior(x),      rho = kappa_t / kappa_r,     per site
    reference: the prior itself, which the chain leaves alone; p_{t|r} is reversible under it

so the reference posterior of `x_r` given `x_t` is the noising kernel again, and `psi` is the log-density
relative to independent draws of the prior.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..states import Categorical
from ._base import Path, Scalar, as_time, check_times
from ._masked import _log, _nonzero
from ._schedules import Linear, MixtureSchedule, derivative


@frozen_pytree
class MixturePath(Path):
    """`sites` symbols of `num_states` values; `prior [num_states]` are positive probabilities, `None` is uniform.

    Raises `ValueError` for a concrete `prior` of another shape.
    """

    schedule: MixtureSchedule = Linear()
    prior: jax.Array | None = None
    sites: int = static(default=1)
    num_states: int = static(default=2)

    def __post_init__(self) -> None:
        shape = tuple(getattr(self.prior, "shape", (self.num_states,)))
        if shape[-1:] != (self.num_states,):
            raise ValueError(f"prior: expected {self.num_states} probabilities, got shape {shape}")

    @property
    def space(self) -> Categorical:
        return Categorical(self.sites, self.num_states)

    @property
    def log_prior(self) -> jax.Array:
        """Log-probabilities of the prior, `[num_states]`."""
        if self.prior is None:
            return jnp.full((self.num_states,), -math.log(self.num_states), dtype=float)
        return jax.nn.log_softmax(jnp.log(jnp.asarray(self.prior, dtype=float)))

    def kappa(self, t: Scalar) -> jax.Array:
        """`kappa_i(t)`, `[sites]`."""
        return jnp.broadcast_to(self.schedule.kappa(as_time(t)), (self.sites,))

    def loss_rate(self, t: Scalar) -> jax.Array:
        """`kappa'_i / kappa_i`, `[sites]`: the rate at which the noising chain, seen backwards, redraws a site."""
        kappa, slope = derivative(self.kappa, t)
        return slope / _nonzero(kappa)

    def sample_prior(self, key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, self.log_prior, shape=(self.sites,)).astype(jnp.int32)

    def prior_log_prob(self, x0: jax.Array) -> jax.Array:
        return self.log_reference(x0, 0.0)

    def sample(self, key: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        key_keep, key_symbol = jax.random.split(key)
        keep = jax.random.uniform(key_keep, (self.sites,)) < self.keep_prob(t, r)
        return jnp.where(keep, xr, self.sample_prior(key_symbol))

    def interpolate(self, key: jax.Array, x0: jax.Array, x1: jax.Array, t: Scalar) -> jax.Array:
        """Each site of `x_1` with probability `kappa_i(t)`, else that of `x_0`."""
        return jnp.where(jax.random.uniform(key, (self.sites,)) < self.kappa(t), x1, x0)

    def log_prob(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        keep, prior = self.keep_prob(t, r), jnp.exp(self.log_prior)[xt]
        return jnp.sum(_log(keep * (xt == xr) + (1.0 - keep) * prior))

    def log_reference(self, x: jax.Array, t: Scalar) -> jax.Array:
        return jnp.sum(self.log_prior[x])

    def propose(self, key: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        return self.sample(key, xt, t, r)

    def propose_log_prob(self, xr: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        return self.log_prob(xr, xt, t, r)

    def reflect(self, xr: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`2 x_t - x_r` modulo `S`: keeps `x_t`, and permutes the other symbols, which are equally likely.

        Raises `ValueError` for a prior other than `None`, and for `S = 2`, where only one other symbol is left.
        """
        check_times(t, r)
        if self.prior is not None:
            raise ValueError("prior: a reflection needs the uniform prior, None")
        if self.num_states == 2:
            raise ValueError("num_states: with two symbols no reflection keeps x_t and moves anything")
        return (2 * xt - xr) % self.num_states

    def bridge(
        self, key: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, s: Scalar, r: Scalar = 1.0
    ) -> jax.Array:
        check_times(t, s)
        check_times(s, r)
        logits = _log(self.likelihood(xt, t, s)) + _log(self.transition(xr, s, r))
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)

    # -- what processes on this path are built from -------------------------------------------------------

    def keep_prob(self, t: Scalar, r: Scalar) -> jax.Array:
        """`rho_i = kappa_i(t) / kappa_i(r)`, `[sites]`; 0 for a site whose clock has not started at `r`."""
        return self.kappa(t) / _nonzero(self.kappa(r))

    def likelihood(self, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`p_{t|r}(x_t[i] | y)` for every symbol `y`, `[sites, num_states]`."""
        keep = self.keep_prob(t, r)[:, None]
        here = xt[:, None] == jnp.arange(self.num_states)[None, :]
        return keep * here + (1.0 - keep) * jnp.exp(self.log_prior)[xt][:, None]

    def transition(self, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`p_{t|r}(y | x_r[i])` for every symbol `y`, `[sites, num_states]`."""
        keep = self.keep_prob(t, r)[:, None]
        here = xr[:, None] == jnp.arange(self.num_states)[None, :]
        return keep * here + (1.0 - keep) * jnp.exp(self.log_prior)[None, :]
