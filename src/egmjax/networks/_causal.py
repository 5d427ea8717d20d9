"""A network of a fixed order of sites: each row looks at a few earlier sites and has parameters of its own."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class SiteMLPs(nn.Module):
    """One small perceptron a site: logits `[num_sites, S]` of `sites`, row `i` from the symbols at `contexts[i]`.

        h = tanh(W1_i z),  h = tanh(W_i h) ...,    logits_i = V_i h + U_i z

    `z` are the spins in {-1, 1} of two-valued sites, one-hot symbols of others; the linear term starts at zero and so
    does `V`. `odd=True` (two states only) leaves out all biases, so that the logits change sign with the spins and a
    symmetric target is sampled with both signs equally likely, exactly.

    `contexts`: integers `[num_sites, k]`, e.g. `paths.nearest_earlier`, `-1` where there is nothing. `apply(params, x)`
    is all rows, `apply(params, x, i, method="row")` the row `i`. As matrix products both cost `k width` a site, with no
    work for sites outside the contexts. Raises `ValueError` where `odd` and there are more than two states.
    """

    contexts: Any
    num_states: int = 2
    width: int = 32
    depth: int = 1
    odd: bool = False

    def setup(self) -> None:
        if self.odd and self.num_states != 2:
            raise ValueError(f"odd: needs num_states=2, got {self.num_states}")
        table = np.asarray(self.contexts)
        num, size = table.shape
        self.table = table
        inputs = size if self.num_states == 2 else size * self.num_states
        scale = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))
        zeros = nn.initializers.zeros
        outputs = 1 if self.num_states == 2 else self.num_states
        layers = []
        for n in range(self.depth):
            shape = (num, inputs if n == 0 else self.width, self.width)
            bias = None if self.odd else self.param(f"bias_{n}", zeros, (num, self.width))
            layers.append((self.param(f"kernel_{n}", scale, shape), bias))
        self.layers = layers
        self.head = self.param("head", zeros, (num, self.width, outputs))
        self.skip = self.param("skip", zeros, (num, inputs, outputs))
        self.offset = None if self.odd else self.param("offset", zeros, (num, outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """All rows, `[num_sites, S]`."""
        return self._evaluate(self._inputs(x, self.table), slice(None))

    def row(self, x: jax.Array, i: Any) -> jax.Array:
        """Row `i`, `[S]`."""
        return self._evaluate(self._inputs(x, jnp.asarray(self.table)[i]), i)

    def _inputs(self, x: jax.Array, table: Any) -> jax.Array:
        """`[..., k]` spins, or `[..., k S]` one-hot symbols; zeros for what is not there."""
        known = table >= 0
        values = x[jnp.where(known, table, 0)]
        if self.num_states == 2:
            return jnp.where(known, 2.0 * values - 1.0, 0.0)
        one_hot = jax.nn.one_hot(values, self.num_states) * known[..., None]
        return one_hot.reshape(*one_hot.shape[:-2], -1)

    def _evaluate(self, z: jax.Array, which: Any) -> jax.Array:
        def times(kernel: jax.Array, a: jax.Array) -> jax.Array:
            return jnp.einsum("...k,...kh->...h", a, kernel[which])

        h = z
        for kernel, bias in self.layers:
            h = times(kernel, h)
            h = nn.tanh(h if bias is None else h + bias[which])
        logits = times(self.head, h) + times(self.skip, z)
        if self.offset is not None:
            logits = logits + self.offset[which]
        if self.num_states == 2:
            logits = jnp.concatenate([-0.5 * logits, 0.5 * logits], axis=-1)
        return logits
