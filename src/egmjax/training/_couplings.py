"""Couplings of noise and data: which `x_0` goes with which `x_1`.

A coupling leaves both marginals alone and changes the paths between them. What a process must have for it is said by
`Process.follows_couplings`. Sources: minibatch optimal transport, Tong et al. (2024), Pooladian et al. (2023); with
symmetries, Klein, Kraemer, Noe (2023), Song et al. (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from .._mean_free import mean_free_basis
from ..paths import Path
from ..states import Real

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


def aligned_coupling(path: Path, num_particles: int) -> Coupling:
    """Prior draws of particles that are alike, each permuted, turned and mirrored towards its own `x1`.

        x_0 = argmin |g x - x_1|^2,     x ~ prior,     g a permutation times a rotation or reflection

    about so: principal axes are turned onto each other, then come the best permutation and the best rotation for it
    (Kabsch), which need not be the best of both together. States are mean-free coordinates `[(n - 1) s]` of `n`
    particles (`targets.mean_free_basis`), and the prior has these symmetries. Where the law of `x1` has them too, or
    the network commutes with them (`networks.ParticleNet`), the marginal of `x_0` is the prior's. Paths become short
    and hardly cross: thirteen particles in space have a fifth of the squared distance to go. On the host, 50
    microseconds a state.

    Raises `ValueError` for a path of a space that is not that of so many particles.
    """
    space = path.space
    size = space.shape[0] if isinstance(space, Real) and len(space.shape) == 1 else 0
    if num_particles < 2 or not size or size % (num_particles - 1):
        raise ValueError(
            f"num_particles: {space} is not that of mean-free coordinates of {num_particles} particles"
        )
    independent = independent_coupling(path)

    def couple(key: jax.Array, x1: Any) -> Any:
        x0 = independent(key, x1)
        shape = jax.ShapeDtypeStruct(x0.shape, x0.dtype)
        return jax.pure_callback(
            lambda a, b: _align(a, b, num_particles), shape, x0, x1, vmap_method="sequential"
        )

    return couple


def _align(x0: Any, x1: Any, num_particles: int) -> np.ndarray:
    """`x0 [num, (n - 1) s]` moved; rows that are not finite stay."""
    x0, x1 = np.asarray(x0), np.asarray(x1)
    finite = np.flatnonzero(np.isfinite(x0).all(axis=1) & np.isfinite(x1).all(axis=1))
    basis = mean_free_basis(num_particles, x0.shape[1] // (num_particles - 1))
    start, end = (
        (x[finite].astype(np.float64) @ basis.T).reshape(len(finite), num_particles, -1) for x in (x0, x1)
    )
    axes, others = (np.linalg.eigh(np.swapaxes(x, 1, 2) @ x)[1] for x in (start, end))
    turned = start @ axes @ np.swapaxes(others, 1, 2)
    order = [linear_sum_assignment(-p)[1] for p in end @ np.swapaxes(turned, 1, 2)]
    start = np.take_along_axis(start, np.asarray(order, np.int64).reshape(-1, num_particles, 1), axis=1)
    left, _, right = np.linalg.svd(np.swapaxes(start, 1, 2) @ end)
    start = start @ left @ right
    moved = x0.copy()
    moved[finite] = start.reshape(len(finite), -1) @ basis
    return moved


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
