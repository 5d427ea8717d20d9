"""Divergences of variances and covariance matrices, which are positive."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def itakura_saito(target: jax.Array, log_prediction: jax.Array) -> jax.Array:
    """`sum a / b - log(a / b) - 1` with `b = exp(log_prediction)`, `a > 0`; potential `-sum log a`.

    Twice the Kullback-Leibler divergence of `N(0, a)` from `N(0, b)`, so of diffusions with these variances in a
    short time. Depends on `a / b` alone: a variance near zero counts as much as a large one.
    """
    log_ratio = jnp.log(target) - log_prediction
    return jnp.sum(jnp.expm1(log_ratio) - log_ratio)


def log_det_divergence(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """`tr(A B^{-1}) - log det(A B^{-1}) - d` of positive definite `A, B [d, d]`; potential `-log det A`.

    `itakura_saito` of the eigenvalues of `A B^{-1}` (Stein's loss). Only the lower triangles' factors are used. Costs
    `d^3`; `nan` where a matrix is not positive definite.
    """
    factor = jnp.linalg.cholesky(prediction)
    root = jax.scipy.linalg.solve_triangular(factor, jnp.linalg.cholesky(target), lower=True)
    return jnp.sum(root**2) - 2.0 * jnp.sum(jnp.log(jnp.diagonal(root))) - target.shape[-1]
