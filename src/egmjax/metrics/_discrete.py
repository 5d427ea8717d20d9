"""Discrete observables against exact laws, on the host in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc

from ._floors import check_probabilities

__all__ = [
    "chi_square_test",
    "effect_size",
    "histogram",
    "holm",
    "total_variation",
    "weighted_chi_square_test",
]


def total_variation(p: ArrayLike, q: ArrayLike) -> float:
    """`TV = 1/2 sum_i |p_i - q_i|` in [0, 1], for probabilities `p, q [m]`.

    Against `histogram`, give the exact law a last cell of probability 0. Raises `ValueError` unless both are
    non-negative with sum 1 (to 1e-4) and of one length.
    """
    p, q = check_probabilities(p, "p"), check_probabilities(q, "q")
    if p.shape != q.shape:
        raise ValueError(f"q: expected length {p.size} as p has, got {q.size}")
    return float(0.5 * np.sum(np.abs(p - q)))


def histogram(index: ArrayLike, num_cells: int, weight: ArrayLike | None = None) -> np.ndarray:
    """`h_c = sum_i w_i 1[index_i = c] / sum_i w_i`, float64 `[num_cells + 1]`, sum 1.

    The last cell holds every index outside `0..num_cells-1`: outliers are counted, not dropped. `index [n]`
    is integer, `weight [n]` need not be normalised. Raises `ValueError` for an empty, misshapen or
    non-integer `index`, `num_cells < 1`, and for weights of another length, negative, or summing to zero.
    """
    index = np.asarray(index)
    if index.ndim != 1 or index.size == 0 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"index: expected integers [n] with n >= 1, got {index.dtype}{list(index.shape)}")
    if num_cells < 1:
        raise ValueError(f"num_cells: expected at least 1, got {num_cells}")
    weight = np.ones(index.shape) if weight is None else np.asarray(weight, np.float64)
    if weight.shape != index.shape:
        raise ValueError(f"weight: expected shape {list(index.shape)}, got {list(weight.shape)}")
    if not np.all(np.isfinite(weight)) or np.any(weight < 0) or weight.sum() <= 0:
        raise ValueError("weight: expected finite non-negative weights with a positive sum")
    cell = np.where((index >= 0) & (index < num_cells), index, num_cells)
    return np.bincount(cell, weight, minlength=num_cells + 1) / weight.sum()


def effect_size(value: ArrayLike, exact_mean: ArrayLike, exact_std: ArrayLike) -> float | np.ndarray:
    """`(value - exact_mean) / exact_std`: an estimated mean's error in standard deviations of the observable.

    Elementwise; a float for scalars. An exact sampler of `n` draws has standard error `1 / sqrt(n)`. Raises
    `ValueError` where `exact_std` is not positive or the shapes do not match.
    """
    value, exact_mean, exact_std = (np.asarray(a, np.float64) for a in (value, exact_mean, exact_std))
    if not np.all(exact_std > 0):
        raise ValueError(f"exact_std: expected positive numbers, got {exact_std}")
    for name, a in (("exact_mean", exact_mean), ("exact_std", exact_std)):
        if a.shape not in ((), value.shape):
            raise ValueError(f"{name}: expected a scalar or shape {list(value.shape)}, got {list(a.shape)}")
    size = (value - exact_mean) / exact_std
    return float(size) if size.ndim == 0 else size


def chi_square_test(counts: ArrayLike, probabilities: ArrayLike) -> float:
    """Pearson's p-value `P(chi2_{m-1} > sum_i (c_i - n p_i)^2 / (n p_i))` of `counts [m]` against a law.

    Cells with expected count `n p_i < 5` are pooled into one, and that one with the smallest other cell where
    it is still below 5. A count in a cell of probability zero gives 0. The draws must be independent. Raises
    `ValueError` for mismatched lengths, negative or fractional counts, probabilities that do not sum to 1,
    and where fewer than two cells remain, since the test could not fail.
    """
    probabilities = check_probabilities(probabilities, "probabilities")
    counts = np.asarray(counts, np.float64)
    if counts.shape != probabilities.shape:
        raise ValueError(f"counts: expected shape {list(probabilities.shape)}, got {list(counts.shape)}")
    if not np.all(counts >= 0) or np.any(counts != np.round(counts)) or counts.sum() < 1:
        raise ValueError("counts: expected non-negative whole numbers, at least one of them positive")
    if np.any(counts[probabilities == 0] > 0):
        return 0.0
    label = _pooled_cells(probabilities, 5.0 / counts.sum())
    law = np.bincount(label, counts.sum() * probabilities / probabilities.sum())
    kept = np.bincount(label, counts)
    if law.size < 2:
        raise ValueError(f"counts: {counts.sum():.0f} draws leave fewer than two cells with expected count 5")
    return float(chdtrc(law.size - 1, np.sum((kept - law) ** 2 / law)))


def weighted_chi_square_test(index: ArrayLike, probabilities: ArrayLike, weight: ArrayLike) -> float:
    """`P(chi2_{m-1} > d' C^+ d)`, `d = h - p` of the weighted `histogram` of `index [n]` against `p [m]`.

        C = diag(s) - s p' - p s' + (sum_c s_c) p p',    s_c = p_c sum_{i in c} W_i^2 / sum_{i in c} W_i

    is the covariance of self-normalised frequencies (delta method), `W` the normalised `weight [n]`, with the
    frequency of each cell set to its exact probability; equal weights give Pearson's statistic of
    `chi_square_test`. Cells with `p_c < 5 / ESS` are pooled as there. The draws must be independent; where few weights
    carry all the mass the p-value means as little as the mean. An index outside `0..m-1` gives 0. Raises
    `ValueError` as `histogram` does, and where fewer than two cells remain.
    """
    law = check_probabilities(probabilities, "probabilities")
    index, share = np.asarray(index), np.asarray(weight, np.float64)
    frequency = histogram(index, law.size, share)
    share = share / share.sum()
    if frequency[-1] > 0 or np.any(frequency[:-1][law == 0] > 0):
        return 0.0
    ess = 1.0 / np.sum(share**2)
    label = _pooled_cells(law, 5.0 / ess)
    num_cells = label.max() + 1
    if num_cells < 2:
        raise ValueError(f"weight: an ESS of {ess:.0f} leaves fewer than two cells with expected count 5")
    cell = label[np.clip(index, 0, law.size - 1)]  # what is outside has no weight
    law = np.bincount(label, law / law.sum())
    frequency = np.bincount(cell, share, num_cells)
    squares = np.bincount(cell, share**2, num_cells)
    # what a unit of mass contributes to the variance; of a cell that was never drawn, as much as any
    spread = np.where(frequency > 0, squares / np.where(frequency > 0, frequency, 1.0), 1.0 / ess)
    s = law * spread
    covariance = np.diag(s) - np.outer(s, law) - np.outer(law, s) + s.sum() * np.outer(law, law)
    d = (frequency - law)[:-1]  # frequencies sum to one
    return float(chdtrc(num_cells - 1, d @ np.linalg.solve(covariance[:-1, :-1], d)))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusted p-values `[m]` of a family of tests; rejecting those below `a` is wrong anywhere with probability `a`.

        adjusted_(k) = max_{j <= k} min(1, (m - j + 1) p_(j)),    p_(1) <= ... <= p_(m)

    However the tests depend on each other (Holm, 1979). In the order given. Raises `ValueError` unless all are
    in `[0, 1]` and of shape `[m]`.
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p_values: expected numbers [m] in [0, 1], got {p}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate((p.size - np.arange(p.size)) * p[order]))
    return adjusted


def _pooled_cells(probabilities: np.ndarray, least: float) -> np.ndarray:
    """A new number for each cell: those below `least` share one, and it joins the smallest other where it is below."""
    full = probabilities / probabilities.sum() >= least
    label = np.cumsum(full) - 1
    num_full = int(full.sum())
    pooled = probabilities[~full].sum() / probabilities.sum()
    if num_full and pooled < least:
        smallest = int(np.argmin(np.where(full, probabilities, np.inf)))
        return np.where(full, label, label[smallest])
    return np.where(full, label, num_full)
