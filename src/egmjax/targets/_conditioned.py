"""A target with some of its coordinates given: the rest of the state, under the same energy.

    E(y) = E_base(merge(y)),     log Z = log of the sum or integral over the free coordinates alone

so `log Z - log Z_base` is the log-probability (log-density, for real coordinates) of what is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree, static
from ..states import Categorical, Real, Space
from ._base import Target
from ._clamped import clamped_log_mean, clamped_sample
from ._ising import Ising
from ._potts import Potts
from ._spin_glass import SpinGlass
from ._torus_transfer import OutOfReachError

__all__ = ["Conditioned", "conditioned"]

SOLVABLE = (Ising, Potts, SpinGlass)


@frozen_pytree
class Conditioned(Target):
    """`base` at fixed `values`, one flat array for each component; `free` are the indices that are left.

    Values are leaves and may be swept, which sites are free is static. Build it with `conditioned`, which checks.
    """

    base: Target
    values: tuple[jax.Array, ...]
    free: tuple[tuple[int, ...], ...] = static()

    @property
    def space(self) -> Space:
        """`Categorical` of the free sites, `Real` of the free coordinates, flat; for several components a tuple.

        Components with nothing free are left out, and a single one that remains is not wrapped in a tuple.
        """
        spaces = tuple(_restrict(s, len(f)) for s, f in zip(_components(self.base.space), self.free) if f)
        return spaces[0] if len(spaces) == 1 else spaces

    def merge(self, x: Any) -> Any:
        """The full state of `base` that the free part `x` stands for; `jax.vmap` it for samples."""
        parts = iter(x if isinstance(self.space, tuple) else (x,))
        merged = []
        for space, value, free in zip(_components(self.base.space), self.values, self.free):
            if free:
                part = next(parts)
                value = value.astype(part.dtype).at[np.array(free)].set(part)
            merged.append(value.reshape(space.shape) if isinstance(space, Real) else value)
        return tuple(merged) if isinstance(self.base.space, tuple) else merged[0]

    def split(self, x: Any) -> Any:
        """The free part of a full state of `base`; what is given is not compared."""
        states = x if isinstance(self.base.space, tuple) else (x,)
        parts = tuple(jnp.ravel(a)[np.array(free)] for a, free in zip(states, self.free) if free)
        return parts[0] if len(parts) == 1 else parts

    def energy(self, x: Any) -> jax.Array:
        """`E_base(merge(x))`, a scalar."""
        return self.base.energy(self.merge(x))

    def site_energies(self, x: Any) -> jax.Array:
        """The rows of the base's that belong to free sites, `[free sites, num_states]`, at the base's cost."""
        which = [i for i, s in enumerate(_components(self.base.space)) if isinstance(s, Categorical)]
        if len(which) != 1 or not self.free[which[0]]:
            return super().site_energies(x)
        return self.base.site_energies(self.merge(x))[np.array(self.free[which[0]])]

    @property
    def log_z(self) -> float | None:
        """Exact on solvable tori, by the transfer matrix with clamped sites; else `None`. See `clamped_log_mean`.

        `None` as well where so many sites are free that the transfer matrix is out of reach.
        """
        if not isinstance(self.base, SOLVABLE):
            return None
        try:
            log_mean = clamped_log_mean(self.base, self._masked)
        except OutOfReachError:
            return None
        return log_mean + len(self.free[0]) * math.log(self.base.space.num_states)

    def sample(self, key: jax.Array, num_samples: int) -> Any:
        """Independent exact draws of the free sites on solvable tori, else `None`, as for `log_z`."""
        if not isinstance(self.base, SOLVABLE):
            return None
        try:
            full = clamped_sample(key, self.base, self._masked, num_samples)
        except OutOfReachError:
            return None
        return jax.vmap(self.split)(full)

    @property
    def observables(self) -> Mapping[str, Callable[[Any], jax.Array]]:
        """Those of `base`, at the full state."""
        return {name: self._at(fn) for name, fn in self.base.observables.items()}

    def _at(self, fn: Callable[[Any], jax.Array]) -> Callable[[Any], jax.Array]:
        return lambda x: fn(self.merge(x))

    @property
    def _masked(self) -> np.ndarray:
        """The evidence of a categorical base as a state with masks."""
        masked = np.array(self.values[0])
        masked[list(self.free[0])] = self.base.space.num_states  # type: ignore[union-attr]
        return masked


def conditioned(target: Target, evidence: Any) -> Conditioned:
    """`target` given `evidence`, as a target on what is left free.

    Args:
        target: Any target.
        evidence: A state with gaps: for `Categorical` concrete integers `[sites]` with the mask (`num_states`) where a
            site is free; for `Real` concrete floats with `nan` where a coordinate is free; for a tuple a tuple of
            these, `None` for a component that is all free.

    Raises:
        ValueError: `evidence` has another structure, shape or kind than a state of `target`, a symbol outside
            `0..num_states`, an infinite number, or nothing free at all.

    Nothing is known exactly but log Z and samples of solvable tori with few enough free sites.
    """
    spaces = _components(target.space)
    given = evidence if isinstance(target.space, tuple) else (evidence,)
    if not isinstance(given, tuple) or len(given) != len(spaces):
        raise ValueError(f"evidence: expected a tuple of {len(spaces)} for a state of {target.space}")
    values, free = zip(*(_gaps(space, part) for space, part in zip(spaces, given)))
    if not any(free):
        raise ValueError("evidence: leaves nothing free")
    return Conditioned(target, values, free)


def _components(space: Space) -> tuple[Any, ...]:
    return space if isinstance(space, tuple) else (space,)


def _restrict(space: Space, num_free: int) -> Space:
    if isinstance(space, Categorical):
        return Categorical(num_free, space.num_states)
    return Real((num_free,))


def _gaps(space: Space, part: Any) -> tuple[jax.Array, tuple[int, ...]]:
    """`(values, free indices)` of one component, flat; gaps hold zero."""
    if not isinstance(space, (Real, Categorical)):
        raise ValueError(f"target: a tuple within a tuple cannot be conditioned, got {space}")
    shape = (space.sites,) if isinstance(space, Categorical) else space.shape
    if part is None:
        part = np.full(shape, space.num_states) if isinstance(space, Categorical) else np.full(shape, np.nan)
    part = np.asarray(part)
    kind = np.integer if isinstance(space, Categorical) else np.floating
    if part.shape != tuple(shape) or not np.issubdtype(part.dtype, kind):
        raise ValueError(f"evidence: expected a state of {space}, got {part.dtype}{list(part.shape)}")
    flat = part.reshape(-1)
    if isinstance(space, Categorical):
        if flat.min() < 0 or flat.max() > space.num_states:
            raise ValueError(
                f"evidence: expected symbols 0..{space.num_states - 1} and the mask {space.num_states}, "
                f"got {np.unique(flat)}"
            )
        is_free, dtype = flat == space.num_states, jnp.int32
    else:
        if np.isinf(flat).any():
            raise ValueError("evidence: a given coordinate must be finite")
        is_free, dtype = np.isnan(flat), float
    return jnp.asarray(np.where(is_free, 0, flat), dtype=dtype), tuple(map(int, np.flatnonzero(is_free)))
