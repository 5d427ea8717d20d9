"""A replay buffer of finished roll-outs with their log-weights: first in, first out, fixed capacity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..simulators import Rollout


class BufferState(NamedTuple):
    """`x [capacity, ...]`, `log_weight [capacity]` and `psi [capacity]` (empty slots have weight zero)."""

    x: Any
    log_weight: jax.Array
    psi: jax.Array
    position: jax.Array


class ReplayBuffer(NamedTuple):
    """`init(example) -> state`, `add(state, rollouts, psi) -> state`, `draw(key, state, num, temper) -> x`.

    The log-weight kept for each sample is that of its roll-out relative to the reference, apart from `psi`,
    so the target may be tempered after the fact: `log w = temper * psi + log_weight`.
    """

    init: Callable[[Any], BufferState]
    add: Callable[[BufferState, Rollout, jax.Array], BufferState]
    draw: Callable[..., Any]


def replay_buffer(capacity: int, *, weighted: bool) -> ReplayBuffer:
    """Keeps the newest `capacity` samples. `weighted` draws proportionally to the weights, else uniformly.

    Draws are systematic, so each sample comes up its expected number of times to within one. Raises
    `ValueError` for a capacity below one.
    """
    if capacity < 1:
        raise ValueError(f"capacity: at least 1, got {capacity}")

    def init(example: Any) -> BufferState:
        x = jax.tree.map(lambda a: jnp.zeros((capacity, *a.shape), a.dtype), example)
        empty = jnp.full((capacity,), -jnp.inf)
        return BufferState(x, empty, jnp.zeros((capacity,)), jnp.zeros((), jnp.int32))

    def add(state: BufferState, rollouts: Rollout, psi: jax.Array) -> BufferState:
        num = psi.shape[0]
        if num > capacity:
            raise ValueError(f"rollouts: {num} do not fit into a buffer of capacity {capacity}")
        slots = (state.position + jnp.arange(num)) % capacity
        put = lambda old, new: old.at[slots].set(new)  # noqa: E731
        return BufferState(
            jax.tree.map(put, state.x, rollouts.x),
            put(state.log_weight, rollouts.log_weight),
            put(state.psi, psi),
            (state.position + num) % capacity,
        )

    def draw(key: jax.Array, state: BufferState, num: int, temper: jax.Array) -> Any:
        filled = state.log_weight > -jnp.inf
        if weighted:
            log_w = temper * state.psi + state.log_weight
            log_w = jnp.where(filled & jnp.isfinite(log_w), log_w, -jnp.inf)
            # nothing usable yet: any sample will do
            log_w = jnp.where(jnp.any(jnp.isfinite(log_w)), log_w, jnp.where(filled, 0.0, -jnp.inf))
        else:
            log_w = jnp.where(filled, 0.0, -jnp.inf)
        weight = jax.nn.softmax(log_w)
        cumulative = jnp.cumsum(weight)
        points = (jnp.arange(num) + jax.random.uniform(key)) / num * cumulative[-1]
        last = jnp.max(jnp.where(weight > 0, jnp.arange(capacity), 0))  # rounding may carry a point past it
        index = jnp.minimum(jnp.searchsorted(cumulative, points, side="right"), last)
        return jax.tree.map(lambda a: a[index], state.x)

    return ReplayBuffer(init, add, draw)
