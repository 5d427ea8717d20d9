"""Two-sample metrics against closed forms, brute force and the classical tests they contain."""

import numpy as np
import pytest
from scipy import linalg, stats

from egmjax.metrics import (
    area_under_curve,
    frechet_distance,
    kernel_distance,
    nearest_distance,
    two_sample_auc,
)

RNG = np.random.default_rng(3)


def whitened(n, f):
    """A sample whose mean is zero and whose covariance is one, exactly."""
    x = RNG.standard_normal((n, f))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False).reshape(f, f))).T


def test_frechet_distance_of_gaussians():
    a, b = RNG.standard_normal((2, 3, 3))
    x, y = whitened(50, 3) @ a.T + 1.0, whitened(80, 3) @ b.T
    c, d = a @ a.T, b @ b.T
    exact = 3.0 + np.trace(c + d - 2 * linalg.sqrtm(c @ d).real)
    assert frechet_distance(x, y) == pytest.approx(exact, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(exact, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    without_mean = frechet_distance(x - x.mean(0), y - y.mean(0))
    assert exact - without_mean == pytest.approx(3.0, rel=1e-6), "the means count"
    # singular covariances: one feature constant, one doubled
    u, v = whitened(40, 1), 2.0 * whitened(30, 1)
    flat = [np.concatenate([s, s, np.zeros_like(s)], axis=1) for s in (u, v)]
    assert frechet_distance(*flat) == pytest.approx(2 * (2 - 1) ** 2, rel=1e-6)


@pytest.mark.parametrize("kernel", ["polynomial", "rbf"])
def test_kernel_distance_is_the_unbiased_statistic(kernel):
    x, y = RNG.standard_normal((7, 2)), RNG.standard_normal((9, 2)) + 0.5

    def k(a, b):
        if kernel == "polynomial":
            return (a @ b / 2 + 1) ** 3
        return np.exp(-np.sum((a - b) ** 2) / (2 * 0.7**2))

    def mean(a, b, same):
        values = [k(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        return np.mean(values)

    def statistic(x, y):
        return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)

    scale = 0.7 if kernel == "rbf" else None
    result = kernel_distance(x, y, kernel=kernel, scale=scale, num_blocks=3)
    assert result.value == pytest.approx(statistic(x, y), rel=1e-9)
    blocks = [np.arange(len(a)) * 3 // len(a) for a in (x, y)]
    left = np.array([statistic(x[blocks[0] != b], y[blocks[1] != b]) for b in range(3)])
    assert result.stderr == pytest.approx(np.sqrt(2 * np.var(left)), rel=1e-9)
    with_diagonal = np.mean([k(p, q) for p in x for q in x])
    assert abs(with_diagonal - mean(x, x, True)) > 1e-3, "a biased sum would be seen"


def test_kernel_distance_and_its_error_over_repetitions():
    """Mean zero between equal laws; errors of the size that is seen, where laws differ."""
    equal = [kernel_distance(*RNG.standard_normal((2, 100, 2)), kernel="rbf", scale=1.0) for _ in range(60)]
    values = np.array([e.value for e in equal])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(60)
    shift = np.array([1.0, 0.0])
    pairs = [RNG.standard_normal((2, 100, 2)) for _ in range(100)]
    apart = [kernel_distance(x, y + shift, kernel="rbf", scale=1.0) for x, y in pairs]
    spread = np.std([e.value for e in apart])
    # k(x, y) of unit Gaussians at a distance m in the plane: exp(-m^2 / 6) / 3
    exact = 2 / 3 * (1 - np.exp(-1 / 6))
    assert abs(np.mean([e.value for e in apart]) - exact) < 4 * spread / 10
    ratio = np.mean([e.stderr for e in apart]) / spread
    assert 0.7 < ratio < 1.4, ratio


def test_area_under_the_curve():
    a, b = RNG.integers(0, 6, 40).astype(float), RNG.integers(0, 5, 30).astype(float)
    result = area_under_curve(a, b)
    pairs = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    assert result.value == pytest.approx(pairs.mean())
    assert result.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / 1200)
    placed = np.var(pairs.mean(1), ddof=1) / 40 + np.var(pairs.mean(0), ddof=1) / 30
    assert result.stderr == pytest.approx(np.sqrt(placed))
    assert area_under_curve([2.0, 3.0], [0.0, 1.0]).value == 1.0


@pytest.mark.parametrize("classifier", ["logistic", pytest.param("boosting", marks=pytest.mark.slow)])
def test_classifiers_on_known_laws(classifier):
    """Gaussians a distance 1 apart: the best AUC is Phi(1 / sqrt 2) = .760; equal laws give a half."""
    x, y = RNG.standard_normal((2, 1500 if classifier == "logistic" else 400, 2))
    far = two_sample_auc(x + np.array([1.0, 0.0]), y, classifier=classifier)
    best = stats.norm.cdf(1 / np.sqrt(2))
    loss = 0.0 if classifier == "logistic" else 0.1
    assert best - loss - 4 * far.stderr < far.value < best + 4 * far.stderr
    if classifier == "logistic":  # boosting takes its time
        same = two_sample_auc(x, y, classifier=classifier)
        assert abs(same.value - 0.5) < 4 * same.stderr
    # a difference in variance alone: a linear score is blind to it
    wide = two_sample_auc(3 * x, y, classifier=classifier)
    assert (abs(wide.value - 0.5) < 5 * wide.stderr) == (classifier == "logistic")


def test_nearest_distance_sees_copies():
    train, fresh, held_out = RNG.standard_normal((3, 400, 2))
    honest = nearest_distance(fresh, train, held_out)
    assert abs(honest.closer.value - 0.5) < 4 * honest.closer.stderr
    assert honest.copies == 0
    brute = np.min(np.linalg.norm(fresh[:, None] - train[None], axis=-1), axis=1)
    assert honest.median == pytest.approx(np.median(brute))
    copied = nearest_distance(train[:300] + 1e-3, train, held_out)
    assert copied.closer.value > 0.9
    assert nearest_distance(train[:100], train, held_out).copies == 1
    assert copied.held_out_median == honest.held_out_median


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: frechet_distance([[1.0], [np.nan]], [[1.0], [2.0]]), "x: expected finite"),
        (lambda: frechet_distance([[1.0], [2.0]], [1.0, 2.0]), "y: expected shape"),
        (lambda: frechet_distance(np.ones((1, 2)), np.ones((3, 2))), "x: expected shape"),
        (lambda: frechet_distance(np.ones((3, 1)), np.ones((3, 2))), "y: expected 1 features"),
        (lambda: kernel_distance(np.ones((9, 1)), np.ones((9, 1)), num_blocks=5), "num_blocks"),
        (lambda: kernel_distance(np.ones((99, 1)), np.ones((99, 1)), kernel="cosine"), "kernel"),
        (lambda: kernel_distance(np.ones((99, 1)), np.ones((99, 1)), kernel="rbf", scale=0), "scale"),
        (lambda: two_sample_auc(np.ones((9, 1)), np.ones((9, 1)), classifier="svm"), "classifier"),
        (lambda: two_sample_auc(np.ones((9, 1)), np.ones((9, 1)), test_fraction=1.0), "test_fraction"),
        (lambda: area_under_curve([], [1.0]), "positive"),
        (lambda: nearest_distance(np.ones((2, 1)), np.ones((2, 1)), np.ones((2, 3))), "train: expected 3"),
    ],
)
def test_refusals(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_without_scikit_learn(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ImportError, match="scikit-learn"):
        two_sample_auc(np.ones((9, 1)), np.ones((9, 1)))
