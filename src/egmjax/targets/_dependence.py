"""Which sites of an energy depend on each other, found out by asking it.

    i ~ j    E(x^ij) - E(x^i) - E(x^j) + E(x) != 0 for some x        x^i: x with another symbol at i

Sites without a pair between them are independent given the rest: they can be drawn, and summed over, exactly. On a
lattice with even sides half of the sites are such a set; on one with odd sides fewer, as it is not bipartite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..states import Categorical, example_state
from ._base import Target


def dependence(target: Target, *, num_states: int = 4, seed: int = 0, tolerance: float = 1e-4) -> np.ndarray:
    """Symmetric `[sites, sites]` booleans, true where two sites of a categorical target depend on each other.

    Looks at `num_states` random states: an interaction that shows at none of them is missed, which for pair
    interactions has probability zero. Differences below `tolerance` of the largest count as rounding. Costs `sites`
    calls of `site_energies` a state. Raises `ValueError` for another space.
    """
    space = target.space
    if not isinstance(space, Categorical):
        raise ValueError(f"target: dependence is found for sites with symbols, got {space}")
    sites = jnp.arange(space.sites)

    @jax.jit
    def differences(x: jax.Array) -> jax.Array:
        now = target.site_energies(x)

        def moved(j: jax.Array) -> jax.Array:
            other = x.at[j].set((x[j] + 1) % space.num_states)
            later = target.site_energies(other)
            # known up to a constant for each site: only differences between symbols count
            change = (later - later[:, :1]) - (now - now[:, :1])
            return jnp.max(jnp.abs(change), axis=1)

        return jax.lax.map(moved, sites)

    rng = np.random.default_rng(seed)
    shape = example_state(space).shape
    states = [jnp.asarray(rng.integers(0, space.num_states, shape), jnp.int32) for _ in range(num_states)]
    found = np.stack([np.asarray(differences(x), np.float64) for x in states]).max(axis=0)
    np.fill_diagonal(found, 0.0)
    found = np.maximum(found, found.T)
    return found > tolerance * max(found.max(), 1e-30)


def independent_sites(pairs: np.ndarray) -> np.ndarray:
    """`[sites]` booleans: a largest set found greedily without a pair between its sites, fewest partners first.

    `pairs` as from `dependence`. Raises `ValueError` unless it is a square matrix.
    """
    pairs = np.asarray(pairs, bool)
    if pairs.ndim != 2 or pairs.shape[0] != pairs.shape[1]:
        raise ValueError(f"pairs: expected a square matrix, got {list(pairs.shape)}")
    chosen = np.zeros(len(pairs), bool)
    free = np.ones(len(pairs), bool)
    while free.any():
        partners = np.where(free, np.sum(pairs & free[None, :], axis=1), len(pairs) + 1)
        # among equals the one that shares most partners with those chosen keeps the pattern regular
        touched = np.any(pairs & chosen[None, :], axis=1)
        shared = np.sum(pairs & touched[None, :], axis=1)
        site = int(np.lexsort((np.arange(len(pairs)), -shared, partners))[0])
        chosen[site] = True
        free &= ~pairs[site]
        free[site] = False
    return chosen
