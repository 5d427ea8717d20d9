"""Transport distances against scipy and closed forms; noise floors against simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from egmjax import metrics


@pytest.mark.parametrize("weighted", [False, True])
def test_wasserstein1_matches_scipy(weighted):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=300), rng.integers(-3, 4, size=211).astype(float)
    weights = (rng.random(300), rng.random(211)) if weighted else (None, None)
    expected = scipy.stats.wasserstein_distance(x, y, *weights)
    assert metrics.wasserstein1(x, y, *weights) == pytest.approx(expected, rel=1e-10)


def test_small_cases_by_hand():
    assert metrics.wasserstein1([0.0], [3.0]) == 3.0
    assert metrics.wasserstein1([0.0, 1.0], [0.0], [3.0, 1.0]) == pytest.approx(0.25)
    assert metrics.wasserstein2_1d([0.0, 1.0], [0.0], [3.0, 1.0]) == pytest.approx(0.5)
    assert metrics.wasserstein2([[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]) == pytest.approx(
        math.sqrt(2)
    )


def test_points_of_weight_zero_are_ignored():
    assert metrics.wasserstein1([0.0, np.nan], [1.0], [1.0, 0.0]) == 1.0


def test_wasserstein2_agrees_with_one_dimension_and_takes_the_root():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=200), 0.5 * rng.normal(size=200) + 1
    sorted_coupling = math.sqrt(np.mean((np.sort(x) - np.sort(y)) ** 2))
    assert metrics.wasserstein2(x[:, None], y[:, None]) == pytest.approx(sorted_coupling, rel=1e-10)
    assert metrics.wasserstein2_1d(x, y) == pytest.approx(sorted_coupling, rel=1e-10)
    assert metrics.wasserstein2(x[:, None], x[:, None] + 3) == pytest.approx(3.0)


def test_wasserstein2_1d_with_weights_is_that_of_repeated_points():
    x, y = np.array([0.0, 2.0, 5.0]), np.array([1.0, 4.0])
    repeated = metrics.wasserstein2_1d(np.repeat(x, [1, 2, 3]), np.repeat(y, [3, 3]))
    assert metrics.wasserstein2_1d(x, y, [1, 2, 3], [1, 1]) == pytest.approx(repeated, rel=1e-12)


def test_gaussian_floor_closed_form_and_simulation():
    quantiles = scipy.stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    floor = metrics.wasserstein1_floor(2.0 * quantiles, 2000)
    assert floor == pytest.approx(2 * 0.0407, rel=2e-3)
    rng = np.random.default_rng(2)
    simulated = metrics.pairwise_floor(metrics.wasserstein1, lambda i: 2.0 * rng.normal(size=2000), 300)
    assert abs(simulated.mean - floor) < 4 * simulated.std / math.sqrt(300)


def test_floor_of_a_discrete_law_and_of_its_sample():
    values, probabilities = np.array([0.0, 1.0, 4.0]), np.array([0.5, 0.3, 0.2])
    floor = metrics.wasserstein1_floor((values, probabilities), 500)
    by_hand = 2 / math.sqrt(500 * math.pi) * (1 * math.sqrt(0.25) + 3 * math.sqrt(0.16))
    assert floor == pytest.approx(by_hand, rel=1e-12)
    rng = np.random.default_rng(3)
    simulated = metrics.pairwise_floor(
        metrics.wasserstein1, lambda i: rng.choice(values, 500, p=probabilities), 400
    )
    assert abs(simulated.mean - floor) < 4 * simulated.std / math.sqrt(400)
    sample = rng.choice(values, 100_000, p=probabilities)
    assert metrics.wasserstein1_floor(sample, 500) == pytest.approx(floor, rel=0.02)


@pytest.mark.parametrize("num_cells", [3, 4000])
def test_total_variation_floor_against_simulation(num_cells):
    probabilities = np.random.default_rng(4).dirichlet(np.ones(num_cells))
    rng = np.random.default_rng(5)
    simulated = metrics.pairwise_floor(
        metrics.total_variation, lambda i: rng.multinomial(1000, probabilities) / 1000, 300
    )
    floor = metrics.total_variation_floor(probabilities, 1000)
    assert abs(simulated.mean - floor) < 4 * simulated.std / math.sqrt(300)


def test_total_variation_floor_limits():
    many = np.full(100_000, 1e-5)
    assert metrics.total_variation_floor(many, 10) == pytest.approx(1.0, abs=1e-3)
    assert metrics.total_variation_floor([0.5, 0.5], 10_000) == pytest.approx(
        math.sqrt(1 / (math.pi * 10_000)), rel=1e-3
    )
    assert metrics.total_variation_floor([1.0, 0.0], 10) == 0.0


def test_pairs_are_distinct_draws():
    seen = []
    floor = metrics.pairwise_floor(lambda a, b: abs(a - b), lambda i: seen.append(i) or float(i), 3)
    assert seen == [0, 1, 2, 3, 4, 5]
    assert floor == (1.0, 0.0, 3)
    assert math.isnan(metrics.pairwise_floor(lambda a, b: 1.0, lambda i: i, 1).std)


def test_seeded_fault_a_shifted_sampler_stands_above_the_floor():
    rng = np.random.default_rng(6)
    floor = metrics.wasserstein1_floor(rng.normal(size=20_000), 2000)
    assert metrics.wasserstein1(rng.normal(size=2000) + 0.3, rng.normal(size=2000)) > 5 * floor


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: metrics.wasserstein1([], [1.0]), "x"),
        (lambda: metrics.wasserstein1([1.0], [[1.0]]), "y"),
        (lambda: metrics.wasserstein1([np.nan], [1.0]), "x"),
        (lambda: metrics.wasserstein1([1.0], [1.0], [1.0, 2.0]), "x_weight"),
        (lambda: metrics.wasserstein2_1d([1.0], [1.0], None, [-1.0]), "y_weight"),
        (lambda: metrics.wasserstein2([1.0], [[1.0]]), "x"),
        (lambda: metrics.wasserstein2([[1.0]], [[1.0], [2.0]]), "y"),
        (lambda: metrics.wasserstein2([[1.0]], [[np.inf]]), "y"),
        (lambda: metrics.wasserstein1_floor([], 10), "sample_or_law"),
        (lambda: metrics.wasserstein1_floor(([0.0], [-1.0]), 10), "probabilities"),
        (lambda: metrics.wasserstein1_floor([0.0, 1.0], 0), "num_samples"),
        (lambda: metrics.total_variation_floor([0.5, 0.2], 10), "probabilities"),
        (lambda: metrics.pairwise_floor(max, int, 0), "num_pairs"),
    ],
)
def test_errors_name_the_argument(call, name):
    with pytest.raises(ValueError, match=f"^{name}:"):
        call()
