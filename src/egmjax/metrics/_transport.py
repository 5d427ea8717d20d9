"""Transport distances between samples, on the host in float64."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

__all__ = ["wasserstein1", "wasserstein2", "wasserstein2_1d"]


def wasserstein1(
    x: ArrayLike, y: ArrayLike, x_weight: ArrayLike | None = None, y_weight: ArrayLike | None = None
) -> float:
    """`W1 = integral |F(u) - G(u)| du`, exact, between the weighted samples `x [n]` and `y [m]` on the line.

    `x_weight [n]`, `y_weight [m]` need not be normalised; equal where `None`. An exact discrete law is its
    values with its probabilities as weights. Points of weight zero are ignored. Raises `ValueError` for an
    input that is empty, not one-dimensional or not finite, and for weights of another length, negative, or
    summing to zero.
    """
    x, x_weight = weighted_points(x, x_weight, "x", "x_weight")
    y, y_weight = weighted_points(y, y_weight, "y", "y_weight")
    point = np.concatenate([x, y])
    order = np.argsort(point, kind="stable")
    difference = np.cumsum(np.concatenate([x_weight, -y_weight])[order])
    return float(np.sum(np.abs(difference[:-1]) * np.diff(point[order])))


def wasserstein2_1d(
    x: ArrayLike, y: ArrayLike, x_weight: ArrayLike | None = None, y_weight: ArrayLike | None = None
) -> float:
    """`W2 = sqrt(integral_0^1 (F^-1(u) - G^-1(u))^2 du)`, exact, between weighted samples on the line.

    Arguments and errors as for `wasserstein1`.
    """
    x, x_weight = weighted_points(x, x_weight, "x", "x_weight")
    y, y_weight = weighted_points(y, y_weight, "y", "y_weight")
    x_order, y_order = np.argsort(x), np.argsort(y)
    x_level, y_level = np.cumsum(x_weight[x_order]), np.cumsum(y_weight[y_order])
    level = np.sort(np.concatenate([[0.0], x_level[:-1], y_level[:-1], [1.0]]))
    middle = 0.5 * (level[1:] + level[:-1])
    x_quantile = x[x_order][np.minimum(np.searchsorted(x_level, middle), x.size - 1)]
    y_quantile = y[y_order][np.minimum(np.searchsorted(y_level, middle), y.size - 1)]
    return math.sqrt(np.sum(np.diff(level) * (x_quantile - y_quantile) ** 2))


def wasserstein2(x: ArrayLike, y: ArrayLike) -> float:
    """`W2 = sqrt(min over matchings s of (1/n) sum_i |x_i - y_s(i)|^2)`, exact, for clouds `x, y [n, dim]`.

    Takes `n^2` memory and about `n^3` time: a second or so at `n = 2000`. Raises `ValueError` for an input
    that is empty, not two-dimensional or not finite, and where the two shapes differ.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    for name, value in (("x", x), ("y", y)):
        if value.ndim != 2 or value.size == 0:
            raise ValueError(f"{name}: expected shape [n, dim] with n, dim >= 1, got {list(value.shape)}")
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{name}: expected finite values, got {np.sum(~np.isfinite(value))} others")
    if x.shape != y.shape:
        raise ValueError(f"y: expected the shape {list(x.shape)} of x, got {list(y.shape)}")
    cost = cdist(x, y, "sqeuclidean")
    row, column = linear_sum_assignment(cost)
    return math.sqrt(cost[row, column].mean())


def weighted_points(
    value: ArrayLike, weight: ArrayLike | None, name: str, weight_name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Float64 points of positive weight with their weights normalised; raises `ValueError` by name."""
    value = np.asarray(value, np.float64)
    if value.ndim != 1 or value.size == 0:
        raise ValueError(f"{name}: expected shape [n] with n >= 1, got {list(value.shape)}")
    if weight is None:
        weight = np.full(value.shape, 1.0 / value.size)
    else:
        weight = np.asarray(weight, np.float64)
        if weight.shape != value.shape:
            raise ValueError(f"{weight_name}: expected shape {list(value.shape)}, got {list(weight.shape)}")
        if not np.all(np.isfinite(weight)) or np.any(weight < 0) or weight.sum() <= 0:
            raise ValueError(f"{weight_name}: expected finite non-negative weights with a positive sum")
        value, weight = value[weight > 0], weight[weight > 0]
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{name}: expected finite values, got {np.sum(~np.isfinite(value))} others")
    return value, weight / weight.sum()
