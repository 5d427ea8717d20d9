"""Markov chain Monte Carlo on a budget: what a learned sampler is held against.

`NUM_CHAINS` chains start from noise (spins at random, reals from a Gaussian, narrow where energies grow so fast that
a Langevin step from far out is never accepted) and make as many sweeps as the budget of energy evaluations pays for.
The first half is burn-in; `NUM_KEPT` states of each chain, evenly spaced over the second half, are the sample.
Symbols are updated by Gibbs sweeps, reals by Metropolis-adjusted Langevin steps in turn with them. A sweep over the
symbols counts all alternatives, a Langevin step two gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from egmjax.mcmc import gibbs, mala_within_gibbs
from egmjax.states import Categorical, Real, Space
from egmjax.targets import Target

NUM_CHAINS = 1_000
NUM_KEPT = 10


class Chains(NamedTuple):
    """`x`: `[NUM_CHAINS * NUM_KEPT]` states; what was spent; the mean acceptance of Langevin steps, or `None`."""

    x: Any
    num_sweeps: int
    energy_evaluations: int
    acceptance_rate: float | None


def run_chains(
    key: jax.Array, target: Target, budget: int, *, scale: float = 1.0, step_size: float = 0.1
) -> Chains:
    """Chains of `target` on a categorical space, or on one with one real and one categorical component.

    `budget` is in evaluations of the energy, at least what `2 NUM_KEPT` sweeps of all chains cost (less raises
    `ValueError`); `scale` is the standard deviation reals start with, `step_size` that of the Langevin step in squared
    units of the reals.
    """
    kernel, read, cost = _kernel(target, step_size)
    num_sweeps = budget // (NUM_CHAINS * cost) // (2 * NUM_KEPT) * (2 * NUM_KEPT)
    if num_sweeps < 1:
        raise ValueError(f"budget: at least {2 * NUM_KEPT * NUM_CHAINS * cost}, got {budget}")
    stride = num_sweeps // (2 * NUM_KEPT)

    @jax.jit
    def chain(key: jax.Array) -> tuple[Any, jax.Array]:
        key_start, key_run = jax.random.split(key)

        def sweep(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, info = kernel.step(key, state)
            return state, getattr(info, "acceptance_rate", jnp.ones(()))

        def block(state: Any, key: jax.Array) -> tuple[Any, tuple[Any, jax.Array]]:
            state, rates = jax.lax.scan(sweep, state, jax.random.split(key, stride))
            return state, (read(state), jnp.mean(rates))

        state = kernel.init(_start(key_start, target.space, scale))
        _, (kept, rates) = jax.lax.scan(block, state, jax.random.split(key_run, 2 * NUM_KEPT))
        return jax.tree.map(lambda a: a[NUM_KEPT:], kept), jnp.mean(rates)

    kept, rates = jax.jit(jax.vmap(chain))(jax.random.split(key, NUM_CHAINS))
    x = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), kept)
    is_mixed = isinstance(target.space, tuple)
    return Chains(x, num_sweeps, num_sweeps * NUM_CHAINS * cost, float(jnp.mean(rates)) if is_mixed else None)


def _kernel(target: Target, step_size: float) -> tuple[Any, Callable[[Any], Any], int]:
    """A kernel, how to read its state, and what one of its steps costs."""
    space = target.space
    if isinstance(space, Categorical):
        return gibbs(target.energy, space), lambda state: state.position, space.sites * space.num_states
    kernel = mala_within_gibbs(target.energy, space, step_size=step_size)
    assert isinstance(space, tuple)
    symbols = sum(part.sites * part.num_states for part in space if isinstance(part, Categorical))
    return kernel, lambda state: state.position, 2 + symbols


def _start(key: jax.Array, space: Space, scale: float) -> Any:
    match space:
        case Real(shape):
            return scale * jax.random.normal(key, shape)
        case Categorical(sites, num_states):
            return jax.random.randint(key, (sites,), 0, num_states)
    assert isinstance(space, tuple)
    return tuple(_start(k, part, scale) for k, part in zip(jax.random.split(key, len(space)), space))
