"""Networks for a fixed order of the sites: each row looks at earlier sites only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# rows in one product: enough to be fast, few enough that little of it is masked
ROWS = 64


class SymbolNet(nn.Module, kw_only=True):
    """What networks of a fixed order share: how symbols enter, and what is symmetric."""

    num_states: int = 2
    width: int = 32
    depth: int = 1
    odd: bool = False
    equivariant: bool = False

    def _check(self) -> None:
        if self.odd and (self.num_states != 2 or self.equivariant):
            raise ValueError(
                f"odd: needs num_states=2 and nothing else to be symmetric, got {self.num_states} states"
                f" and equivariant={self.equivariant}"
            )

    @property
    def _inputs_of_a_place(self) -> int:
        return self.num_states if self.num_states > 2 and not self.equivariant else 1

    @property
    def _outputs(self) -> int:
        return (
            self._inputs_of_a_place
        )  # of two states one number tells, and of symbols apart each has its own

    @property
    def _channels(self) -> int:
        return self.num_states if self.equivariant else 1

    def _values(self, x: jax.Array) -> jax.Array:
        """Inputs `[..., s, k m]` of symbols `[..., k]`: a spin, a one-hot symbol, or `s` indicators; of masks zeros."""
        if self.equivariant:
            return jnp.swapaxes(jax.nn.one_hot(x, self.num_states), -1, -2)
        if self.num_states == 2:
            return jnp.where(x < 2, 2.0 * x - 1.0, 0.0)[..., None, :]
        one_hot = jax.nn.one_hot(x, self.num_states)
        return one_hot.reshape(*one_hot.shape[:-2], 1, -1)

    def _logits(self, found: jax.Array) -> jax.Array:
        """Logits `[..., S]` of outputs `[..., s, outputs]`."""
        logits = found.reshape(*found.shape[:-2], -1)
        if self.num_states == 2 and not self.equivariant:
            logits = jnp.concatenate([-0.5 * logits, 0.5 * logits], axis=-1)
        return logits


class _Perceptrons(SymbolNet, kw_only=True):
    """What `SiteMLPs` and `OrderedMLPs` share: all but the first product, for the places that a row sees."""

    def _declare(self, num: int, inputs_shape: Callable[[int], tuple[int, ...]], fan_in: Any) -> None:
        """Parameters of `num` rows; `inputs_shape(outputs)` is the shape of a linear map of the places seen."""
        self._check()
        zeros = nn.initializers.zeros

        def first_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.normal(key, shape) / jnp.sqrt(fan_in)

        hidden_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))
        outputs = self._outputs
        self.first = self.param("kernel_0", first_init, inputs_shape(self.width))
        self.first_bias = None if self.odd else self.param("bias_0", zeros, (num, self.width))
        layers = []
        for n in range(1, self.depth):
            shape = (num, self.width, self.width)
            bias = None if self.odd else self.param(f"bias_{n}", zeros, (num, self.width))
            mean = self.param(f"mean_{n}", zeros, shape) if self.equivariant else None
            layers.append((self.param(f"kernel_{n}", hidden_init, shape), mean, bias))
        self.layers = layers
        self.head = self.param("head", zeros, (num, self.width, outputs))
        self.skip = self.param("skip", zeros, inputs_shape(outputs))
        # an offset common to all symbols is none
        has_offset = not (self.odd or self.equivariant)
        self.offset = self.param("offset", zeros, (num, outputs)) if has_offset else None

    def _finish(self, pre: jax.Array, linear: jax.Array, which: Any) -> jax.Array:
        """Logits `[..., S]` of the rows `which` from the first product `[..., s, width]` and the linear term."""

        def times(kernel: jax.Array, a: jax.Array) -> jax.Array:
            return jnp.einsum("...sk,...kh->...sh", a, kernel[which])

        def active(a: jax.Array, bias: jax.Array | None) -> jax.Array:
            return nn.tanh(a if bias is None else a + jnp.expand_dims(bias[which], -2))

        h = active(pre, self.first_bias)
        for kernel, mean, bias in self.layers:
            new = times(kernel, h)
            if mean is not None:
                new = new + times(mean, jnp.mean(h, axis=-2, keepdims=True))
            h = active(new, bias)
        logits = times(self.head, h) + linear
        if self.offset is not None:
            logits = logits + jnp.expand_dims(self.offset[which], -2)
        return self._logits(logits)


class SiteMLPs(_Perceptrons):
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
    times that for one-hot symbols, with no work for sites outside the contexts; where contexts are all earlier sites
    `OrderedMLPs` is faster. Symbols meet in the mean, so with `equivariant` a depth of one leaves the logit of each a
    function of its own places. Raises `ValueError` where `odd` and there are more than two states, or both.
    """

    contexts: Any

    def setup(self) -> None:
        self.table = np.asarray(self.contexts)
        num, size = self.table.shape
        inputs = size * self._inputs_of_a_place
        self._declare(num, lambda outputs: (num, inputs, outputs), inputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """All rows, `[num_sites, S]`."""
        return self.row(x, slice(None))

    def row(self, x: jax.Array, i: Any) -> jax.Array:
        """Row `i`, `[S]`."""
        table = jnp.asarray(self.table)[i]
        z = self._values(jnp.where(table >= 0, x[jnp.where(table >= 0, table, 0)], self.num_states))
        first, linear = (jnp.einsum("...sk,...kh->...sh", z, kernel[i]) for kernel in (self.first, self.skip))
        return self._finish(first, linear, i)

    def rows(self, params: Any, x: jax.Array, start: int, stop: int) -> Callable[[jax.Array, Any], jax.Array]:
        """As `OrderedMLPs.rows`; here nothing is computed in advance."""
        return lambda y, i: self.apply(params, y, i, method="row")  # type: ignore[return-value]


class OrderedMLPs(_Perceptrons):
    """`SiteMLPs` whose row `i` looks at all earlier sites, `sites[:i]`: the same rows from few large matrix products.

        pre_i = sum_(j < i) z_j W1_(j i)        for i in a block of rows, j before the block: one product
                                                for i and j in the block: one more, masked

    `sites`: integers `[num_sites]`, by ranks of their own. `apply(params, x)` is all rows, `[num_sites, S]`. For
    roll-outs `rows(params, x, start, stop)` gives rows of a block one by one, given its sums over sites before it.
    Costs `num_sites^2 width / 2` a state for either and has twice as many parameters as it uses; with 288 sites, on
    one core, a ninth of the time of `SiteMLPs` for roll-outs and a third for gradients. Raises `ValueError` as it does.
    """

    sites: Any

    def setup(self) -> None:
        num, many = len(self.sites), self._inputs_of_a_place
        # of what a row sees, not of what it could
        fan_in = np.maximum(1, np.arange(num))[None, :, None] * many
        self._declare(num, lambda outputs: (num * many, num, outputs), fan_in)

    def __call__(self, x: jax.Array) -> jax.Array:
        """All rows, `[num_sites, S]`."""
        num = len(self.sites)
        parts = []
        for start in range(0, num, ROWS):
            stop = min(start + ROWS, num)
            seen = np.arange(stop)[:, None] < np.arange(start, stop)
            parts.append(self._finish(*self._sums(x, start, stop, seen), slice(start, stop)))
        return jnp.concatenate(parts)

    def before(self, x: jax.Array, start: int, stop: int) -> tuple[jax.Array, jax.Array]:
        """Sums `[rows, s, width]` and `[rows, s, outputs]` of rows `start` to `stop` over the sites before `start`."""
        return self._sums(x, start, stop, np.ones((start, stop - start), bool))

    def row(
        self, x: jax.Array, i: Any, start: int, stop: int, before: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        """Row `i`, `[S]`, of those from `start` to `stop`, given their sums."""
        many = self._inputs_of_a_place
        seen = np.arange(start, stop) < i
        z = self._values(x[jnp.asarray(self.sites)[start:stop]]) * jnp.repeat(seen, many)[None]
        pre, linear = (
            sums[i - start] + z @ kernel[start * many : stop * many, i]
            for sums, kernel in zip(before, (self.first, self.skip), strict=True)
        )
        return self._finish(pre, linear, i)

    def rows(self, params: Any, x: jax.Array, start: int, stop: int) -> Callable[[jax.Array, Any], jax.Array]:
        """`(y, i) -> [S]`, row `i` of these, at states `y` that agree with `x` before `start`."""
        before = self.apply(params, x, start, stop, method="before")
        return lambda y, i: self.apply(params, y, i, start, stop, before, method="row")  # type: ignore[return-value]

    def _sums(self, x: jax.Array, start: int, stop: int, seen: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Both linear maps of rows `start` to `stop`; `seen [k, rows]` says which of the first `k` sites they see."""
        many = self._inputs_of_a_place
        z = self._values(x[jnp.asarray(self.sites)[: len(seen)]])
        mask = np.repeat(seen, many, axis=0)[..., None]
        first, linear = (
            jnp.einsum("sk,knh->nsh", z, jnp.where(mask, kernel[: len(mask), start:stop], 0))
            for kernel in (self.first, self.skip)
        )
        return first, linear
