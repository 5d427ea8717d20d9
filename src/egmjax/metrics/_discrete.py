"""Discrete observables against exact laws, on the host in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc

from ._floors import check_probabilities

__all__ = ["chi_square_test", "effect_size", "histogram", "total_variation"]


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
    expected = counts.sum() * probabilities / probabilities.sum()
    full = expected >= 5
    kept, law = counts[full], expected[full]
    pooled_count, pooled_law = counts[~full].sum(), expected[~full].sum()
    if pooled_law >= 5:
        kept, law = np.append(kept, pooled_count), np.append(law, pooled_law)
    elif pooled_law > 0 and law.size:
        smallest = np.argmin(law)
        kept[smallest] += pooled_count
        law[smallest] += pooled_law
    if law.size < 2:
        raise ValueError(f"counts: {counts.sum():.0f} draws leave fewer than two cells with expected count 5")
    return float(chdtrc(law.size - 1, np.sum((kept - law) ** 2 / law)))
