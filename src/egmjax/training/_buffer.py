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


def replay_buffer(
    capacity: int,
    *,
    weighted: bool,
    min_ess_fraction: float = 0.0,
    group_fn: Callable[[Any], jax.Array] | None = None,
    num_groups: int = 1,
) -> ReplayBuffer:
    """Keeps the newest `capacity` samples. `weighted` draws proportionally to the weights, else uniformly.

    Draws are systematic, so each sample comes up its expected number of times to within one. While the weights
    `w` are so uneven that their ESS is below `min_ess_fraction` of the samples held, draws are proportional to
    `w^gamma` with the largest `gamma` in `[0, 1]` that reaches it: the model then moves towards the target by as much
    as its samples can carry, instead of collapsing onto a few of them.

    `group_fn(x)`, an integer in `0..num_groups-1` for one state, normalises the weights within each group, so that
    groups come up equally often: for amortised processes, whose weights at different conditions `c` are not
    comparable. A group may be a bin of a continuous `c`: within it the law of `c` is tilted by `Z(c)`, that of `x`
    given `c` is not. Groups without a usable weight are left out.

    Raises `ValueError` for a capacity or a number of groups below one, a fraction outside `[0, 1)`, or for groups
    without weights.
    """
    if capacity < 1:
        raise ValueError(f"capacity: at least 1, got {capacity}")
    if not 0 <= min_ess_fraction < 1:
        raise ValueError(f"min_ess_fraction: in [0, 1), got {min_ess_fraction}")
    if num_groups < 1:
        raise ValueError(f"num_groups: at least 1, got {num_groups}")
    if group_fn is not None and not weighted:
        raise ValueError("group_fn: there are no weights to normalise in a buffer drawn uniformly")

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
            if group_fn is not None:
                log_w = _normalize_within(log_w, jax.vmap(group_fn)(state.x), num_groups)
            # nothing usable yet: any sample will do
            log_w = jnp.where(jnp.any(jnp.isfinite(log_w)), log_w, jnp.where(filled, 0.0, -jnp.inf))
        else:
            log_w = jnp.where(filled, 0.0, -jnp.inf)
        if weighted and min_ess_fraction > 0:
            log_w = jnp.where(log_w > -jnp.inf, _largest_exponent(log_w, min_ess_fraction) * log_w, -jnp.inf)
        weight = jax.nn.softmax(log_w)
        cumulative = jnp.cumsum(weight)
        points = (jnp.arange(num) + jax.random.uniform(key)) / num * cumulative[-1]
        last = jnp.max(jnp.where(weight > 0, jnp.arange(capacity), 0))  # rounding may carry a point past it
        index = jnp.minimum(jnp.searchsorted(cumulative, points, side="right"), last)
        return jax.tree.map(lambda a: a[index], state.x)

    return ReplayBuffer(init, add, draw)


def _largest_exponent(log_w: jax.Array, min_ess_fraction: float) -> jax.Array:
    """The largest `gamma <= 1` at which `w^gamma` has that ESS among the finite weights, by bisection to 1e-5."""
    held = log_w > -jnp.inf
    shifted = jnp.where(held, log_w - jnp.max(log_w), 0.0)
    wanted = min_ess_fraction * jnp.sum(held)

    def reaches(gamma: jax.Array) -> jax.Array:
        w = jnp.where(held, jnp.exp(gamma * shifted), 0.0)
        return jnp.sum(w) ** 2 >= wanted * jnp.sum(w**2)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        good = reaches(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    low, _ = jax.lax.fori_loop(0, 17, halve, (jnp.zeros(()), jnp.ones(())))
    return jnp.where(reaches(jnp.ones(())), 1.0, low)


def _normalize_within(log_w: jax.Array, group: jax.Array, num_groups: int) -> jax.Array:
    """`log_w` less the log-sum of its group; -inf stays."""
    top = jax.ops.segment_max(log_w, group, num_groups)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    total = jax.ops.segment_sum(jnp.exp(log_w - top[group]), group, num_groups)
    return log_w - top[group] - jnp.log(jnp.where(total > 0, total, 1.0))[group]
