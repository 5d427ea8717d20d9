"""What processes on a Gaussian path share: what is predicted, and how it is learned.

prediction   residual eta, the endpoint in units of what the reference leaves open:
             E[x_1 | x_t] = belief.mean + belief.scale * eta
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from .._pytree import frozen_pytree
from ..losses import squared_error
from ..paths import GaussianPath
from ..paths._base import Scalar
from ..paths._gaussian import _normal_log_prob
from ._base import Process


@frozen_pytree
class GaussianProcess(Process):
    """A process on a `GaussianPath` that predicts the residual; flows and diffusions differ in how they move."""

    gaussian: GaussianPath

    @property
    def path(self) -> GaussianPath:
        return self.gaussian

    def prediction_shape(self) -> tuple[int, ...]:
        return self.path.shape

    def target(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`(endpoint - belief.mean) / belief.scale`, shape of the state."""
        belief = self.path.endpoint_belief(xt, t)
        return (self.path.endpoint(xt, xr, t, r) - belief.mean) / belief.scale

    def target_from_psi(
        self, xt: jax.Array, t: Scalar, psi_fn: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        """`cot(theta) grad_z psi`, by Tweedie's formula; infinite times zero at `alpha = 0`."""
        angle = self.path.angle(t)
        _, std = self.path.reference_moments(t)
        return angle.cos / angle.sin * std * jax.grad(psi_fn)(xt)

    def sample_endpoint(self, key: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """`N(belief.mean + belief.scale * eta, belief.scale^2)`."""
        belief = self.path.endpoint_belief(xt, t)
        noise = jax.random.normal(key, self.path.shape, dtype=xt.dtype)
        return belief.mean + belief.scale * (prediction + noise)

    def endpoint_log_prob(self, x1: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        belief = self.path.endpoint_belief(xt, t)
        return _normal_log_prob(x1, belief.mean + belief.scale * prediction, belief.scale**2)

    def divergence(self, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """Squared error: that of the endpoint over the variance of the reference's belief."""
        return squared_error(target, prediction)
