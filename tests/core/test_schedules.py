"""Schedules against closed forms written out by hand: values, derivatives, ends, inverses, orders.

Tolerances: 1e-12 in float64 (rounding); ends are exact in both float types, or weights would be those of
another density.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.paths import Cosine, MaskedPath, Ordered, Polynomial, derivative, stationary_path
from tests.core.registry import GAUSSIAN_FORMS, GAUSSIAN_SCHEDULES, MASKED_FORMS, MASKED_SCHEDULES

TIMES = [0.0, 0.1, 0.35, 0.6, 0.9]


@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_gaussian_schedule_and_slope_match_closed_form(name, x64):
    schedule = GAUSSIAN_SCHEDULES[name]()
    for t in TIMES:
        alpha, alpha_dot = derivative(schedule.alpha, t)
        sigma, sigma_dot = derivative(schedule.sigma, t)
        np.testing.assert_allclose([alpha, alpha_dot, sigma, sigma_dot], GAUSSIAN_FORMS[name](t), atol=1e-12)


@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_gaussian_schedule_ends_on_the_data(name, precision):
    schedule = GAUSSIAN_SCHEDULES[name]()
    one = jnp.ones(())
    assert schedule.alpha(one) == 1
    assert schedule.sigma(one) == 0


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
def test_masked_schedule_and_slope_match_closed_form(name, x64):
    path = MaskedPath(MASKED_SCHEDULES[name](), sites=2, num_states=3)
    for t in TIMES:
        kappa, slope = MASKED_FORMS[name](t)
        np.testing.assert_allclose(path.kappa(t), kappa, atol=1e-12)
        np.testing.assert_allclose(derivative(path.kappa, t)[1], slope, atol=1e-12)
        hazard = np.where(kappa < 1, slope / np.where(kappa < 1, 1 - kappa, 1), 0)
        np.testing.assert_allclose(path.hazard(t), hazard, atol=1e-12)


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
def test_masked_schedule_ends_exactly(name, precision):
    schedule = MASKED_SCHEDULES[name]()
    assert np.all(np.asarray(schedule.kappa(jnp.zeros(()))) == 0)
    assert np.all(np.asarray(schedule.kappa(jnp.ones(()))) == 1)


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
def test_inverse_undoes_kappa(name, x64):
    schedule = MASKED_SCHEDULES[name]()
    u = jnp.array([0.02, 0.71])
    t = schedule.inverse(u)
    kappa = [jnp.broadcast_to(schedule.kappa(t[i]), (2,))[i] for i in range(2)]
    np.testing.assert_allclose(kappa, u, atol=1e-12)


def test_cosine_inverse_keeps_small_times_in_float32():
    """Relative error of the smallest times below 1e-5: first hits at 1e-3 are as good as others."""
    u = jnp.array([1e-6, 1e-4, 1e-2], dtype=jnp.float32)
    exact = np.arccos(1 - np.asarray(u, dtype=np.float64)) * 2 / np.pi
    np.testing.assert_allclose(Cosine().inverse(u), exact, rtol=1e-5)


def test_polynomial_of_power_one_is_linear_at_the_start():
    assert derivative(Polynomial(1.0).kappa, 0.0)[1] == 1.0


def test_ordered_hazard_at_corners_is_the_one_to_the_right():
    path = MaskedPath(Ordered.from_rank([2, 0, 1, 3]), sites=4)
    for k in range(4):
        expected = np.zeros(4)
        expected[[1, 2, 0, 3][k]] = 4.0  # kappa' / (1 - kappa) with kappa = 0 and four ranks
        np.testing.assert_allclose(path.hazard(k / 4), expected)
    np.testing.assert_array_equal(path.hazard(1.0), np.zeros(4))


def test_ordered_respects_order_and_draws_within_groups():
    rank = np.array([1, 0, 2, 0, 1])
    path = MaskedPath(Ordered.from_rank(rank), sites=5)
    keys = jax.random.split(jax.random.key(0), 400)
    hits = np.asarray(jax.vmap(path.hitting_times)(keys))
    for low, high in [(0, 1), (1, 2)]:
        assert hits[:, rank == low].max() < hits[:, rank == high].min()
    # sites of one rank in either order: binomial, 400 draws, 4 standard errors
    assert abs((hits[:, 1] < hits[:, 3]).mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
    xt = np.asarray(jax.vmap(lambda k: path.sample(k, jnp.zeros(5, jnp.int32), 0.5))(keys))
    assert np.all(xt[:, rank == 0] == 0)  # revealed before t = 1/3
    assert np.all(xt[:, rank == 2] == path.mask)


@pytest.mark.parametrize("rank", [[0, 2], [[0, 1]], [], [0.0, 1.0], [1, 2]])
def test_ordered_refuses_ranks_with_gaps(rank):
    with pytest.raises(ValueError, match="rank"):
        Ordered.from_rank(np.array(rank))


def test_stationary_path_leaves_its_reference_alone(x64):
    path = stationary_path((2,), scale=1.7)
    x = jnp.array([0.4, -2.0])
    values = [path.log_reference(x, t) for t in TIMES]
    np.testing.assert_allclose(values, values[0], atol=1e-12)
    np.testing.assert_allclose(path.velocity(jnp.zeros(2), x, 0.4), jnp.zeros(2), atol=1e-12)
    with pytest.raises(ValueError, match="scale"):
        stationary_path((2,), scale=0.0)
