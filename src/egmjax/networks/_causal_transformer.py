"""A transformer over the sites of an order, which knows of their places by displacements only."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ._cached import CachedNet


class CausalTransformer(CachedNet):
    """Strictly causal attention between `sites`: logits `[num_sites, S]`, row `i` from the symbols at `sites[:i]`.

        a_ij = exp(l_ij) / (1 + sum_(j < i) exp(l_ij)),    l_ij = q(u_i) . (k(u_j) + K z_j) / sqrt(d) + B[c(i, j)]
        u_i += g_i * O sum_(j < i) a_ij (v(u_j) + V z_j)                                for each head, and then
        u_i += W2 (g'_i * tanh(W1 u_i)),    logits_i = H u_i

    A row `u_i` knows of its own place and of the symbols before it; the symbol of its own site enters as a key and a
    value, for later rows only. The one in the denominator is an attention to nothing: without it the first row would
    have nothing to attend to, and a sum over places could only be a mean. `c(i, j)` is the number of a pair of sites in
    `displacements [sites, sites]`, e.g. `paths.displacements(points, period)`: pairs with equal numbers share the bias
    `B` (relative positions: Shaw et al., 2018; Raffel et al., 2020), so there are parameters for each displacement, not
    for each site. An order breaks translation; gates `g = 1 + sum_(j < i) G[c(i, j)]`, and what `u_i` starts from, are
    functions of the displacements at which there are earlier sites, equal for sites with equal surroundings. Without
    `displacements` no two pairs are alike, for energies that tell places apart.

    `z`, `num_states`, `odd` and `equivariant` are as in `SiteMLPs`: `odd` has no biases and starts from `u = 0`, so
    weights are even and values odd; `equivariant` has a row `u` for each symbol and their mean in each layer. `u`
    enters products as `u / sqrt(1 + mean(u^2))`. `apply(params, x)` is all rows; `decode` remembers keys and values, so
    that all rows one by one cost what they cost at once, `8 depth num_sites width^2 + depth num_sites^2 width` products
    a state; gradients keep `depth num_sites^2 heads` numbers. Raises `ValueError` as `SiteMLPs` does, and where `heads`
    do not divide `width` or `displacements` are not of all sites.
    """

    displacements: Any = None
    heads: int = 4

    def setup(self) -> None:
        self._check()
        if self.width % self.heads:
            raise ValueError(f"heads: expected a divisor of the width {self.width}, got {self.heads}")
        self.pairs, self.known = _relations(np.asarray(self.sites), self.displacements)
        num_pairs, inputs, width = self.known.shape[1], self._inputs_of_a_place, self.width
        zeros, dense = nn.initializers.zeros, nn.initializers.lecun_normal()
        of_places = nn.initializers.normal(1 / np.sqrt(len(self.sites)))
        self.start = None if self.odd else self.param("start", of_places, (num_pairs, width))

        def layer(n: int) -> dict[str, jax.Array]:
            shapes: dict[str, Any] = {
                "bias": (zeros, (num_pairs, self.heads)),
                "symbol_value": (dense, (inputs, width)),
                "out": (dense, (width, width)),
                "gate": (zeros, (num_pairs, width)),
                "up": (dense, (width, 2 * width)),
                "up_gate": (zeros, (num_pairs, 2 * width)),
                "down": (dense, (2 * width, width)),
            }
            if self._remembered(n):
                shapes["content"] = dense, (width, 3 * width)
                shapes["symbol_key"] = dense, (inputs, width)
            if not self.odd:
                shapes["up_bias"] = zeros, (2 * width,)
            if self.equivariant:
                shapes["mean"] = zeros, (width, 2 * width)
            return {name: self.param(f"{name}_{n}", *init) for name, init in shapes.items()}

        self.layers = [layer(n) for n in range(self.depth)]
        self.head = self.param("head", zeros, (width, self._outputs))
        has_offset = not (self.odd or self.equivariant)
        self.offset = self.param("offset", zeros, (self._outputs,)) if has_offset else None

    def _remembered(self, layer: int) -> int:
        """Numbers of a row that a layer keeps, a key and a value; where odd rows still are zero there is none."""
        return 0 if self.odd and layer == 0 else 2 * self.width

    @property
    def features(self) -> tuple[int, ...]:
        return tuple(self._remembered(n) for n in range(self.depth))

    def advance(self, x: jax.Array, memory: Any, first: Any, size: int) -> tuple[jax.Array, Any]:
        num = memory[0].shape[1]
        seen = jnp.arange(num)[None] < first + jnp.arange(size)[:, None]
        pairs, known = (
            jax.lax.dynamic_slice_in_dim(jnp.asarray(a), first, size) for a in (self.pairs, self.known)
        )
        z = self._values(x[jnp.asarray(self.sites)[:num]])
        z = z.reshape(len(z), num, -1)
        u = jnp.zeros((len(z), size, self.width))
        if self.start is not None:
            u = u + (known @ self.start)[None]
        memory = list(memory)
        for n, layer in enumerate(self.layers):
            scores = jnp.moveaxis(layer["bias"][pairs[:, :num]], -1, 0)[None]  # [1, heads, rows, places]
            if self._remembered(n):
                query, new = jnp.split(_scaled(u) @ layer["content"], [self.width], axis=-1)
                memory[n] = jax.lax.dynamic_update_slice_in_dim(
                    memory[n], new.astype(memory[n].dtype), first, axis=1
                )
                key, value = (self._by_head(a) for a in jnp.split(memory[n], 2, axis=-1))
                query = self._by_head(query) * (self.heads / self.width) ** 0.5
                of_symbols = jnp.einsum("srhe,mhe->shrm", query, self._by_head(layer["symbol_key"]))
                scores = scores + jnp.einsum("srhe,sjhe->shrj", query, key)
                scores = scores + jnp.einsum("shrm,sjm->shrj", of_symbols, z)
            weights = _attention(scores, seen[None, None])
            weights = jnp.broadcast_to(weights, (len(z), *weights.shape[1:]))
            of_symbols = jnp.einsum("shrj,sjm->srhm", weights, z)
            found = jnp.einsum("srhm,mhe->srhe", of_symbols, self._by_head(layer["symbol_value"]))
            if self._remembered(n):
                found = found + jnp.einsum("shrj,sjhe->srhe", weights, value)
            u = u + (found.reshape(u.shape) @ layer["out"]) * (1 + known @ layer["gate"])[None]
            v = _scaled(u)
            hidden = v @ layer["up"]
            if not self.odd:
                hidden = hidden + layer["up_bias"][None, None]
            if self.equivariant:
                hidden = hidden + jnp.mean(v, axis=0, keepdims=True) @ layer["mean"]
            u = u + (nn.tanh(hidden) * (1 + known @ layer["up_gate"])[None]) @ layer["down"]
        found = u @ self.head
        if self.offset is not None:
            found = found + self.offset[None, None]
        return self._logits(jnp.swapaxes(found, 0, 1)), memory

    def _by_head(self, a: jax.Array) -> jax.Array:
        return a.reshape(*a.shape[:-1], self.heads, -1)


def _scaled(u: jax.Array) -> jax.Array:
    """Of a bounded norm; linear where `u` is small, so that a weak field stays weak."""
    return u * jax.lax.rsqrt(1 + jnp.mean(u**2, axis=-1, keepdims=True))


def _attention(scores: jax.Array, seen: jax.Array) -> jax.Array:
    """Softmax over the places seen and one more, of score 0, which is left out."""
    scores = jnp.where(seen, scores, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.maximum(jnp.max(scores, axis=-1, keepdims=True), 0))
    weights = jnp.exp(scores - top)
    return weights / (jnp.exp(-top) + jnp.sum(weights, axis=-1, keepdims=True))


def _relations(sites: np.ndarray, displacements: Any) -> tuple[np.ndarray, np.ndarray]:
    """Numbers `[row, earlier row]` of displacements that occur, and how often each does in a row, `[row, number]`."""
    num = len(sites)
    if displacements is None:
        table = np.arange(num**2).reshape(num, num)
    else:
        table = np.asarray(displacements)
        if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) <= sites.max():
            raise ValueError(
                f"displacements: expected numbers of all pairs of sites, got {list(table.shape)}"
            )
        table = table[np.ix_(sites, sites)]
    row, earlier = np.tril_indices(num, -1)
    used, number = np.unique(table[row, earlier], return_inverse=True)
    pairs = np.zeros((num, num), int)
    pairs[row, earlier] = number
    known = np.zeros((num, max(1, len(used))), np.float32)
    np.add.at(known, (row, number), 1)
    return pairs, known
