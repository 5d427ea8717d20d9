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

StepFn = Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]


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
        # of two states one number tells, and of symbols apart each has its own
        return self._inputs_of_a_place

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

    def _declare(self, num: int, places_fn: Callable[[str, Any, int], Any]) -> None:
        """Parameters of `num` rows; `places_fn(name, init_fn, outputs)` those of a linear map of the places seen."""
        self._check()
        zeros = nn.initializers.zeros

        def scaled(key: jax.Array, shape: tuple[int, ...], fan_in: Any) -> jax.Array:
            return jax.random.normal(key, shape) / jnp.sqrt(fan_in)

        hidden_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))
        outputs = self._outputs
        self.first = places_fn("kernel_0", scaled, self.width)
        self.first_bias = None if self.odd else self._of_rows("bias_0", zeros, num, self.width)
        layers = []
        for n in range(1, self.depth):
            shape = (num, self.width, self.width)
            bias = None if self.odd else self._of_rows(f"bias_{n}", zeros, num, self.width)
            mean = self._of_rows(f"mean_{n}", zeros, *shape) if self.equivariant else None
            layers.append((self._of_rows(f"kernel_{n}", hidden_init, *shape), mean, bias))
        self.layers = layers
        self.head = self._of_rows("head", zeros, num, self.width, outputs)
        self.skip = places_fn("skip", lambda key, shape, fan_in: jnp.zeros(shape), outputs)
        # an offset common to all symbols is none
        has_offset = not (self.odd or self.equivariant)
        self.offset = self._of_rows("offset", zeros, num, outputs) if has_offset else None

    def _of_rows(self, name: str, init_fn: Any, num: int, *shape: int) -> jax.Array:
        """Parameters `[num, *shape]`, some for each row."""
        return self.param(name, init_fn, (num, *shape))

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
        self._declare(
            num, lambda name, init_fn, outputs: self.param(name, init_fn, (num, inputs, outputs), inputs)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """All rows, `[num_sites, S]`."""
        return self.row(x, slice(None))

    def row(self, x: jax.Array, i: Any) -> jax.Array:
        """Row `i`, `[S]`."""
        table = jnp.asarray(self.table)[i]
        z = self._values(jnp.where(table >= 0, x[jnp.where(table >= 0, table, 0)], self.num_states))
        first, linear = (jnp.einsum("...sk,...kh->...sh", z, kernel[i]) for kernel in (self.first, self.skip))
        return self._finish(first, linear, i)

    def decode(self, params: Any, x: jax.Array, memory: Any, start: int, stop: int) -> tuple[Any, StepFn]:
        """As `OrderedMLPs.decode`; here nothing is computed in advance."""
        return None, lambda memory, y, i: (self.apply(params, y, i, method="row"), None)  # type: ignore[return-value]


class OrderedMLPs(_Perceptrons):
    """`SiteMLPs` whose row `i` looks at all earlier sites, `sites[:i]`: the same rows from few large matrix products.

        pre_i = sum_(j < i) z_j W1_(j i)        for i in a block of rows, j before the block: one product
                                                for i and j in the block: one more, masked

    `sites`: integers `[num_sites]` by rank. `apply(params, x)` is all rows, `[num_sites, S]`. For roll-outs
    `decode(params, x, None, start, stop)` has rows one by one, given their sums over sites before `start`; those from
    `start` to `stop` must lie in one of the blocks of `block_size`, which have parameters of their own.
    Costs `num_sites^2 width / 2` a state for either; with 288 sites, on one core, a ninth of the time of `SiteMLPs`
    for roll-outs and a third for gradients. Where the target looks alike from all sites, so do their rows:

        W1_(j i) = a_(j i) (C_kind(j i) + own W_(j i))        V_i = C_kind(i) + own V_i        ...

    with `tied`, a `paths.TiedRows`, e.g. of `paths.tie_by_displacement`: what rows have in common is learned from all
    of them, and a small `own` has what is left change slowly; `a` has them learn of near places before far ones. Any
    row can still be anything. Raises `ValueError` as `SiteMLPs`, for `tied` of another number of rows and for rows
    that are not in one block.
    """

    sites: Any
    block_size: int = ROWS
    tied: Any = None
    own: float = 0.05

    def setup(self) -> None:
        num = len(self.sites)
        if self.tied is not None and self.tied.pair.shape != (num, num):
            raise ValueError(f"tied: expected {num} rows, got {len(self.tied.row)}")
        self.bounds = [(start, min(start + self.block_size, num)) for start in range(0, num, self.block_size)]
        self._declare(num, self._of_places)

    def _of_places(self, name: str, init_fn: Any, outputs: int) -> list[Callable[[], jax.Array]]:
        """Kernels `[places, rows, outputs]`, one for each block of rows; made when asked for: a step needs none."""
        num, many, tied = len(self.sites), self._inputs_of_a_place, self.tied
        seen = np.maximum(1, np.arange(num))  # what a row sees, not what it could
        if tied is not None:
            row, place = np.nonzero(np.tri(num, k=-1))
            pairs = tied.pair[row, place]
            fan_in = np.bincount(pairs, seen[row]) / np.maximum(1, np.bincount(pairs))
            kinds = max(1, len(fan_in))
            fan_in = many * np.maximum(1, np.pad(fan_in, (0, kinds - len(fan_in))))
            shared = self.param(f"{name}_shared", init_fn, (kinds, many, outputs), fan_in[:, None, None])

        def block(start: int, stop: int) -> Callable[[], jax.Array]:
            shape = (stop * many, stop - start, outputs)
            fan_in = many * seen[None, start:stop, None]
            kernel = self.param(f"{name}_from_{start}", init_fn, shape, fan_in)
            if tied is None:
                return lambda: kernel
            pair, weight = (a[start:stop, :stop].T for a in (tied.pair, tied.weight))

            def tie() -> jax.Array:
                common = jnp.moveaxis(shared[pair], 2, 1).reshape(shape)
                scale = jnp.asarray(np.repeat(weight, many, axis=0)[..., None], float)
                return scale * (common + self.own * kernel)

            return tie

        return [block(*bounds) for bounds in self.bounds]

    def _of_rows(self, name: str, init_fn: Any, num: int, *shape: int) -> jax.Array:
        own = super()._of_rows(name, init_fn, num, *shape)
        if self.tied is None:
            return own
        shared = self.param(f"{name}_shared", init_fn, (int(self.tied.row.max()) + 1, *shape))
        return shared[self.tied.row] + self.own * own

    def __call__(self, x: jax.Array) -> jax.Array:
        """All rows, `[num_sites, S]`."""
        parts = []
        for start, stop in self.bounds:
            seen = np.arange(stop)[:, None] < np.arange(start, stop)
            parts.append(self._finish(*self._sums(x, start, seen), slice(start, stop)))
        return jnp.concatenate(parts)

    def prepare(self, x: jax.Array, start: int, stop: int) -> list[tuple[jax.Array, jax.Array]]:
        """For rows `start` to `stop`, of either linear map: sums `[rows, s, outputs]` over the sites before `start`,
        and kernels `[places, rows, outputs]` of the sites from there on."""
        many = self._inputs_of_a_place
        block, row = divmod(start, self.block_size)
        sums = self._sums(x, start, np.ones((start, stop - start), bool))
        within = np.s_[start * many : stop * many, row : row + stop - start]
        return [(done, kernels[block]()[within]) for done, kernels in zip(sums, (self.first, self.skip))]

    def row(self, x: jax.Array, i: Any, start: int, stop: int, prepared: Any) -> jax.Array:
        """Row `i`, `[S]`, of those from `start` to `stop`, as they were prepared."""
        seen = jnp.repeat(np.arange(start, stop) < i, self._inputs_of_a_place)
        z = self._values(x[jnp.asarray(self.sites)[start:stop]]) * seen[None]
        pre, linear = (sums[i - start] + z @ kernel[:, i - start] for sums, kernel in prepared)
        return self._finish(pre, linear, i)

    def decode(self, params: Any, x: jax.Array, memory: Any, start: int, stop: int) -> tuple[Any, StepFn]:
        """`(memory, step)`, and `step(memory, y, i) -> ([S], memory)`, row `i` of those from `start` to `stop`.

        At states `y` that agree with `x` before `start`. See `processes.SitewisePredictor`; this one has no memory.
        """
        prepared = self.apply(params, x, start, stop, method="prepare")

        def step(memory: Any, y: jax.Array, i: Any) -> tuple[jax.Array, Any]:
            return self.apply(params, y, i, start, stop, prepared, method="row"), None  # type: ignore[return-value]

        return None, step

    def _sums(self, x: jax.Array, start: int, seen: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Both linear maps of rows from `start` on; `seen [k, rows]` says which of the first `k` sites they see."""
        many = self._inputs_of_a_place
        block, row = divmod(start, self.block_size)
        if row + seen.shape[1] > self.block_size:
            raise ValueError(
                f"stop: rows {start} to {start + seen.shape[1]} are not in one block of {self.block_size}"
            )
        z = self._values(x[jnp.asarray(self.sites)[: len(seen)]])
        mask = np.repeat(seen, many, axis=0)[..., None]
        first, linear = (
            jnp.einsum(
                "sk,knh->nsh", z, jnp.where(mask, kernels[block]()[: len(mask), row : row + seen.shape[1]], 0)
            )
            for kernels in (self.first, self.skip)
        )
        return first, linear
