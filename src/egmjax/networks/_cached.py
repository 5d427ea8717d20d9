"""Networks of a fixed order whose rows share hidden units: what one row has computed, later ones use."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ._causal import ROWS, StepFn, SymbolNet


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
        num, memory = len(self.sites), None
        parts = []
        for first in range(0, num, ROWS):
            size = min(ROWS, num - first)
            logits, memory = self.advance(x, self._grown(memory, first + size), first, size)
            parts.append(logits)
        return jnp.concatenate(parts)

    def _grown(self, memory: Any, num: int) -> Any:
        """The memory with room for `num` rows; `None` is that of none."""
        if memory is None:
            return [jnp.zeros((self._channels, num, size)) for size in self.features]
        return [jnp.pad(a, ((0, 0), (0, num - a.shape[1]), (0, 0))) for a in memory]

    def decode(self, params: Any, x: jax.Array, memory: Any, start: int, stop: int) -> tuple[Any, StepFn]:
        """As `OrderedMLPs.decode`, for `n = start, start + 1, ...` in turn, each of which is computed once.

        `memory` is that of the rows before `start`, `None` where there are none; `x` is not needed.
        """

        def step(memory: Any, y: jax.Array, n: Any) -> tuple[jax.Array, Any]:
            found, memory = self.apply(params, y, memory, n, 1, method="advance")
            return found[0], memory

        return self._grown(memory, stop), step
