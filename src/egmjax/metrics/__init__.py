"""Metrics: importance weights, transport distances, discrete observables, noise floors."""

from ._discrete import chi_square_test, effect_size, histogram, total_variation
from ._floors import Floor, pairwise_floor, total_variation_floor, wasserstein1_floor
from ._transport import wasserstein1, wasserstein2, wasserstein2_1d
from ._weights import (
    ForwardSummary,
    WeightedMean,
    WeightSummary,
    normalized_weights,
    pareto_k,
    resample,
    summarize_forward_weights,
    summarize_weights,
    weighted_mean,
)

__all__ = [
    "Floor",
    "ForwardSummary",
    "WeightSummary",
    "WeightedMean",
    "chi_square_test",
    "effect_size",
    "histogram",
    "normalized_weights",
    "pairwise_floor",
    "pareto_k",
    "resample",
    "summarize_forward_weights",
    "summarize_weights",
    "total_variation",
    "total_variation_floor",
    "wasserstein1",
    "wasserstein1_floor",
    "wasserstein2",
    "wasserstein2_1d",
    "weighted_mean",
]
