"""Orders of generation, as ranks for the schedule `paths.Ordered`.

    coarse to fine   each next site is the farthest from those before it (maximin, the order of Vecchia approximations:
                     Guinness, 2018), so that it lies between known ones; the sites in `last` come after all others
    displacements    from each site to each other, those that are equal on a torus with one number
    contexts         of each site the earlier ones that are nearest: what it depends on most

Sites far apart come first because little can be said of them in any order; what comes later is hemmed in by what is
known, and a few of the nearest known sites say nearly all about it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


def torus_points(length: int) -> np.ndarray:
    """Coordinates `[length^2, 2]` of the sites of a `length x length` torus, row by row."""
    return np.stack(np.divmod(np.arange(length**2), length), axis=-1).astype(float)


def coarse_to_fine(points: Any, *, period: float | None = None, last: Any = None) -> np.ndarray:
    """Ranks `[sites]`, integers: one site a rank, then all sites where `last [sites]` is true in one rank.

    Args:
        points: Coordinates `[sites, d]`; sites at equal distances are taken in their order.
        period: Of every coordinate, on a torus.
        last: Sites of the last rank, e.g. `targets.independent_sites`; none if left out, so the last rank has one.

    Costs `sites^2` distances, on the host. Raises `ValueError` for another shape, or where `last` leaves no site.
    """
    points = _check_points(points)
    num = len(points)
    is_last = np.zeros(num, bool) if last is None else np.asarray(last)
    if is_last.shape != (num,) or is_last.dtype != bool or is_last.all():
        raise ValueError(f"last: expected {num} booleans, not all of them true")
    rank = np.full(num, int((~is_last).sum()))
    nearest = np.where(is_last, -np.inf, np.inf)
    for place in range(rank.max()):
        site = int(np.argmax(nearest))
        rank[site] = place
        nearest = np.minimum(nearest, _distance(points, points[site], period))
        nearest[rank <= place] = -np.inf
    return rank


def nearest_earlier(points: Any, rank: Any, num: int, *, period: float | None = None) -> np.ndarray:
    """Of each site the `num` nearest ones of lower rank, `[sites, num]` integers; `-1` where there are fewer.

    Raises `ValueError` for `num < 1` or points and ranks that do not fit.
    """
    points, rank = _check_points(points), np.asarray(rank)
    if rank.shape != (len(points),):
        raise ValueError(f"rank: expected [{len(points)}], got {list(rank.shape)}")
    if num < 1:
        raise ValueError(f"num: at least 1, got {num}")
    table = np.full((len(points), num), -1)
    for site in range(len(points)):
        distance = np.where(rank < rank[site], _distance(points, points[site], period), np.inf)
        found = np.argsort(distance, kind="stable")[: min(num, int((rank < rank[site]).sum()))]
        table[site, : len(found)] = found
    return table


def displacements(points: Any, *, period: float | None = None) -> np.ndarray:
    """Numbers `[sites, sites]` of the displacements `points[j] - points[i]`, the same where these are equal.

    On a torus, `period` of every coordinate, where `L^2` sites have `L^2` of them. Raises `ValueError` for another
    shape of points.
    """
    points = _check_points(points)
    apart = _apart(points, period)
    if period is not None:
        apart = apart % period  # in the order of places, seen from the first
    _, number = np.unique(apart.reshape(-1, points.shape[1]), axis=0, return_inverse=True)
    return number.reshape(len(points), len(points))


class TiedRows(NamedTuple):
    """Which rows are alike, and which of the places that they see: for `networks.OrderedMLPs` and `OrderAgnosticMLPs`.

    Kinds of rows `[num]` and of pairs of row and place `[num, num]`, integers from 0 on; weights `[num, num]` of the
    latter, whose squares have an average of one over the places that a row sees. Of places that it does not see, later
    ones of an order and its own, they are 0.
    """

    row: np.ndarray
    pair: np.ndarray
    weight: np.ndarray


def tie_by_displacement(
    points: Any, *, period: float | None = None, decay: float = 1.0, any_order: bool = False
) -> TiedRows:
    """Rows are alike whose nearest earlier point is equally far, and see alike what is equally displaced from them.

        weight_ij = distance_ij^-decay, up to a factor for each row

    `points [num, d]` by rank, e.g. `torus_points(L)[order.first]`, with `period` as in `coarse_to_fine`. In an order
    from coarse to fine nearly all is the same around rows of one kind, and a translation away; what differs is
    which of the others of their kind came before. With `any_order` points are in no order, each row sees all others,
    all rows are alike, and the factor is the same for all. Costs `num^2 log(num)`. Raises `ValueError` as
    `coarse_to_fine`, and where two points are the same.
    """
    points = _check_points(points)
    num = len(points)
    apart = _apart(points, period)
    distance = np.sqrt(np.sum(apart**2, axis=-1))
    seen = ~np.eye(num, dtype=bool) if any_order else np.tri(num, k=-1, dtype=bool)
    if np.any(distance[seen] == 0):
        raise ValueError("points: two of them are the same")
    nearest = np.zeros(num) if any_order else np.min(np.where(seen, distance, np.inf), axis=1)
    row = np.unique(np.round(nearest, 6), return_inverse=True)[1]
    kinds = np.concatenate([np.broadcast_to(row[:, None, None], (num, num, 1)), apart], axis=-1)
    pair = np.zeros((num, num), int)
    pair[seen] = np.unique(kinds[seen], axis=0, return_inverse=True)[1].reshape(-1)
    weight = np.zeros((num, num))
    weight[seen] = distance[seen] ** -decay
    squares, places = np.sum(weight**2, axis=1, keepdims=True), np.sum(seen, axis=1, keepdims=True)
    if any_order:  # what is equally displaced has one weight, also where rows see more or less
        squares, places = np.sum(squares), np.sum(places)
    weight *= np.sqrt(places / np.where(squares > 0, squares, 1.0))
    return TiedRows(row, pair, weight)


def _check_points(points: Any) -> np.ndarray:
    points = np.asarray(points, float)
    if points.ndim != 2 or not len(points):
        raise ValueError(f"points: expected [sites, d], got {list(points.shape)}")
    return points


def _apart(points: np.ndarray, period: float | None) -> np.ndarray:
    """`points[j] - points[i]`, `[i, j, d]`, on a torus those of least size."""
    apart = np.round(points - points[:, None], 9)
    if period is None:
        return apart
    half = 0.5 * period
    return np.round(np.round(apart + half, 9) % period, 9) % period - half


def _distance(points: np.ndarray, point: np.ndarray, period: float | None) -> np.ndarray:
    apart = np.abs(points - point)
    if period is not None:
        apart = np.minimum(apart, period - apart)
    return np.round(np.sum(apart**2, axis=-1), 9)  # equal distances are to be equal
