"""Draws of a rough energy on R^d: many chains of Hamiltonian Monte Carlo, started from noise."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..states import Real
from ._base import Target

__all__ = ["NUM_CHAINS", "chain_sample"]

NUM_CHAINS, BURN_IN, THINNING, NUM_LEAPFROG = 256, 100, 10, 25


@functools.partial(jax.jit, static_argnames=("num_draws", "scale", "step_size"))
def chain_sample(
    key: jax.Array, target: Target, num_draws: int, *, scale: float, step_size: float
) -> jax.Array:
    """Draws of `exp(-target.energy)` on a `Real((d,))`, float `[num_draws * NUM_CHAINS, d]`, one of each chain in turn.

    Chains start from `N(0, scale^2)`, go straight down for 200 steps of length `step_size`, which gets them out of
    where the energy is too steep for any trajectory, and make 100 trajectories of 25 leapfrog steps (Duane et al.,
    1987) of burn-in and 10 before each draw. Cost: 250 gradients a draw, and 2,700 a chain. Needs blackjax.
    """
    from blackjax.mcmc import hmc

    assert isinstance(target.space, Real)
    shape = target.space.shape
    kernel = hmc.build_kernel()
    inverse_mass = jnp.ones(shape)

    def log_density(x: jax.Array) -> jax.Array:
        return -target.energy(x)

    def descend(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        slope = jax.grad(target.energy)(x)
        slope = slope / jnp.max(jnp.abs(slope))  # squares of steep ones overflow
        return x - step_size * slope / jnp.linalg.norm(slope), None

    def move(state: Any, key: jax.Array) -> tuple[Any, None]:
        return kernel(key, state, log_density, step_size, inverse_mass, NUM_LEAPFROG)[0], None

    def chain(key: jax.Array) -> jax.Array:
        key_start, key_burn, key_draws = jax.random.split(key, 3)
        x, _ = jax.lax.scan(descend, scale * jax.random.normal(key_start, shape), None, length=200)
        state, _ = jax.lax.scan(move, hmc.init(x, log_density), jax.random.split(key_burn, BURN_IN))

        def draw(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, _ = jax.lax.scan(move, state, jax.random.split(key, THINNING))
            return state, state.position

        return jax.lax.scan(draw, state, jax.random.split(key_draws, num_draws))[1]

    x = jax.vmap(chain, out_axes=1)(jax.random.split(key, NUM_CHAINS))
    return x.reshape(-1, *shape)
