"""What processes on a Gaussian path share: the path, and a head that says what is predicted and how it is learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from .._pytree import frozen_pytree
from ..paths import GaussianPath
from ..paths._base import Scalar
from ._base import Process
from ._heads import Head, ResidualHead


@frozen_pytree
class GaussianProcess(Process):
    """A process on a `GaussianPath`; kinds differ in how they move, `head` says what they predict."""

    gaussian: GaussianPath
    head: Head = dataclasses.field(default=ResidualHead(), kw_only=True)

    @property
    def path(self) -> GaussianPath:
        return self.gaussian

    @property
    def can_bootstrap(self) -> bool:
        return self.head.can_bootstrap

    def prediction_shape(self) -> tuple[int, ...]:
        return self.head.prediction_shape(self.path)

    def target(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        return self.head.target(self.path, xt, xr, t, r)

    def weighted_target(
        self, weights: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0
    ) -> jax.Array:
        return self.head.weighted_target(self.path, weights, xt, xr, t, r)

    def target_from_psi(
        self, xt: jax.Array, t: Scalar, psi_fn: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        return self.head.target_from_psi(self.path, xt, t, psi_fn)

    def residual(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """`(E[x_1 | x_t] - belief.mean) / belief.scale` that a raw prediction implies, shape of the state."""
        return self.head.residual(self.path, prediction, xt, t)

    def sample_endpoint(self, key: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        return self.head.sample_endpoint(key, self.path, prediction, xt, t)

    def endpoint_log_prob(self, x1: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        return self.head.endpoint_log_prob(self.path, x1, prediction, xt, t)

    def divergence(self, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        return self.head.divergence(self.path, target, prediction, xt, t)
