"""Networks of a fixed order whose rows share hidden units: what one row has computed, later ones use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._causal import ROWS, SymbolNet


class CachedNet(SymbolNet):
    """A network of rows `advance(x, memory, first, size)`, which remembers hidden units of each row.

    The rows from `first` on, `[size, S]`, use what `memory` keeps of earlier ones, put theirs in it and return both.
    All rows are so many blocks, a row alone is a block of one. Leaves of a memory are `[s, rows, features]`.
    """

    sites: Any

    @property
    def features(self) -> tuple[int, ...]:
        """What is remembered of a row, one number for each leaf."""
        raise NotImplementedError

    def advance(self, x: jax.Array, memory: Any, first: Any, size: int) -> tuple[jax.Array, Any]:
        """Rows and memory; `first` may be traced."""
        raise NotImplementedError

    def __call__(self, x: jax.Array) -> jax.Array:
        """All rows, `[num_sites, S]`."""
        return jnp.concatenate(self._blocks(x, len(self.sites))[0])

    def remember(self, x: jax.Array, stop: int) -> Any:
        """The memory of the rows before `stop`."""
        return self._blocks(x, stop)[1]

    def _blocks(self, x: jax.Array, num: int) -> tuple[list[jax.Array], Any]:
        parts, memory = [], self._grown(None, 0)
        for first in range(0, num, ROWS):
            size = min(ROWS, num - first)
            logits, memory = self.advance(x, self._grown(memory, first + size), first, size)
            parts.append(logits)
        return parts, memory

    def _grown(self, memory: Any, num: int) -> Any:
        """The memory with room for `num` rows; `None` is that of none."""
        if memory is None:
            return [jnp.zeros((self._channels, num, size)) for size in self.features]
        return [jnp.pad(a, ((0, 0), (0, num - a.shape[1]), (0, 0))) for a in memory]

    def rows(self, params: Any, x: jax.Array, start: int, stop: int) -> Callable[[jax.Array, Any], jax.Array]:
        """As `OrderedMLPs.rows`; a row costs the whole block, `decode` is for one after another."""
        memory = self._grown(self.apply(params, x, start, method="remember"), stop)

        def row(y: jax.Array, n: Any) -> jax.Array:
            found, _ = self.apply(params, y, memory, start, stop - start, method="advance")
            return found[n - start]

        return row

    def decode(
        self, params: Any, memory: Any, start: int, stop: int
    ) -> tuple[Any, Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]]:
        """`(memory, step)`, and `step(memory, y, n) -> ([S], memory)` for `n = start, start + 1, ...` in turn.

        `memory` is that of the rows before `start`, `None` where there are none. Every row is computed once.
        """

        def step(memory: Any, y: jax.Array, n: Any) -> tuple[jax.Array, Any]:
            found, memory = self.apply(params, y, memory, n, 1, method="advance")
            return found[0], memory

        return self._grown(memory, stop), step
