"""Importance weights: log Z, effective sample size, tail index, weighted means, resampling.

`log_weight [n]` holds `log w_i = log ptilde(x_i) - log q(x_i)` at draws `x_i ~ q`, `Z = E_q[w]`. Entries that
are nan or infinite count as draws of weight zero and are reported in `num_nonfinite`. Everything is jitted
once for each `n`, and may be vmapped.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ._pareto import tail_index

__all__ = [
    "ForwardSummary",
    "WeightSummary",
    "WeightedMean",
    "normalized_weights",
    "pareto_k",
    "resample",
    "summarize_forward_weights",
    "summarize_weights",
    "weighted_mean",
]


class WeightSummary(NamedTuple):
    """What the weights of draws from the sampler itself say; blind to modes that were never drawn."""

    log_z: jax.Array  # log((1/n) sum_i w_i); w averages to Z without bias, its logarithm is consistent
    log_z_stderr: jax.Array  # sqrt((1 / ess_fraction - 1) / n), the delta method; inf for a single draw
    elbo: jax.Array  # (1/n) sum_i log w_i <= log_z; -inf as soon as one draw has weight zero
    ess_fraction: jax.Array  # (sum w)^2 / (n sum w^2), in [0, 1]
    largest_weight: jax.Array  # max_i w_i / sum_j w_j
    pareto_k: jax.Array  # tail index; above .7 the other numbers are not to be trusted
    num_nonfinite: jax.Array  # draws given weight zero because log w was nan or infinite
    num_samples: jax.Array  # n, those included


class ForwardSummary(NamedTuple):
    """What the weights at exact draws of the target say; sees the modes that the sampler misses."""

    eubo: jax.Array  # (1/n) sum_i log w_i, in the mean an upper bound of log Z; +inf where q(x_i) = 0
    log_z: jax.Array  # -log((1/n) sum_i 1/w_i); needs q to vanish nowhere that the target does not
    log_z_stderr: jax.Array  # delta method; inf for a single draw
    ess_fraction: jax.Array  # 1 / (mean(w) mean(1/w)), the limit of the sampler's own ess_fraction
    num_nonfinite: jax.Array  # draws counted as missed by the sampler because log w was nan or infinite
    num_samples: jax.Array  # n, those included


class WeightedMean(NamedTuple):
    """A self-normalised mean and its standard error, each of the shape of one value."""

    mean: jax.Array
    stderr: jax.Array


@jax.jit
def summarize_weights(log_weight: jax.Array) -> WeightSummary:
    """Summary of `log_weight [n]` at the sampler's own draws; see `WeightSummary` for the formulas.

    With no finite entry `log_z` is -inf, its error inf and the ESS 0. Raises `ValueError` unless `[n]`.
    """
    log_weight, finite = _clean(log_weight)
    n = log_weight.shape[0]
    log_z, log_z_stderr = _log_mean_exp(log_weight)
    weight = _normalize(log_weight)
    top = jnp.max(log_weight)
    return WeightSummary(
        log_z=log_z,
        log_z_stderr=log_z_stderr,
        elbo=jnp.where(jnp.all(finite), top + jnp.mean(log_weight - top), -jnp.inf),
        ess_fraction=_ratio(1.0, n * jnp.sum(weight**2)),
        largest_weight=jnp.max(weight),
        pareto_k=tail_index(log_weight),
        num_nonfinite=jnp.sum(~finite),
        num_samples=jnp.asarray(n, jnp.int32),
    )


@jax.jit
def summarize_forward_weights(log_weight_at_exact: jax.Array) -> ForwardSummary:
    """Summary of `log w = log ptilde(x_i) - log q(x_i)`, `[n]`, at exact draws `x_i` of the target.

    In the mean `elbo <= log Z <= eubo`, and the gaps are the two KL divergences. An entry that is not finite
    is a draw that the sampler cannot make: `eubo` is then +inf and the ESS 0. Raises `ValueError` unless the
    argument is `[n]`, `n >= 1`.
    """
    inverse, finite = _clean(-jnp.asarray(log_weight_at_exact), name="log_weight_at_exact")
    n = inverse.shape[0]
    log_mean_inverse, log_z_stderr = _log_mean_exp(inverse)
    complete = jnp.all(finite)
    log_mean, _ = _log_mean_exp(jnp.where(complete, -inverse, 0.0))
    top = jnp.max(inverse)
    return ForwardSummary(
        eubo=jnp.where(complete, -(top + jnp.mean(inverse - top)), jnp.inf),
        log_z=-log_mean_inverse,
        log_z_stderr=log_z_stderr,
        ess_fraction=jnp.where(complete, jnp.minimum(1.0, jnp.exp(-log_mean - log_mean_inverse)), 0.0),
        num_nonfinite=jnp.sum(~finite),
        num_samples=jnp.asarray(n, jnp.int32),
    )


@jax.jit
def pareto_k(log_weight: jax.Array) -> jax.Array:
    """Tail index `k` of a generalised Pareto law fitted to the largest `min(n/5, 3 sqrt(n))` weights.

    `E[w^p]` is finite for `p < 1/k`: below .5 the variance exists, above .7 estimates are unreliable at any
    practical `n` (Vehtari et al. 2024). The fit is the posterior mean of Zhang and Stephens (2009) with their
    prior, shrunk towards .5 by ten pseudo-draws. 0 where all weights of the tail are equal; nan with fewer
    than five tail points above the threshold, in particular for `n <= 20`. Raises `ValueError` unless `[n]`,
    `n >= 1`.
    """
    return tail_index(_clean(log_weight)[0])


@jax.jit
def normalized_weights(log_weight: jax.Array) -> jax.Array:
    """`w_i / sum_j w_j`, `[n]`; all zero where no entry is finite. Raises `ValueError` unless `[n]`."""
    return _normalize(_clean(log_weight)[0])


@jax.jit
def weighted_mean(values: jax.Array, log_weight: jax.Array) -> WeightedMean:
    """`m = sum_i W_i v_i`, standard error `sqrt(sum_i W_i^2 (v_i - m)^2)`, `W` the normalised weights.

    `values [n, ...]`. The value of a draw of weight zero is not looked at; nan where all weights are zero.
    Raises `ValueError` where `log_weight` is not `[n]`, or `values` has another leading length.
    """
    log_weight, _ = _clean(log_weight)
    values = jnp.asarray(values)
    n = log_weight.shape[0]
    if values.ndim < 1 or values.shape[0] != n:
        raise ValueError(f"values: expected leading length {n} as log_weight has, got shape {values.shape}")
    weight = _normalize(log_weight).reshape((n,) + (1,) * (values.ndim - 1))
    values = jnp.where(weight > 0, values, 0).astype(weight.dtype)
    some = jnp.any(weight > 0)
    mean = jnp.where(some, jnp.sum(weight * values, axis=0), jnp.nan)
    stderr = jnp.sqrt(jnp.sum((weight * (values - mean[None])) ** 2, axis=0))
    return WeightedMean(mean, stderr if n > 1 else jnp.full_like(stderr, jnp.inf))


@functools.partial(jax.jit, static_argnames="num_samples")
def resample(key: jax.Array, log_weight: jax.Array, num_samples: int) -> jax.Array:
    """Systematic resampling: sorted indices `[num_samples]` of draws, `E[copies of i] = num_samples W_i`.

    One uniform `u`; draw `i` is copied as often as `(u + j) / num_samples` falls into its slice of the
    cumulative weights, so counts differ from their means by less than one. Draws of weight zero are never
    taken; where all are of weight zero every index is `n`, out of range. Raises `ValueError` unless
    `log_weight` is `[n]`, `n >= 1`, and for `num_samples < 1`.
    """
    log_weight, _ = _clean(log_weight)
    if num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
    n = log_weight.shape[0]
    weight = _normalize(log_weight)
    cumulative = jax.lax.cummax(jnp.cumsum(weight))
    position = (jax.random.uniform(key, (), weight.dtype) + jnp.arange(num_samples)) / num_samples
    index = jnp.searchsorted(cumulative, position * cumulative[-1], side="right")
    # rounding may land on a draw of weight zero or past the end: step back to one that has weight
    taken = jax.lax.cummax(jnp.where(weight > 0, jnp.arange(n), -1))
    taken = jnp.where(taken < 0, jnp.argmax(weight > 0), taken)
    return jnp.where(jnp.any(weight > 0), taken[jnp.minimum(index, n - 1)], n)


def _clean(log_weight: jax.Array, *, name: str = "log_weight") -> tuple[jax.Array, jax.Array]:
    log_weight = jnp.asarray(log_weight, dtype=jnp.result_type(float, log_weight))
    if log_weight.ndim != 1 or log_weight.shape[0] < 1:
        raise ValueError(f"{name}: expected shape [n] with n >= 1, got {list(log_weight.shape)}")
    finite = jnp.isfinite(log_weight)
    return jnp.where(finite, log_weight, -jnp.inf), finite


def _relative(log_weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    top = jnp.max(log_weight)
    return jnp.exp(log_weight - jnp.where(jnp.isfinite(top), top, 0.0)), top


def _normalize(log_weight: jax.Array) -> jax.Array:
    relative, _ = _relative(log_weight)
    return _ratio(relative, jnp.sum(relative))


def _log_mean_exp(log_weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`log mean exp` and its delta-method standard error, from deviations so that nothing cancels."""
    n = log_weight.shape[0]
    relative, top = _relative(log_weight)
    mean = jnp.mean(relative)
    stderr = jnp.sqrt(jnp.mean((_ratio(relative, mean) - 1) ** 2) / n)
    usable = jnp.logical_and(mean > 0, n > 1)
    return top + jnp.log(jnp.where(mean > 0, mean, 1.0)), jnp.where(usable, stderr, jnp.inf)


def _ratio(a: jax.Array | float, b: jax.Array) -> jax.Array:
    """`a / b`, and 0 where `b` is 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
