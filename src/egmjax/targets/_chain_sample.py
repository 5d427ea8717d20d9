"""Draws of a rough energy on R^d: many chains of Hamiltonian Monte Carlo, started from noise."""

from __future__ import annotations

import functools

import jax

from ..mcmc import hamiltonian_chain
from ..states import Real
from ._base import Target

__all__ = ["NUM_CHAINS", "chain_sample"]

NUM_CHAINS, THINNING = 256, 10


@functools.partial(jax.jit, static_argnames=("num_draws", "scale", "step_size"))
def chain_sample(
    key: jax.Array, target: Target, num_draws: int, *, scale: float, step_size: float
) -> jax.Array:
    """Draws of `exp(-target.energy)` on a `Real((d,))`, float `[num_draws * NUM_CHAINS, d]`, one of each chain in turn.

    Chains start from `N(0, scale^2)` (`mcmc.hamiltonian_chain`) and make 10 trajectories of 25 leapfrog steps before
    each draw. Cost: 260 gradients a draw, and 2,800 a chain. Needs blackjax.
    """
    assert isinstance(target.space, Real)
    shape = target.space.shape
    moves = hamiltonian_chain(lambda x: -target.energy(x), step_size=step_size)

    def chain(key: jax.Array) -> jax.Array:
        key_noise, key_start, key_draws = jax.random.split(key, 3)
        x = moves.start(key_start, scale * jax.random.normal(key_noise, shape))

        def draw(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            x, _ = moves.advance(key, x, THINNING)
            return x, x

        return jax.lax.scan(draw, x, jax.random.split(key_draws, num_draws))[1]

    x = jax.vmap(chain, out_axes=1)(jax.random.split(key, NUM_CHAINS))
    return x.reshape(-1, *shape)
