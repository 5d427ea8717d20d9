"""A target from a user's own function, checked when it is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._precision import highest
from .._pytree import frozen_pytree, static
from ..states import Categorical, Real, Space, example_state
from ._base import Target

__all__ = ["FromEnergy", "FromLogDensity", "check_energy", "from_energy", "from_log_density"]

NUM_REFERENCE_STATES = 16


@frozen_pytree
class FromEnergy(Target):
    """The target with energy `energy_fn` on `state_space`; build it with `from_energy`, which checks both."""

    energy_fn: Callable[[Any], jax.Array] = static()
    state_space: Space = static()

    @property
    def space(self) -> Space:
        """The space given."""
        return self.state_space

    def energy(self, x: Any) -> jax.Array:
        """`energy_fn(x)`, with products at the highest precision."""
        return highest(self.energy_fn)(x)


@frozen_pytree
class FromLogDensity(Target):
    """The target with energy `-log_density_fn(position)`; build it with `from_log_density`."""

    log_density_fn: Callable[[Any], jax.Array] = static()
    unravel_fn: Callable[[jax.Array], Any] = static()
    dim: int = static()

    @property
    def space(self) -> Real:
        """`Real((dim,))`, the ravelled position."""
        return Real((self.dim,))

    def energy(self, x: jax.Array) -> jax.Array:
        """`-log_density_fn(unravel(x))` for `x: [dim]`, a scalar; with products at the highest precision."""
        return -highest(self.log_density_fn)(self.unravel(x))

    def unravel(self, x: jax.Array) -> Any:
        """The position, a pytree shaped like the example, for `x: [dim]`."""
        return self.unravel_fn(x.astype(float))


def from_energy(energy_fn: Callable[[Any], jax.Array], space: Space) -> FromEnergy:
    """A target from `energy_fn(x) -> scalar`, with density `exp(-energy_fn(x))` on `space`.

    `energy_fn` acts on one state, must be traceable by jax and return a floating scalar; a non-finite
    energy means zero density. Raises `ValueError` as `check_energy` does.
    """
    check_energy(energy_fn, space)
    return FromEnergy(energy_fn, space)


def from_log_density(fn: Callable[[Any], jax.Array], example_position: Any) -> FromLogDensity:
    """A target from `fn(position) -> log density` (any additive constant), `energy = -fn`.

    Args:
        fn: Acts on one position; a floating scalar. A non-finite value means zero density.
        example_position: A pytree of floating arrays or numbers with the structure and shapes of a
        position; its
            values are not used.

    Raises:
        ValueError: `example_position` is empty or has leaves that are not floating, or `fn` fails the
        checks of
            `check_energy`.

    States of the target are flat, `Real((dim,))`; `target.unravel(x)` is the position.
    """
    leaves = jax.tree.leaves(example_position)
    if not leaves or not all(_is_floating(leaf) for leaf in leaves):
        kinds = [getattr(leaf, "dtype", type(leaf).__name__) for leaf in leaves]
        raise ValueError(f"example_position: expected a pytree of floating arrays, got leaves {kinds}")
    flat, unravel_fn = ravel_pytree(
        jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=float), example_position)
    )
    if flat.size == 0:
        raise ValueError("example_position: its arrays hold no elements")
    target = FromLogDensity(fn, unravel_fn, flat.size)
    _check(fn, lambda x: fn(target.unravel(x)), target.space, "fn")
    return target


def check_energy(energy_fn: Callable[[Any], jax.Array], space: Space) -> None:
    """Raises a one-sentence `ValueError` unless `energy_fn` is a usable energy on `space`.

    Refused: a `space` that is not a state space; an `energy_fn` that is not callable, fails on one state,
    does not return a scalar, does not return a floating number, or is non-finite at each of 16 reference
    states (standard normal for `Real`, uniform symbols for `Categorical`). Some non-finite values are
    accepted: they mean zero density. So is infinity at all of them where there are symbols, of which few states
    meet a hard constraint by chance. Cost: one trace and 16 evaluations.
    """
    _check(energy_fn, energy_fn, space, "energy_fn")


def _check(given: Any, function: Callable[[Any], jax.Array], space: Space, name: str) -> None:
    """`check_energy` for `function` on states, speaking of the argument `name`, whose value is `given`."""
    example = example_state(space)
    if not callable(given):
        raise ValueError(f"{name}: expected a function of one state, got {type(given).__name__}")
    try:
        out = jax.eval_shape(function, example)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{name}: failed on one state of space={space}: {reason}") from error
    if not isinstance(out, jax.ShapeDtypeStruct):
        raise ValueError(f"{name}: must return one scalar array, got {type(out).__name__}")
    if out.shape != ():
        raise ValueError(f"{name}: must return a scalar for one state, got shape {out.shape}")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"{name}: must return a floating number, got {out.dtype}")
    with jax.ensure_compile_time_eval():
        states = _reference_states(jax.random.key(0), space)
        values = jax.vmap(function)(states)
    if isinstance(values, jax.core.Tracer):
        return
    may_be_constrained = not isinstance(space, Real) and np.isposinf(values).all()
    if not np.isfinite(values).any() and not may_be_constrained:
        raise ValueError(
            f"{name}: not finite at any of {NUM_REFERENCE_STATES} reference states of space={space}"
        )


def _reference_states(key: jax.Array, space: Space) -> Any:
    """A batch of 16 states: standard normal, or uniform symbols."""
    match space:
        case Real(shape):
            return jax.random.normal(key, (NUM_REFERENCE_STATES, *shape))
        case Categorical(sites, num_states):
            return jax.random.randint(key, (NUM_REFERENCE_STATES, sites), 0, num_states, dtype=jnp.int32)
        case _:
            keys = jax.random.split(key, len(space))
            return tuple(_reference_states(k, component) for k, component in zip(keys, space))


def _is_floating(leaf: Any) -> bool:
    try:
        return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))
    except TypeError:
        return False
