"""One perceptron for all sites of an order, whose products are masked."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ._cached import CachedNet


class MaskedMLP(CachedNet):
    """MADE (Germain et al., 2015): logits `[num_sites, S]` of `sites`, row `i` from the symbols at `sites[:i]`.

        h_i = tanh(sum_(j < i) W1_(j i) z_j),  h_i = tanh(sum_(j <= i) W_(j i) h_j) ...,
        logits_i = sum_(j <= i) V_(j i) h_j + sum_(j < i) U_(j i) z_j

    Each row has `width` hidden units in each layer and uses those of all rows before it too, which those of
    `OrderedMLPs` do not. `z`, what starts at zero, `odd` and `equivariant` (with means over symbols in hidden layers)
    are as in `SiteMLPs`. `apply(params, x)` is all rows; `decode` is for roll-outs and remembers hidden units: all rows
    one by one cost what they cost at once, `num_sites^2 width (1 + (depth - 1) width / 2)` products a state. Twice as
    many parameters as are used. Raises `ValueError` as `SiteMLPs` does.
    """

    def setup(self) -> None:
        self._check()
        num, many = len(self.sites), self._inputs_of_a_place
        zeros = nn.initializers.zeros

        def kernel(name: str, inputs: int, earlier: int, outputs: int | None = None) -> jax.Array:
            """Of row `i` from `inputs` numbers of each of `i + earlier` places; zero where it makes `outputs`."""
            if outputs is not None:
                return self.param(name, zeros, (num * inputs, num, outputs))
            fan_in = inputs * np.maximum(1, np.arange(num) + earlier)[None, :, None]
            shape = (num * inputs, num, self.width)
            return self.param(name, lambda key: jax.random.normal(key, shape) / jnp.sqrt(fan_in))

        def bias(name: str, size: int) -> jax.Array:
            return self.param(name, zeros, (num, size))

        hidden = range(1, self.depth)
        self.kernels = [kernel("kernel_0", many, 0), *(kernel(f"kernel_{n}", self.width, 1) for n in hidden)]
        means = [kernel(f"mean_{n}", self.width, 1, self.width) if self.equivariant else None for n in hidden]
        self.means = [None, *means]
        self.biases = [None if self.odd else bias(f"bias_{n}", self.width) for n in range(self.depth)]
        self.head = kernel("head", self.width, 1, self._outputs)
        self.skip = kernel("skip", many, 0, self._outputs)
        # an offset common to all symbols is none
        self.offset = None if self.odd or self.equivariant else bias("offset", self._outputs)

    @property
    def features(self) -> tuple[int, ...]:
        return (self.width,) * self.depth

    def advance(self, x: jax.Array, memory: Any, first: Any, size: int) -> tuple[jax.Array, Any]:
        num = memory[0].shape[1]
        places, rows = jnp.arange(num)[:, None], first + jnp.arange(size)[None]
        symbols_seen, units_seen = places < rows, places <= rows

        def times(kernel: jax.Array, a: jax.Array, seen: jax.Array) -> jax.Array:
            kernel = jax.lax.dynamic_slice_in_dim(kernel[: a.shape[-1]], first, size, axis=1)
            mask = jnp.repeat(seen, a.shape[-1] // num, axis=0)[..., None]
            return jnp.einsum("sk,knh->snh", a, jnp.where(mask, kernel, 0))

        def plus(a: jax.Array, bias: jax.Array | None) -> jax.Array:
            return a if bias is None else a + jax.lax.dynamic_slice_in_dim(bias, first, size)[None]

        z = self._values(x[jnp.asarray(self.sites)[:num]])
        memory = list(memory)
        h, seen = z, symbols_seen
        for n, (kernel, mean, bias) in enumerate(zip(self.kernels, self.means, self.biases, strict=True)):
            new = times(kernel, h, seen)
            if mean is not None:
                new = new + times(mean, jnp.mean(h, axis=0, keepdims=True), seen)
            new = nn.tanh(plus(new, bias)).astype(memory[n].dtype)
            memory[n] = jax.lax.dynamic_update_slice_in_dim(memory[n], new, first, axis=1)
            h, seen = memory[n].reshape(len(z), -1), units_seen
        found = times(self.head, h, seen) + times(self.skip, z, symbols_seen)
        return self._logits(jnp.swapaxes(plus(found, self.offset), 0, 1)), memory
