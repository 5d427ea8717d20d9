"""Memorisation: whether samples lie nearer to the training rows than fresh data do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from ._two_sample import Estimate, area_under_curve, check_samples

__all__ = ["NearestDistance", "nearest_distance"]


class NearestDistance(NamedTuple):
    """Median distances to the nearest training row, of samples and of held-out rows, and which is nearer how often.

    `closer` is P(a sample is nearer than a held-out row), ties counted half: .5 for fresh draws of the same law,
    towards 1 where training rows are repeated. `copies`, `held_out_copies`: the shares at distance zero.
    """

    median: float
    held_out_median: float
    closer: Estimate
    copies: float
    held_out_copies: float


def nearest_distance(x: ArrayLike, train: ArrayLike, held_out: ArrayLike) -> NearestDistance:
    """Euclidean distances of samples `x [n, f]` to `train [m, f]`, beside those of `held_out [k, f]`.

    Scale the features first. The standard error of `closer` is DeLong's, training rows given. Raises `ValueError` for
    samples that are not `[n >= 2, f]`, not finite, or of unequal width.
    """
    x, train = check_samples(x, train, ("x", "train"))
    held_out, _ = check_samples(held_out, train, ("held_out", "train"))
    tree = cKDTree(train)
    near, fresh = tree.query(x)[0], tree.query(held_out)[0]
    return NearestDistance(
        float(np.median(near)),
        float(np.median(fresh)),
        area_under_curve(-near, -fresh),
        float(np.mean(near == 0)),
        float(np.mean(fresh == 0)),
    )
