"""A component that is given and never moves: `x_t = x_1 = c` at every time.

In a product it carries a condition (an inverse temperature, an observation, a label) that energies and networks see.
All its log-probabilities are zero: densities are *given* `c`, and so is every weight, `E[w | c] = Z(c)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..states import Space
from ._base import Path, Scalar


@frozen_pytree
class GivenPath(Path):
    """`sample_fn(key)` draws a condition, one state of `state_space`; both static."""

    sample_fn: Callable[[jax.Array], Any] = static()
    state_space: Space = static()

    @property
    def space(self) -> Space:
        return self.state_space

    def sample_prior(self, key: jax.Array) -> Any:
        return self.sample_fn(key)

    def prior_log_prob(self, x0: Any) -> jax.Array:
        return jnp.zeros(())

    def sample(self, key: jax.Array, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return xr

    def log_prob(self, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """0 where both are the same, else -inf."""
        same = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.all(a == b), xt, xr))
        return jnp.where(jnp.all(jnp.stack(same)), 0.0, -jnp.inf)

    def log_reference(self, x: Any, t: Scalar) -> jax.Array:
        return jnp.zeros(())

    def propose(self, key: jax.Array, xt: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return xt

    def reflect(self, xr: Any, xt: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        raise ValueError("path: a given component has no symmetry that moves anything")

    def bridge(self, key: jax.Array, xt: Any, xr: Any, t: Scalar, s: Scalar, r: Scalar = 1.0) -> Any:
        return xt
