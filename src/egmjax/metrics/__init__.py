"""Metrics: importance weights, transport and two-sample distances, discrete observables, noise floors."""

from ._discrete import (
    chi_square_test,
    effect_size,
    histogram,
    holm,
    total_variation,
    weighted_chi_square_test,
)
from ._floors import Floor, pairwise_floor, total_variation_floor, wasserstein1_floor
from ._nearest import NearestDistance, nearest_distance
from ._transport import wasserstein1, wasserstein2, wasserstein2_1d
from ._two_sample import Estimate, area_under_curve, frechet_distance, kernel_distance, two_sample_auc
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
    "Estimate",
    "Floor",
    "ForwardSummary",
    "NearestDistance",
    "WeightSummary",
    "WeightedMean",
    "area_under_curve",
    "chi_square_test",
    "effect_size",
    "frechet_distance",
    "histogram",
    "holm",
    "kernel_distance",
    "nearest_distance",
    "normalized_weights",
    "pairwise_floor",
    "pareto_k",
    "resample",
    "summarize_forward_weights",
    "summarize_weights",
    "total_variation",
    "total_variation_floor",
    "two_sample_auc",
    "wasserstein1",
    "wasserstein1_floor",
    "wasserstein2",
    "wasserstein2_1d",
    "weighted_chi_square_test",
    "weighted_mean",
]
