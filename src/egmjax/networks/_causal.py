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
    does `V`. Two networks know of symmetric targets, which are then sampled with all symbols alike, exactly:

        odd            two states: no biases, so that the logits change sign with the spins
        equivariant    any number: logits_i[s] = V_i h_s + U_i z_s,    z_s[j] = 1{x_j = s},
                       h_s = tanh(W1_i z_s + b),    h_s = tanh(W_i h_s + M_i mean_r h_r + b) ...
                       so that relabelled symbols have relabelled logits

    `contexts`: integers `[num_sites, k]`, e.g. `paths.nearest_earlier`, `-1` where there is nothing. `apply(params, x)`
    is all rows, `apply(params, x, i, method="row")` the row `i`. As matrix products both cost `k width` a site, `S`
    times that for one-hot symbols, with no work for sites outside the contexts. Symbols meet in the mean, so with
    `equivariant` a depth of one leaves the logit of each a function of its own places. Raises `ValueError` where `odd`
    and there are more than two states, or both.
    """

    contexts: Any
    num_states: int = 2
    width: int = 32
    depth: int = 1
    odd: bool = False
    equivariant: bool = False

    def setup(self) -> None:
        if self.odd and (self.num_states != 2 or self.equivariant):
            raise ValueError(
                f"odd: needs num_states=2 and nothing else to be symmetric, got {self.num_states} states"
                f" and equivariant={self.equivariant}"
            )
        table = np.asarray(self.contexts)
        num, size = table.shape
        self.table = table
        is_one_hot = self.num_states > 2 and not self.equivariant
        inputs = size * self.num_states if is_one_hot else size
        scale = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))
        zeros = nn.initializers.zeros
        outputs = self.num_states if is_one_hot else 1
        layers = []
        for n in range(self.depth):
            shape = (num, inputs if n == 0 else self.width, self.width)
            bias = None if self.odd else self.param(f"bias_{n}", zeros, (num, self.width))
            has_mean = self.equivariant and n > 0
            mean = self.param(f"mean_{n}", zeros, (num, self.width, self.width)) if has_mean else None
            layers.append((self.param(f"kernel_{n}", scale, shape), mean, bias))
        self.layers = layers
        self.head = self.param("head", zeros, (num, self.width, outputs))
        self.skip = self.param("skip", zeros, (num, inputs, outputs))
        # an offset common to all symbols is none
        has_offset = not (self.odd or self.equivariant)
        self.offset = self.param("offset", zeros, (num, outputs)) if has_offset else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """All rows, `[num_sites, S]`."""
        return self._evaluate(self._inputs(x, self.table), slice(None))

    def row(self, x: jax.Array, i: Any) -> jax.Array:
        """Row `i`, `[S]`."""
        return self._evaluate(self._inputs(x, jnp.asarray(self.table)[i]), i)

    def _inputs(self, x: jax.Array, table: Any) -> jax.Array:
        """`[..., 1, k]` spins or `[..., 1, k S]` one-hot symbols, or `[..., S, k]`; zeros for what is not there."""
        known = table >= 0
        values = x[jnp.where(known, table, 0)]
        if self.equivariant:
            return jax.nn.one_hot(values, self.num_states, axis=-2) * known[..., None, :]
        if self.num_states == 2:
            return jnp.where(known, 2.0 * values - 1.0, 0.0)[..., None, :]
        one_hot = jax.nn.one_hot(values, self.num_states) * known[..., None]
        return one_hot.reshape(*one_hot.shape[:-2], 1, -1)

    def _evaluate(self, z: jax.Array, which: Any) -> jax.Array:
        def times(kernel: jax.Array, a: jax.Array) -> jax.Array:
            return jnp.einsum("...sk,...kh->...sh", a, kernel[which])

        h = z
        for kernel, mean, bias in self.layers:
            new = times(kernel, h)
            if mean is not None:
                new = new + times(mean, jnp.mean(h, axis=-2, keepdims=True))
            h = nn.tanh(new if bias is None else new + jnp.expand_dims(bias[which], -2))
        logits = times(self.head, h) + times(self.skip, z)
        logits = logits.reshape(*logits.shape[:-2], -1)
        if self.offset is not None:
            logits = logits + self.offset[which]
        if self.num_states == 2 and not self.equivariant:
            logits = jnp.concatenate([-0.5 * logits, 0.5 * logits], axis=-1)
        return logits
