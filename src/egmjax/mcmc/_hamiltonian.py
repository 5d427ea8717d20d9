"""Hamiltonian chains of a rough density on R^d that start from noise (Duane et al., 1987).

    p ~ N(0, I);   p += h/2 grad log pi(x),  x += h p,  p += h/2 grad log pi(x)  num_leapfrog times;   accept or stay

Noise may lie where the density is too steep for any trajectory, e.g. where particles overlap, so chains first go
straight up for steps of one length, whatever the slope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._precision import highest

__all__ = ["NUM_ASCENTS", "NUM_BURN_IN", "HamiltonianChain", "hamiltonian_chain"]

NUM_ASCENTS, NUM_BURN_IN = 200, 100


class HamiltonianChain(NamedTuple):
    """Two pure functions of one chain; map them over many.

    `start(key, x) -> x`, out of noise: `NUM_ASCENTS` steps up and `NUM_BURN_IN` trajectories. `advance(key, x, num) ->
    (x, acceptance)`, the state after `num` trajectories and the mean of their acceptance probabilities; it leaves the
    density as it is. `num_start` and `num_advance` count gradients of a start and of one trajectory.
    """

    start: Callable[[jax.Array, jax.Array], jax.Array]
    advance: Callable[[jax.Array, jax.Array, int], tuple[jax.Array, jax.Array]]
    num_start: int
    num_advance: int


def hamiltonian_chain(
    log_density_fn: Callable[[jax.Array], jax.Array], *, step_size: float, num_leapfrog: int = 25
) -> HamiltonianChain:
    """A chain with trajectories of `num_leapfrog` steps of length `step_size`, in units of `x`, and unit masses.

    Raises `ValueError` for a `step_size` that is not positive and `num_leapfrog < 1`. Needs blackjax.
    """
    if not step_size > 0:
        raise ValueError(f"step_size: must be positive, got {step_size}")
    if num_leapfrog < 1:
        raise ValueError(f"num_leapfrog: at least 1, got {num_leapfrog}")
    from blackjax.mcmc import hmc

    kernel, log_density_fn = hmc.build_kernel(), highest(log_density_fn)

    def climb(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        slope = jax.grad(log_density_fn)(x)
        slope = slope / jnp.max(jnp.abs(slope))  # squares of steep ones overflow
        moved = x + step_size * slope / jnp.linalg.norm(slope)
        return jnp.where(jnp.all(jnp.isfinite(moved)), moved, x), None

    def advance(key: jax.Array, x: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
        def move(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, info = kernel(key, state, log_density_fn, step_size, jnp.ones_like(x), num_leapfrog)
            return state, info.acceptance_rate

        state, rates = jax.lax.scan(move, hmc.init(x, log_density_fn), jax.random.split(key, num))
        return state.position, jnp.mean(rates)

    def start(key: jax.Array, x: jax.Array) -> jax.Array:
        x, _ = jax.lax.scan(climb, x, None, length=NUM_ASCENTS)
        return advance(key, x, NUM_BURN_IN)[0]

    per_trajectory = num_leapfrog + 1
    return HamiltonianChain(start, advance, NUM_ASCENTS + NUM_BURN_IN * per_trajectory, per_trajectory)
