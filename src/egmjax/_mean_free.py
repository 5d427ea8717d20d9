"""Coordinates for densities that do not change under translation.

    y in R^((N-1) s),   positions = (B y) as [N, s],   B^T B = I,   sum_i position_i = 0

A translation-invariant energy is improper on `R^(N s)`; with the centre of mass held at zero and `y`
orthonormal it is an ordinary density, whose `log Z` is the one of the mean-free subspace with its Euclidean
volume. In the coordinates `position_i - position_1` the volume is `N^(s/2)` times larger.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "REGULARIZER",
    "mean_free_basis",
    "mean_free_coordinates",
    "mean_free_positions",
    "pair_distances",
]


REGULARIZER = 1e-6  # of squared distances: keeps the gradient of a distance finite at zero


def mean_free_basis(num_particles: int, spatial_dim: int) -> np.ndarray:
    """The orthonormal basis `B` of the mean-free subspace, float64 `[N * s, (N - 1) * s]`.

    The Kronecker product of Helmert's contrasts (column `k` is `(1, .., 1, -k, 0, ..) / sqrt(k (k + 1))`, the
    difference of particle `k` and the mean of those before it) with the identity. Raises `ValueError` for
    fewer than two particles or no dimension.
    """
    if num_particles < 2:
        raise ValueError(f"num_particles: mean-free coordinates need at least 2, got {num_particles}")
    if spatial_dim < 1:
        raise ValueError(f"spatial_dim: expected at least 1, got {spatial_dim}")
    order = np.arange(1, num_particles)
    contrasts = (
        np.triu(np.ones((num_particles, num_particles - 1))) - np.eye(num_particles, k=-1)[:, :-1] * order
    )
    return np.kron(contrasts / np.sqrt(order * (order + 1)), np.eye(spatial_dim))


def mean_free_positions(y: jax.Array, num_particles: int) -> jax.Array:
    """Positions `[N, s]` with mean zero of coordinates `y: [(N - 1) * s]`."""
    spatial_dim = y.shape[0] // (num_particles - 1)
    basis = jnp.asarray(mean_free_basis(num_particles, spatial_dim), y.dtype)
    return jnp.dot(basis, y, precision="highest").reshape(num_particles, spatial_dim)


def mean_free_coordinates(positions: jax.Array) -> jax.Array:
    """Coordinates `[(N - 1) * s]` of positions `[N, s]` less their mean: `B^T x`."""
    basis = jnp.asarray(mean_free_basis(*positions.shape), positions.dtype)
    return jnp.dot(jnp.ravel(positions), basis, precision="highest")


def pair_distances(positions: jax.Array) -> jax.Array:
    """`sqrt(|x_i - x_j|^2 + 1e-6)`, `[N, N]`, for positions `[N, s]`."""
    difference = positions[:, None, :] - positions[None, :, :]
    return jnp.sqrt(jnp.sum(jnp.square(difference), axis=-1) + REGULARIZER)
