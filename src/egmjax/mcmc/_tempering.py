"""Parallel tempering: copies at several temperatures that move by any kernel and exchange their states.

    pi(x_1 ... x_R)  ~  prod_r exp(-b_r E(x_r))
    move      x_r by a kernel that leaves exp(-b_r E) as it is
    exchange  x_r <-> x_{r+1} with probability min(1, exp((b_r - b_{r+1}) (E(x_r) - E(x_{r+1}))))

Exchanges of even and of odd pairs take turns (Swendsen and Wang, 1986; Geyer, 1991; Okabe et al., 2001), which carries
a state across the ladder faster than random pairs do (Syed et al., 2022). Moves and exchanges each leave `pi` as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["ParallelTempering", "TemperingInfo", "TemperingState", "parallel_tempering"]

ScaledMoveFn = Callable[[jax.Array, Any, jax.Array], Any]  # (key, x, b) -> x, leaves exp(-b E) as it is


class TemperingState(NamedTuple):
    """`position`: states stacked over the `R` scales, the first one's the target's; `parity`: the next pairs."""

    position: Any
    parity: jax.Array


class TemperingInfo(NamedTuple):
    """`acceptance [R - 1]`: probability of exchange of each pair of neighbours, nan where it was not its turn."""

    acceptance: jax.Array


class ParallelTempering(NamedTuple):
    """`init(position) -> state`, the one position at every scale, and `step(key, state) -> (state, info)`."""

    init: Callable[[Any], TemperingState]
    step: Callable[[jax.Array, TemperingState], tuple[TemperingState, TemperingInfo]]


def parallel_tempering(
    energy_fn: Callable[[Any], jax.Array], move_fn: ScaledMoveFn, scales: Any
) -> ParallelTempering:
    """A kernel for the densities `exp(-b energy_fn)`, `b` in `scales [R]`, of states of any kind.

    Args:
        energy_fn: One state `-> scalar`.
        move_fn: `(key, x, b) -> x`, e.g. a Gibbs sweep or Langevin moves, whose step may depend on `b`.
        scales: Falling positive numbers, the first one that of the law wanted (1 for `exp(-energy_fn)`).

    A step costs `R` moves and energies. Raises `ValueError` unless there are two scales or more and they fall.
    """
    ladder = np.asarray(scales, np.float64)
    if ladder.ndim != 1 or ladder.size < 2 or not np.all(np.diff(ladder) < 0) or not ladder[-1] > 0:
        raise ValueError(f"scales: expected at least two falling positive numbers, got {scales}")
    num = ladder.size

    def init(position: Any) -> TemperingState:
        stacked = jax.tree.map(lambda a: jnp.broadcast_to(jnp.asarray(a), (num, *jnp.shape(a))), position)
        return TemperingState(stacked, jnp.int32(0))

    def step(key: jax.Array, state: TemperingState) -> tuple[TemperingState, TemperingInfo]:
        key_move, key_swap = jax.random.split(key)
        b = jnp.asarray(ladder, dtype=float)
        x = jax.vmap(move_fn)(jax.random.split(key_move, num), state.position, b)
        energies = jax.vmap(energy_fn)(x)
        log_ratio = (b[:-1] - b[1:]) * (energies[:-1] - energies[1:])
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        turn = jnp.arange(num - 1) % 2 == state.parity
        swap = turn & (jnp.log(jax.random.uniform(key_swap, (num - 1,))) < log_ratio)
        # pairs of one parity are disjoint: the upper one looks down, the lower one up
        down, up = jnp.append(swap, False), jnp.append(False, swap)
        source = jnp.arange(num) + down - up
        x = jax.tree.map(lambda a: a[source], x)
        acceptance = jnp.where(turn, jnp.exp(jnp.minimum(log_ratio, 0.0)), jnp.nan)
        return TemperingState(x, 1 - state.parity), TemperingInfo(acceptance)

    return ParallelTempering(init, step)
