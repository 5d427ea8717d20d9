"""A translation-equivariant network on a square torus, from matrix multiplications.

A linear layer that commutes with translations is a circulant matrix: `y_j = sum_i W[(j - i) mod L] x_i`. Small
lattices build it whole; a finite `radius` gathers neighbourhoods instead. Either way the work is one dense
multiplication, which a CPU does far faster than a convolution, and an accelerator no slower.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype

from ._features import time_features


class LatticeDense(nn.Module):
    """`[sites, channels] -> [sites, features]`, translation-equivariant on the `length x length` torus.

    `radius=None` couples every pair of sites; otherwise offsets within `radius` in each direction. `dtype` is that of
    the product, for numbers that come and go in the type of `x` and of the parameters.
    """

    length: int
    features: int
    radius: int | None = None
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.radius is not None and self.radius < 0:
            raise ValueError(f"radius: at least 0, or None for all sites, got {self.radius}")
        sites, channels = self.length**2, x.shape[-1]
        full = self.radius is None or 2 * self.radius + 1 >= self.length
        offsets = _offsets(self.length, None if full else self.radius)
        num_offsets = sites if full else offsets.shape[0]
        kernel = self.param("kernel", self.kernel_init, (num_offsets * channels, self.features))
        kernel = kernel.reshape(num_offsets, channels, self.features)
        outside = jnp.result_type(x, kernel)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        if full:
            matrix = kernel[_differences(self.length)].transpose(0, 2, 1, 3)  # [from, channel, to, feature]
            # the compiler moves a gather out of a loop over calls of the network, but a transpose only behind a barrier
            matrix = jax.lax.optimization_barrier(matrix.reshape(sites * channels, sites * self.features))
            y = x.reshape(-1) @ matrix
            y = y.reshape(sites, self.features)
        else:
            y = x[_neighbours(self.length, offsets)].reshape(sites, -1) @ kernel.reshape(-1, self.features)
        y = y.astype(outside)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))[None, :]
        return y


class LatticeNet(nn.Module):
    """Denoiser logits `[sites, num_states]` on the torus; `apply(params, x, t)`.

    `use_time=False` drops `t`, which the denoiser of a masked path does not depend on.

    `odd=True` (two states only) makes the logit odd under a flip of all spins, so a symmetric target is
    sampled with both signs equally likely, exactly: inputs are spins in {-1, 0, 1}, layers have no bias, and
    what is even (which sites are known) enters as a gate.

    `apply(params, x, t, condition)` with `condition: float [k]` of order one shifts every layer's features, or gates
    where `odd`: one network for a family of energies. `dtype` is that of the lattice layers' products; see `networks`.
    """

    length: int
    num_states: int = 2
    width: int = 32
    depth: int = 2
    radius: int | None = None
    odd: bool = False
    use_time: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        if self.use_time:
            clock = time_features(t)
            condition = clock if condition is None else jnp.concatenate([clock, condition])
        if self.odd:
            return self._odd(x, condition)
        symbols = jax.nn.one_hot(x, self.num_states + 1)
        h = self._shifted(self._layer()(symbols), condition)
        for _ in range(self.depth - 1):
            h = h + self._layer()(nn.silu(h))
            h = self._shifted(h, condition)
        return nn.Dense(self.num_states, kernel_init=nn.initializers.zeros)(nn.silu(h))

    def _layer(self, use_bias: bool = True) -> LatticeDense:
        return LatticeDense(self.length, self.width, self.radius, use_bias=use_bias, dtype=self.dtype)

    def _shifted(self, h: jax.Array, condition: jax.Array | None) -> jax.Array:
        """Features `[sites, width]` plus a vector that depends on the condition."""
        return h if condition is None else h + nn.Dense(self.width, use_bias=False)(condition)[None, :]

    def _odd(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        if self.num_states != 2:
            raise ValueError(f"odd: needs num_states=2, got {self.num_states}")
        known = (x < 2).astype(float)[:, None]
        spin = (2.0 * x[:, None] - 1.0) * known

        h = self._layer(use_bias=False)(spin)
        g = self._layer()(known)
        for _ in range(self.depth - 1):
            a = nn.tanh(h) * nn.sigmoid(self._shifted(g, condition))
            h = h + self._layer(use_bias=False)(a)
        a = nn.tanh(h) * nn.sigmoid(self._shifted(g, condition))
        half = 0.5 * nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros)(a)
        return jnp.concatenate([-half, half], axis=-1)


def _offsets(length: int, radius: int | None) -> np.ndarray:
    reach = np.arange(length) if radius is None else np.arange(-radius, radius + 1)
    return np.stack(np.meshgrid(reach, reach, indexing="ij"), -1).reshape(-1, 2)


def _differences(length: int) -> np.ndarray:
    """`[from, to]` index of the offset `to - from` on the torus."""
    row, column = np.divmod(np.arange(length**2), length)
    down = (row[None, :] - row[:, None]) % length
    right = (column[None, :] - column[:, None]) % length
    return down * length + right


def _neighbours(length: int, offsets: np.ndarray) -> np.ndarray:
    row, column = np.divmod(np.arange(length**2), length)
    return (row[:, None] + offsets[:, 0]) % length * length + (column[:, None] + offsets[:, 1]) % length
