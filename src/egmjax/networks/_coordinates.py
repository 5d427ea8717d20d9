"""One perceptron for all real coordinates, which see each other through means."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..states import Real
from ._features import time_features


class CoordinateMLP(nn.Module):
    """`apply(params, x, t)` for one state of a `Real` space; zero at initialisation.

    Each coordinate has `width` features, from its value, a learned embedding of its index and the time. Blocks are
    `h_i + W silu(W' silu(h_i) + W'' mean_j silu(h_j))` with weights shared by all coordinates (deep sets, Zaheer et
    al., 2017; the embeddings make it general). For energies whose coordinates are much alike, or hardly depend on each
    other: what one coordinate learns serves all, and none has to learn to leave the others out. Energies of strong
    pairs want a `ResidualMLP`. `scale` divides the inputs; `output_shape` is that of the state, with trailing axes if
    any. `dtype` is that of the products in the blocks; see `networks`. Cost: `2 depth dim width^2` multiplications.
    Raises `ValueError` for another space or output.
    """

    space: Real
    output_shape: tuple[int, ...]
    width: int = 32
    depth: int = 2
    scale: float = 1.0
    embedding: int = 8
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Any, t: jax.Array) -> jax.Array:
        if not isinstance(self.space, Real):
            raise ValueError(f"space: expected Real, got {self.space}")
        if tuple(self.output_shape[: len(self.space.shape)]) != tuple(self.space.shape):
            raise ValueError(f"output_shape: must begin with {self.space.shape}, got {self.output_shape}")
        num = math.prod(self.space.shape)
        index = self.param("embedding", nn.initializers.normal(1.0), (num, self.embedding))
        inputs = jnp.concatenate([jnp.ravel(x)[:, None] / self.scale, index], axis=1)
        h = nn.Dense(self.width)(inputs) + nn.Dense(self.width)(time_features(t))[None]
        for _ in range(self.depth):
            active = nn.silu(h)
            common = nn.Dense(self.width, use_bias=False, dtype=self.dtype)(jnp.mean(active, axis=0))
            out, own = (nn.Dense(self.width, dtype=self.dtype) for _ in range(2))
            h = h + out(nn.silu(own(active) + common[None]))
        tail = math.prod(self.output_shape) // num
        return nn.Dense(tail, kernel_init=nn.initializers.zeros)(nn.silu(h)).reshape(self.output_shape)
