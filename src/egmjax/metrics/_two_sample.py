"""Distances between two samples that need no density: Frechet, kernel, classifier. On the host in float64."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

__all__ = [
    "Estimate",
    "area_under_curve",
    "check_samples",
    "frechet_distance",
    "kernel_distance",
    "two_sample_auc",
]


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    stderr: float


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """`|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^{1/2})`, for features `x [n, f]`, `y [m, f]`.

    The squared W2 distance between Gaussians of these moments (Heusel et al. 2017), covariances with `n - 1`. The trace
    of the root is the nuclear norm of `C_x^{1/2} C_y^{1/2}`, which is real and stable for singular covariances too.
    Biased upwards by about `f / n`: compare with two real samples of the same sizes. Costs `f^3`. Raises `ValueError`
    for samples that are not `[n >= 2, f]`, not finite, or of unequal width.
    """
    x, y = check_samples(x, y)
    x_root, y_root = _covariance_root(x), _covariance_root(y)
    cross = np.linalg.svd(x_root @ y_root, compute_uv=False).sum()
    spread = np.sum(x_root**2) + np.sum(y_root**2) - 2.0 * cross
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + max(spread, 0.0))


def kernel_distance(
    x: ArrayLike,
    y: ArrayLike,
    *,
    kernel: Literal["polynomial", "rbf"] = "polynomial",
    scale: float | None = None,
    num_blocks: int = 20,
) -> Estimate:
    """Unbiased `MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)`, for features `x [n, f]`, `y [m, f]`; may be negative.

    "polynomial": `(x.y / f + 1)^3` (the kernel inception distance, Binkowski et al. 2018). "rbf":
    `exp(-|x - y|^2 / (2 scale^2))`, `scale` by default the median distance of both samples together. The standard
    error is the jackknife's over `num_blocks` pairs of blocks; where both laws are equal the statistic is
    degenerate and it comes out up to 1.4 times too large. Costs `(n + m)^2 f`. Raises `ValueError` as
    `frechet_distance`, for fewer blocks than two or more than half the rows, another kernel, or a scale that is not
    positive.
    """
    x, y = check_samples(x, y)
    if not 2 <= num_blocks <= min(len(x), len(y)) // 2:
        raise ValueError(f"num_blocks: from 2 to half of {min(len(x), len(y))} rows, got {num_blocks}")
    if kernel not in ("polynomial", "rbf"):
        raise ValueError(f'kernel: expected "polynomial" or "rbf", got {kernel!r}')
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"scale: must be positive and finite, got {scale}")
    both = np.concatenate([x, y])
    if kernel == "polynomial":
        gram = (both @ both.T / x.shape[1] + 1.0) ** 3
    else:
        squared = cdist(both, both, "sqeuclidean")
        width = np.median(squared[np.triu_indices(len(both), 1)]) if scale is None else scale**2
        gram = np.exp(-0.5 * squared / width)
    np.fill_diagonal(gram, 0.0)
    # sums over pairs of blocks hold all that the leave-one-block-out values need
    x_block, y_block = (np.arange(len(a)) * num_blocks // len(a) for a in (x, y))
    member = np.zeros((2 * num_blocks, len(both)))
    member[np.concatenate([x_block, num_blocks + y_block]), np.arange(len(both))] = 1.0
    total = member @ gram @ member.T
    sizes = member.sum(axis=1)

    def distance(keep: np.ndarray) -> float:
        chosen_x, chosen_y = np.flatnonzero(keep), num_blocks + np.flatnonzero(keep)
        n, m = sizes[chosen_x].sum(), sizes[chosen_y].sum()
        within_x = total[np.ix_(chosen_x, chosen_x)].sum() / (n * (n - 1))
        within_y = total[np.ix_(chosen_y, chosen_y)].sum() / (m * (m - 1))
        return within_x + within_y - 2.0 * total[np.ix_(chosen_x, chosen_y)].sum() / (n * m)

    left_out = np.array([distance(np.arange(num_blocks) != b) for b in range(num_blocks)])
    stderr = math.sqrt((num_blocks - 1) * np.mean((left_out - left_out.mean()) ** 2))
    return Estimate(float(distance(np.ones(num_blocks, bool))), stderr)


def two_sample_auc(
    x: ArrayLike,
    y: ArrayLike,
    *,
    classifier: Literal["logistic", "boosting"] = "boosting",
    test_fraction: float = 0.5,
    seed: int = 0,
) -> Estimate:
    """How well a classifier tells `x [n, f]` from `y [m, f]`: its area under the ROC curve on rows held out from it.

    .5 where it finds no difference, 1 where it never errs. "logistic" is linear in standardised features, "boosting" is
    histogram gradient boosting of trees; both are scikit-learn's. The standard error is DeLong's, given the
    classifier. Raises `ValueError` as `frechet_distance`, for another classifier or a fraction outside (0, 1), and
    `ImportError` without scikit-learn.
    """
    x, y = check_samples(x, y)
    if classifier not in ("logistic", "boosting"):
        raise ValueError(f'classifier: expected "logistic" or "boosting", got {classifier!r}')
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction: in (0, 1), got {test_fraction}")
    model = _classifier(classifier, seed)
    rng = np.random.default_rng(seed)
    parts = []
    for sample in (x, y):
        cut = min(max(round(test_fraction * len(sample)), 1), len(sample) - 1)
        order = rng.permutation(len(sample))
        parts.append((sample[order[cut:]], sample[order[:cut]]))
    (x_train, x_test), (y_train, y_test) = parts
    label = np.repeat([1, 0], [len(x_train), len(y_train)])
    model.fit(np.concatenate([x_train, y_train]), label)
    score = model.decision_function
    return area_under_curve(score(x_test), score(y_test))


def area_under_curve(positive: ArrayLike, negative: ArrayLike) -> Estimate:
    """`P(positive > negative) + P(equal) / 2` for scores `[n]`, `[m]`, with DeLong's standard error (1988).

    `nan` where a sample has one score. Costs a sort. Raises `ValueError` for empty or misshapen scores.
    """
    a, b = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if a.ndim != 1 or b.ndim != 1 or not a.size or not b.size:
        raise ValueError(f"positive: expected scores [n] and [m], got {list(a.shape)} and {list(b.shape)}")
    rank = rankdata(np.concatenate([a, b]))
    below_a = (rank[: len(a)] - rankdata(a)) / len(b)  # share of negatives below each positive, ties half
    above_b = 1.0 - (rank[len(a) :] - rankdata(b)) / len(a)
    variance = (
        np.var(below_a, ddof=1) / len(a) + np.var(above_b, ddof=1) / len(b)
        if min(a.size, b.size) > 1
        else np.nan
    )
    return Estimate(float(below_a.mean()), float(np.sqrt(variance)))


def check_samples(
    x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("x", "y")
) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64; raises `ValueError` unless `[n >= 2, f]`, `[m >= 2, f]` and finite."""
    samples = np.asarray(x, np.float64), np.asarray(y, np.float64)
    for name, value in zip(names, samples):
        if value.ndim != 2 or len(value) < 2 or value.shape[1] < 1:
            raise ValueError(f"{name}: expected shape [n, f] with n >= 2, f >= 1, got {list(value.shape)}")
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{name}: expected finite values, got {np.sum(~np.isfinite(value))} others")
    if samples[0].shape[1] != samples[1].shape[1]:
        raise ValueError(
            f"{names[1]}: expected {samples[0].shape[1]} features as {names[0]}, got {samples[1].shape[1]}"
        )
    return samples


def _covariance_root(x: np.ndarray) -> np.ndarray:
    value, vector = np.linalg.eigh(np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1]))
    return (vector * np.sqrt(np.maximum(value, 0.0))) @ vector.T


def _classifier(name: str, seed: int) -> Any:
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            "two_sample_auc needs scikit-learn; it comes with the extra egmjax[scripts]"
        ) from error
    if name == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return HistGradientBoostingClassifier(random_state=seed)
