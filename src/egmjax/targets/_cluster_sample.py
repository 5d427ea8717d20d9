"""Draws of long ferromagnetic tori from many Swendsen-Wang chains, hot and cold."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from ..mcmc._cluster import SwendsenWangState, swendsen_wang

__all__ = ["NUM_CHAINS", "cluster_sample"]

NUM_CHAINS, BURN_IN, THINNING = 128, 200, 24


@functools.partial(jax.jit, static_argnames=("length", "num_states", "num_draws", "thinning"))
def cluster_sample(
    key: jax.Array,
    coupling: jax.Array | float,
    length: int,
    num_states: int,
    num_draws: int,
    thinning: int = THINNING,
) -> jax.Array:
    """Swendsen-Wang draws of `exp(2K sum_<ij> 1{x_i = x_j})`, int32 `[num_draws * NUM_CHAINS, length ** 2]`.

    Half of the chains start from one symbol everywhere, half from random symbols; 200 sweeps of burn-in, then
    `thinning` sweeps before each draw.
    """
    kernel = swendsen_wang(length=length, coupling=coupling, num_states=num_states)
    key_start, key_burn, key_draws = jax.random.split(key, 3)

    def sweep(state: SwendsenWangState, key: jax.Array) -> tuple[SwendsenWangState, None]:
        return jax.vmap(kernel.step)(jax.random.split(key, NUM_CHAINS), state)[0], None

    def draw(state: SwendsenWangState, key: jax.Array) -> tuple[SwendsenWangState, jax.Array]:
        state, _ = jax.lax.scan(sweep, state, jax.random.split(key, thinning))
        return state, state.position

    hot = jax.random.randint(key_start, (NUM_CHAINS, length**2), 0, num_states)
    cold = jnp.arange(NUM_CHAINS)[:, None] % 2 == 0
    state = jax.vmap(kernel.init)(jnp.where(cold, 1, hot))
    state, _ = jax.lax.scan(sweep, state, jax.random.split(key_burn, BURN_IN))
    _, positions = jax.lax.scan(draw, state, jax.random.split(key_draws, num_draws))
    return positions.reshape(-1, length**2)
