"""Networks for energies: from a network with an output the shape of the state to one scalar."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class InnerProduct(nn.Module):
    """`<x, field(x, t)>`, a scalar; `field` is any network whose output has the shape of the real state `x`.

    Its gradient, `field + (d field / dx)^T x`, is as expressive as the field itself, which a scalar on top of the last
    layer is not. Zero at initialisation where the field is. Costs one call of `field`.
    """

    field: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        return jnp.sum(x * self.field(x, t))  # type: ignore[operator]
