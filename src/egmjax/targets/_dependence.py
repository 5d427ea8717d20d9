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
    interactions has probability zero. Differences below `tolerance` of the largest count as rounding. Sites
    whose energies are infinite, or not numbers, are taken for dependent. Costs `sites` calls of `site_energies` a
    state. Raises `ValueError` for another space.
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
    found = np.nan_to_num(np.maximum(found, found.T), nan=np.inf, posinf=np.inf)
    return found > tolerance * max(found[np.isfinite(found)].max(), 1e-30)


def independent_sites(pairs: np.ndarray, *, num_tries: int = 20, seed: int = 0) -> np.ndarray:
    """`[sites]` booleans: the largest set without a pair between its sites of `num_tries` greedy ones.

    Each next site is one with fewest partners left, then one that shares most partners with those chosen, then a random
    one: on lattices these grow into a chequerboard with as few defects as an odd side needs. `pairs` as from
    `dependence`. Costs about `num_tries sites^2` operations. Raises `ValueError` unless it is a square matrix.
    """
    pairs = np.asarray(pairs, bool)
    if pairs.ndim != 2 or pairs.shape[0] != pairs.shape[1]:
        raise ValueError(f"pairs: expected a square matrix, got {list(pairs.shape)}")
    rng = np.random.default_rng(seed)
    sets = [_greedy_set(pairs, rng) for _ in range(num_tries)]
    return max(sets, key=np.sum)


def coloring(pairs: np.ndarray, *, num_tries: int = 20, seed: int = 0) -> np.ndarray:
    """Ranks `[sites]`, integers from 0, of a greedy colouring: no two sites of equal rank are a pair.

    `independent_sites` of all are the last rank, those of what is left the one before, and so on (recursive largest
    first; Leighton, 1979). For `paths.Ordered`: `first_hitting_sampler(..., sites_per_step=sites)` draws a rank at each
    step. Sites of one rank are independent given *all* others, which only the last rank has been told, so
    `estimators.total_correlation` is zero there and not before. Costs as `independent_sites` for each colour, and
    raises as it does.
    """
    pairs, left, colors = np.asarray(pairs, bool), np.arange(len(pairs)), []
    while len(left):
        chosen = independent_sites(pairs[np.ix_(left, left)], num_tries=num_tries, seed=seed)
        colors.append(left[chosen])
        left = left[~chosen]
    rank = np.zeros(len(pairs), int)
    for number, sites in enumerate(reversed(colors)):
        rank[sites] = number
    return rank


def _greedy_set(pairs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    num = len(pairs)
    chosen, free = np.zeros(num, bool), np.ones(num, bool)
    left, touched, shared = pairs.sum(axis=1), np.zeros(num, bool), np.zeros(num, int)
    while free.any():
        best = np.lexsort((rng.random(num), -shared, left, ~free))
        site = int(best[0])
        partners = pairs[site]
        gone = free & partners
        gone[site] = True
        left = left - pairs[:, gone].sum(axis=1)
        shared = shared + pairs[:, partners & ~touched].sum(axis=1)
        touched |= partners
        chosen[site] = True
        free &= ~gone
    return chosen
