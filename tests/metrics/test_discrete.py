"""Discrete observables: histograms that keep outliers, effect sizes, the chi-square test."""

import numpy as np
import pytest
import scipy.stats

from egmjax import metrics


def test_total_variation_by_hand():
    assert metrics.total_variation([0.5, 0.5], [1.0, 0.0]) == 0.5
    assert metrics.total_variation([1.0, 0.0], [0.0, 1.0]) == 1.0


def test_outliers_are_not_free():
    index = np.array([0, 0, 1, 1, 7, -1, 2, 2])
    frequencies = metrics.histogram(index, 2)
    np.testing.assert_allclose(frequencies, [0.25, 0.25, 0.5])
    # seeded fault: without the overflow cell these draws look perfect
    assert metrics.total_variation(frequencies, [0.5, 0.5, 0.0]) == pytest.approx(0.5)
    dropped = frequencies[:2] / frequencies[:2].sum()
    assert metrics.total_variation(dropped, [0.5, 0.5]) == 0.0


def test_weighted_histogram():
    np.testing.assert_allclose(metrics.histogram([0, 1, 5], 2, [1.0, 2.0, 1.0]), [0.25, 0.5, 0.25])


def test_effect_size():
    assert metrics.effect_size(3.0, 1.0, 4.0) == 0.5
    np.testing.assert_allclose(metrics.effect_size([1.0, 3.0], 1.0, [1.0, 2.0]), [0.0, 1.0])


def test_chi_square_matches_scipy():
    counts, probabilities = np.array([18, 25, 57]), np.array([0.2, 0.3, 0.5])
    expected = scipy.stats.chisquare(counts, 100 * probabilities).pvalue
    assert metrics.chi_square_test(counts, probabilities) == pytest.approx(expected, rel=1e-10)


def test_chi_square_pools_small_cells():
    probabilities = np.array([0.5, 0.44, 0.03, 0.03])
    expected = scipy.stats.chisquare([55, 38, 7], [50, 44, 6]).pvalue
    assert metrics.chi_square_test([55, 38, 3, 4], probabilities) == pytest.approx(expected, rel=1e-10)
    # a pool that is itself too small joins the smallest other cell
    probabilities = np.array([0.5, 0.48, 0.02])
    expected = scipy.stats.chisquare([55, 45], [50, 50]).pvalue
    assert metrics.chi_square_test([55, 43, 2], probabilities) == pytest.approx(expected, rel=1e-10)


def test_chi_square_p_values_are_uniform_and_catch_a_wrong_law():
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.ones(30))
    p_values = [metrics.chi_square_test(c, law) for c in rng.multinomial(5000, law, size=400)]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01
    assert metrics.chi_square_test(rng.multinomial(5000, rng.permutation(law)), law) < 1e-6


def test_chi_square_of_an_impossible_cell():
    assert metrics.chi_square_test([50, 49, 1], [0.5, 0.5, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: metrics.total_variation([0.5, 0.5], [1.0]), "q"),
        (lambda: metrics.total_variation([-0.5, 1.5], [0.5, 0.5]), "p"),
        (lambda: metrics.histogram(np.zeros(0, int), 2), "index"),
        (lambda: metrics.histogram([0.5], 2), "index"),
        (lambda: metrics.histogram([0], 0), "num_cells"),
        (lambda: metrics.histogram([0], 2, [1.0, 1.0]), "weight"),
        (lambda: metrics.histogram([0], 2, [-1.0]), "weight"),
        (lambda: metrics.effect_size(1.0, 0.0, 0.0), "exact_std"),
        (lambda: metrics.effect_size([1.0, 2.0], [0.0, 1.0, 2.0], 1.0), "exact_mean"),
        (lambda: metrics.chi_square_test([1, 2], [1.0]), "counts"),
        (lambda: metrics.chi_square_test([-1, 200], [0.5, 0.5]), "counts"),
        (lambda: metrics.chi_square_test([1, 2], [0.5, 0.5]), "counts"),
        (lambda: metrics.chi_square_test([50, 50], [0.5, 0.7]), "probabilities"),
    ],
)
def test_errors_name_the_argument(call, name):
    with pytest.raises(ValueError, match=f"^{name}:"):
        call()
