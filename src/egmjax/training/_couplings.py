"""Couplings of noise and data: which `x_0` goes with which `x_1`.

A coupling leaves both marginals alone and changes the paths between them. What a process must have for it is said by
`Process.follows_couplings`. Source: minibatch optimal transport, Tong et al. (2024), Pooladian et al. (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from ..paths import Path

Coupling = Callable[[jax.Array, Any], Any]  # (key, x1 stacked) -> x0 stacked, row by row with x1


def independent_coupling(path: Path) -> Coupling:
    """Prior draws that know nothing of `x1`; what no coupling at all means, with both ends made explicit."""

    def couple(key: jax.Array, x1: Any) -> Any:
        num = jax.tree.leaves(x1)[0].shape[0]
        return jax.vmap(path.sample_prior)(jax.random.split(key, num))

    return couple


def transport_coupling(path: Path) -> Coupling:
    """Prior draws, matched to a batch `x1` so that `sum_i |x0_i - x1_i|^2` is least: exact optimal transport.

    Symbols count one where they differ. The assignment is solved on the host, about `num^3` time: milliseconds
    for 256 states. It is optimal in the batch only, so paths of different batches still cross.
    """
    independent = independent_coupling(path)

    def couple(key: jax.Array, x1: Any) -> Any:
        x0 = independent(key, x1)
        cost = sum(map(_cost, jax.tree.leaves(x0), jax.tree.leaves(x1)))
        shape = jax.ShapeDtypeStruct((cost.shape[0],), jnp.int32)
        order = jax.pure_callback(_assign, shape, cost, vmap_method="sequential")
        return jax.tree.map(lambda a: a[order], x0)

    return couple


def _assign(cost: Any) -> np.ndarray:
    """For every column, the row that goes with it; a cost that is not finite counts as the largest one."""
    cost = np.asarray(cost, np.float64)
    worst = np.max(cost, where=np.isfinite(cost), initial=0.0)
    row, column = linear_sum_assignment(np.where(np.isfinite(cost), cost, worst))
    return row[np.argsort(column)].astype(np.int32)


def _cost(x0: jax.Array, x1: jax.Array) -> Any:
    """Squared distances `[n, n]`, rows `x0`; the number of unequal symbols for integers."""
    a, b = x0.reshape(len(x0), -1), x1.reshape(len(x1), -1)
    if jnp.issubdtype(a.dtype, jnp.integer):
        return jnp.sum(a[:, None, :] != b[None, :, :], axis=-1, dtype=float)
    product = jnp.matmul(a, b.T, precision="highest")
    return jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1)[None, :] - 2.0 * product
