"""Noise floors: what a metric reads between two independent exact samples of the same law."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ive

from ._transport import weighted_points

__all__ = ["Floor", "pairwise_floor", "total_variation_floor", "wasserstein1_floor"]


class Floor(NamedTuple):
    """A metric over independent pairs of exact samples."""

    mean: float
    std: float  # of one pair, not of the mean; nan for a single pair
    num_pairs: int


def wasserstein1_floor(sample_or_law: ArrayLike | tuple[ArrayLike, ArrayLike], num_samples: int) -> float:
    """`E W1 = 2 / sqrt(pi n) * integral sqrt(F (1 - F)) du` for two samples of `n = num_samples` draws each.

    `F` is the distribution function of the law: exact from a tuple `(values [m], probabilities [m])`,
    empirical from a reference sample, an array `[m]`. Gaussian approximation of the count below each level,
    good once `n` is some tens. Raises `ValueError` for an empty, misshapen or non-finite input, negative
    probabilities, and `num_samples < 1`.
    """
    _check_count(num_samples, "num_samples")
    if isinstance(sample_or_law, tuple):
        if len(sample_or_law) != 2:
            raise ValueError(
                f"sample_or_law: expected (values, probabilities), got {len(sample_or_law)} entries"
            )
        value, weight = weighted_points(*sample_or_law, "values", "probabilities")
    else:
        value, weight = weighted_points(sample_or_law, None, "sample_or_law", "")
    order = np.argsort(value)
    level = np.clip(np.cumsum(weight[order])[:-1], 0.0, 1.0)
    spread = np.sum(np.sqrt(level * (1 - level)) * np.diff(value[order]))
    return float(2 / math.sqrt(math.pi * num_samples) * spread)


def total_variation_floor(probabilities: ArrayLike, num_samples: int) -> float:
    """`E TV = 1/2 sum_i E|a_i - b_i| / n`, `a, b` the counts of two independent samples of `n` draws each.

    `E|a_i - b_i| = 2 v (I0(2 v) + I1(2 v)) exp(-2 v)`, `v = n p_i (1 - p_i)`: that of two Poisson counts of
    the binomial variance. Tends to `2 n p_i` for rare cells and to `2 sqrt(v / pi)` for full ones; low by at
    most 4% at `n = 5`, .2% at `n = 100`. Raises `ValueError` unless `probabilities [m]` are non-negative and
    sum to 1, and for `num_samples < 1`.
    """
    _check_count(num_samples, "num_samples")
    probabilities = check_probabilities(probabilities, "probabilities")
    variance = num_samples * probabilities * (1 - probabilities)
    difference = 2 * variance * (ive(0, 2 * variance) + ive(1, 2 * variance))
    return float(0.5 * np.sum(difference) / num_samples)


def pairwise_floor(
    metric_fn: Callable[[Any, Any], Any], sample_fn: Callable[[int], Any], num_pairs: int
) -> Floor:
    """Mean and spread of `metric_fn(sample_fn(2 i), sample_fn(2 i + 1))` over `i < num_pairs`.

    `sample_fn(index)` returns an exact sample, independent for different indices, e.g.
    `lambda i: target.sample(jax.random.fold_in(key, i), 2000)`. Raises `ValueError` for `num_pairs < 1`.
    """
    _check_count(num_pairs, "num_pairs")
    values = [float(metric_fn(sample_fn(2 * i), sample_fn(2 * i + 1))) for i in range(num_pairs)]
    return Floor(
        float(np.mean(values)), float(np.std(values, ddof=1)) if num_pairs > 1 else math.nan, num_pairs
    )


def check_probabilities(value: ArrayLike, name: str) -> np.ndarray:
    """`value [m]` in float64; raises `ValueError` naming `name` unless non-negative with sum 1 to 1e-4."""
    value = np.asarray(value, np.float64)
    if value.ndim != 1 or value.size == 0:
        raise ValueError(f"{name}: expected shape [m] with m >= 1, got {list(value.shape)}")
    if not np.all(value >= 0) or not abs(value.sum() - 1) < 1e-4:
        raise ValueError(
            f"{name}: expected non-negative numbers with sum 1, got minimum {value.min()}, sum {value.sum()}"
        )
    return value


def _check_count(value: int, name: str) -> None:
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
