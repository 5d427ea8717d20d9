"""The generalised Pareto fit behind `pareto_k`, in log space: weights may span any number of nats."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

__all__ = ["tail_index"]


def tail_index(log_weight: jax.Array) -> jax.Array:
    """The index `k` of `log_weight [n]` whose entries are finite or -inf; `pareto_k` is its public face.

    With exceedances `x` over the threshold and `y = x / x_quartile`, the profile likelihood of `b` is that of
    `k(b) = mean log(1 - b y)`, scale `-k / b`; `b` is averaged over its posterior on the grid of Zhang and
    Stephens. `log y` is carried instead of `y`.
    """
    n = log_weight.shape[0]
    num_tail = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    if num_tail < 5:
        return jnp.full((), jnp.nan, log_weight.dtype)
    largest, _ = jax.lax.top_k(log_weight, num_tail + 1)
    threshold, tail = largest[-1], largest[:-1][::-1]
    above = tail > threshold
    count = jnp.sum(above)
    safe = jnp.where(above, tail, 0.0)
    gap = jnp.where(above, threshold - safe, -1.0)
    log_x = safe + jnp.log(-jnp.expm1(gap))
    # ascending; the entries at the threshold come first and are skipped
    quartile = log_x[jnp.clip(num_tail - count + jnp.floor(count / 4 + 0.5).astype(int) - 1, 0, num_tail - 1)]
    log_y = log_x - quartile

    grid_size = 30 + math.isqrt(num_tail)
    grid = jnp.arange(1, grid_size + 1, dtype=log_weight.dtype)
    b = jnp.exp(-log_y[-1]) + (1 - jnp.sqrt(grid_size / (grid - 0.5))) / 3
    k = jax.vmap(lambda c: _mean_log(c, log_y, above, count))(b)
    log_scale = jnp.where(jnp.abs(k) > 0, jnp.log(jnp.abs(k)) - jnp.log(jnp.abs(b)), 0.0)
    posterior = jax.nn.softmax(jnp.where(jnp.abs(k) > 0, -count * (log_scale + k + 1), -jnp.inf))
    fitted = _mean_log(jnp.sum(posterior * b), log_y, above, count)
    shrunk = (count * fitted + 10 * 0.5) / (count + 10)
    constant = jnp.logical_and(jnp.isfinite(threshold), largest[0] == threshold)
    return jnp.where(constant, 0.0, jnp.where(count < 5, jnp.nan, shrunk))


def _mean_log(b: jax.Array, log_y: jax.Array, above: jax.Array, count: jax.Array) -> jax.Array:
    """`mean log(1 - b y)` over the exceedances."""
    size = jnp.log(jnp.maximum(jnp.abs(b), jnp.finfo(log_y.dtype).tiny))
    heavy = jax.nn.softplus(size + log_y)
    short = jnp.log1p(-jnp.exp(jnp.minimum(size + log_y, -jnp.finfo(log_y.dtype).eps)))
    return jnp.sum(jnp.where(above, jnp.where(b < 0, heavy, short), 0.0)) / jnp.maximum(count, 1)
