"""Sums over every state of a small discrete target.

log Z = logsumexp_x(-E(x)),     log p(x) = -E(x) - log Z,     x in {0 .. S-1}^n
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from ..states import Categorical
from ._base import Target

__all__ = ["enumerate_states", "enumerated_log_prob", "enumerated_log_z"]

MAX_STATES = 2**20
CHUNK = 2**14


def enumerate_states(sites: int, num_states: int) -> np.ndarray:
    """Every state, int32 `[num_states ** sites, sites]`, the last site varying fastest.

    Raises `ValueError` for more than `2**20` states.
    """
    total = num_states**sites
    if total > MAX_STATES:
        raise ValueError(
            f"sites: {num_states}**{sites} states are more than the 2**20 that can be enumerated"
        )
    powers = num_states ** np.arange(sites - 1, -1, -1)
    return ((np.arange(total)[:, None] // powers) % num_states).astype(np.int32)


def enumerated_log_prob(target: Target) -> np.ndarray:
    """`log p(x)` of a `Categorical` target, float64 `[S ** n]` in the order of `enumerate_states`.

    Energies are evaluated in the working precision of jax, sums in float64. Raises `ValueError` where the
    space is not `Categorical` or has more than `2**20` states.
    """
    negative = -_energies(target)
    return negative - logsumexp(negative)


def enumerated_log_z(target: Target) -> float:
    """`log Z` of a `Categorical` target by direct summation; see `enumerated_log_prob`."""
    return float(logsumexp(-_energies(target)))


def _energies(target: Target) -> np.ndarray:
    """The energy of every state, float64 `[S ** n]`, computed in chunks."""
    space = target.space
    if not isinstance(space, Categorical):
        raise ValueError(f"target: enumeration needs a Categorical space, got {space}")
    states = enumerate_states(space.sites, space.num_states)
    energy = jax.jit(lambda target, x: jax.vmap(target.energy)(x))
    chunks = [energy(target, jnp.asarray(states[i : i + CHUNK])) for i in range(0, len(states), CHUNK)]
    return np.concatenate([np.asarray(chunk, dtype=np.float64) for chunk in chunks])
