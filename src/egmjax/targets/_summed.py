"""A target with its symbols summed out.

    E_S(y) = -log sum_d exp(-E(y, d)),     p(d | y) = exp(E_S(y) - E(y, d)),     log Z the same

Where symbols are few, a sampler of the rest completed by an exact draw of the symbols is one of the whole, with the
log-weights that it had: what `Integrated` does for Gaussian coordinates.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ..states import Categorical, Space
from ._base import Target
from ._enumeration import enumerate_states

__all__ = ["Summed", "summed"]

MAX_SUMMED = 2**12  # energies for one


@frozen_pytree
class Summed(Target):
    """`base`, on a tuple of spaces one of which is `Categorical`, without that component.

    Build it with `summed`, which checks. Nothing but log Z and samples are known exactly: observables and modes are
    those of the base at completed states.
    """

    base: Target

    @property
    def space(self) -> Space:
        """What remains; a single component is not wrapped in a tuple."""
        rest = self._others(self.base.space)
        return rest[0] if len(rest) == 1 else rest

    def energy(self, x: Any) -> jax.Array:
        """`E_S(x)`, a scalar, at the cost of `num_energies` energies of the base."""
        return -jax.nn.logsumexp(-self._energies(x))

    @property
    def num_energies(self) -> int:
        """The number of states of the symbols, `S ** sites`."""
        return self._symbols.num_states**self._symbols.sites

    def complete(self, key: jax.Array, x: Any) -> Any:
        """The full state with an exact draw of the symbols given `x`, for one state, at the cost of an energy."""
        return self._merge(x, self._states[jax.random.categorical(key, -self._energies(x))])

    def split(self, x: Any) -> Any:
        """What remains of a full state of the base."""
        rest = self._others(x)
        return rest[0] if len(rest) == 1 else rest

    @property
    def log_z(self) -> float | None:
        """That of the base."""
        return self.base.log_z

    def sample(self, key: jax.Array, num_samples: int) -> Any:
        """Draws of the base without their symbols, `None` where it has none."""
        full = self.base.sample(key, num_samples)
        return None if full is None else self.split(full)

    @property
    def num_particles(self) -> int | None:
        """That of the base: particles without their types are all alike."""
        return self.base.num_particles

    @property
    def _index(self) -> int:
        """Which component is summed out."""
        return _categorical(self.base.space)[0]

    @property
    def _symbols(self) -> Categorical:
        return self.base.space[self._index]  # type: ignore[index, return-value]

    @property
    def _states(self) -> jax.Array:
        return jnp.asarray(enumerate_states(self._symbols.sites, self._symbols.num_states))

    def _energies(self, x: Any) -> jax.Array:
        """Of the base at `x` with each state of the symbols, `[num_energies]`."""
        return jax.vmap(lambda d: self.base.energy(self._merge(x, d)))(self._states)

    def _others(self, parts: Any) -> Any:
        return (*parts[: self._index], *parts[self._index + 1 :])

    def _merge(self, x: Any, d: jax.Array) -> Any:
        rest = x if isinstance(self.space, tuple) else (x,)
        return (*rest[: self._index], d, *rest[self._index :])


def summed(target: Target) -> Summed:
    """`target` on what remains when its symbols are summed out.

    Raises `ValueError` unless its space is a tuple of which one component, and not all, is `Categorical`, with at most
    4,096 states.
    """
    which = _categorical(target.space)
    if not isinstance(target.space, tuple) or len(which) != 1 or len(target.space) < 2:
        raise ValueError(f"target: needs one categorical component and another one, got {target.space}")
    result = Summed(target)
    if result.num_energies > MAX_SUMMED:
        raise ValueError(
            f"target: {result.num_energies} states of its symbols are too many to sum for each energy ({MAX_SUMMED})"
        )
    return result


def _categorical(space: Space) -> list[int]:
    parts = space if isinstance(space, tuple) else (space,)
    return [i for i, part in enumerate(parts) if isinstance(part, Categorical)]
