"""State spaces: what one state looks like.

    Real(shape)                      float array of that shape
    Categorical(sites, num_states)   int32 array [sites] with values 0..num_states-1; the mask is num_states
    (space, space, ...)              a tuple of states, one for each component

Library functions act on one state; batches come from `jax.vmap`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

__all__ = ["Categorical", "Real", "Space", "check_state", "example_state"]


@dataclasses.dataclass(frozen=True)
class Real:
    """R^shape; a state is a float array of shape `shape`, e.g. `Real((2,))` for the plane."""

    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Categorical:
    """`sites` symbols with `num_states` values each; a state is int32 `[sites]` in `0..num_states-1`.

    The value `num_states` is the mask. It appears in states at `t < 1` only and is never shown to an energy.
    """

    sites: int
    num_states: int


Space: TypeAlias = Real | Categorical | tuple["Space", ...]


def example_state(space: Space) -> Any:
    """A valid state of `space`: zeros. Raises `ValueError` where `space` is not a state space."""
    match space:
        case Real(shape):
            sizes = (shape,) if isinstance(shape, int) else tuple(shape)
            if not sizes or any(not isinstance(n, int) or n < 1 for n in sizes):
                raise ValueError(
                    f"space: Real needs a shape of positive integers, e.g. Real((2,)), got {space}"
                )
            return jnp.zeros(sizes, dtype=float)
        case Categorical(sites, num_states):
            if not isinstance(sites, int) or sites < 1 or not isinstance(num_states, int) or num_states < 2:
                raise ValueError(f"space: Categorical needs sites >= 1 and num_states >= 2, got {space}")
            return jnp.zeros((sites,), dtype=jnp.int32)
        case tuple() if len(space) > 0:
            return tuple(example_state(component) for component in space)
    raise ValueError(
        f"space: expected Real(shape), Categorical(sites, num_states) or a tuple of them, got {space!r}"
    )


def check_state(space: Space, x: Any, *, name: str = "x") -> None:
    """Raises `ValueError` naming `name` unless `x` has the structure, shape and kind of one state of `space`.

    Looks at shapes and dtypes only, so it may be called on tracers and on `jax.ShapeDtypeStruct`.
    """
    want, got = example_state(space), x
    if str(jax.tree.structure(want)) != str(jax.tree.structure(got)):
        raise ValueError(f"{name}: expected one state of {space}, got {_describe(got)}")
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got)):
        kind = jnp.floating if jnp.issubdtype(a.dtype, jnp.floating) else jnp.integer
        if tuple(a.shape) != tuple(jnp.shape(b)) or not jnp.issubdtype(jnp.result_type(b), kind):
            raise ValueError(f"{name}: expected one state of {space}, got {_describe(got)}")


def _describe(x: Any) -> str:
    try:
        return str(jax.tree.map(lambda a: f"{jnp.result_type(a)}{list(jnp.shape(a))}", x))
    except TypeError:
        return repr(type(x))
