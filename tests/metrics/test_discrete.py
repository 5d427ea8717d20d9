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


def test_holm_by_hand_and_as_statsmodels_has_it():
    np.testing.assert_allclose(metrics.holm([0.04, 0.01, 0.03, 0.9]), [0.09, 0.04, 0.09, 0.9])
    assert metrics.holm([]).shape == (0,)
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).uniform(size=40) ** 3
    np.testing.assert_allclose(metrics.holm(p_values), multitest.multipletests(p_values, method="holm")[1])
    # seeded fault: without the running maximum the third of these would be rejected before the second
    assert np.all(np.diff(metrics.holm([0.01, 0.02, 0.021])) >= 0)
    with pytest.raises(ValueError, match=r"^p_values: "):
        metrics.holm([0.5, np.nan])


def test_weighted_chi_square_of_equal_weights_is_pearsons():
    rng = np.random.default_rng(1)
    law = np.append(rng.dirichlet(np.ones(12)), [1e-5, 2e-5])
    law /= law.sum()
    index = rng.choice(14, 3_000, p=law)
    expected = metrics.chi_square_test(np.bincount(index, minlength=14), law)
    assert metrics.weighted_chi_square_test(index, law, np.full(3_000, 0.3)) == pytest.approx(
        expected, rel=1e-9
    )


def test_weighted_chi_square_p_values_are_uniform_and_catch_a_wrong_law():
    """Draws of another law, weighted; within a cell the weights vary too. Ignoring the weights' variance fails."""
    rng = np.random.default_rng(2)
    law, drawn = rng.dirichlet(np.full(10, 4.0)), rng.dirichlet(np.full(10, 4.0))
    found, pearson, wrong = [], [], []
    for _ in range(400):
        index = rng.choice(10, 4_000, p=drawn)
        weight = (law / drawn)[index] * rng.gamma(2.0, 0.5, 4_000)
        found.append(metrics.weighted_chi_square_test(index, law, weight))
        wrong.append(metrics.weighted_chi_square_test(index, np.roll(law, 1), weight))
        d = metrics.histogram(index, 10, weight)[:-1] - law
        pearson.append(scipy.stats.chi2.sf(4_000 * np.sum(d**2 / law), 9))
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01
    assert max(wrong) < 1e-6
    assert scipy.stats.kstest(pearson, "uniform").pvalue < 1e-6


def test_weighted_chi_square_refuses_and_counts_outliers():
    assert metrics.weighted_chi_square_test([0, 1, 2] * 20, [0.5, 0.5], np.ones(60)) == 0.0
    inside = metrics.weighted_chi_square_test([0, 1] * 20, [0.5, 0.5], np.ones(40))
    weight = np.tile([1.0, 1.0, 0.0], 20)  # outliers that have no weight do not count
    assert metrics.weighted_chi_square_test([0, 1, 2] * 20, [0.5, 0.5], weight) == pytest.approx(inside)
    with pytest.raises(ValueError, match=r"^weight: an ESS of 4 "):
        metrics.weighted_chi_square_test([0, 1, 1, 0], [0.5, 0.5], np.ones(4))
