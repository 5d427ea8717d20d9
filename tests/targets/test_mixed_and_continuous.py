"""The Gaussian mixture and the Gaussian-Bernoulli RBM against quadrature and published numbers.

Tolerances: half a unit of the last printed digit; quadrature error as stated; four standard errors for
samples.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from egmjax.targets import GaussianBernoulliRBM, GaussianMixture, enumerate_states

NUM = 40_000
OVERLAPPING = GaussianMixture(
    np.array([[0.0, 0.0], [1.0, 0.0], [0.3, 0.9]]), np.array([1.0, 0.5, 0.7]), np.log([0.2, 0.5, 0.3]), 0.7
)


def grid_sums(energy, low, high, num):
    """`log Z`, mean and standard deviation of the energy in the plane: trapezoid rule, float32 energies."""
    axis = np.linspace(low, high, num)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    energies = np.asarray(jax.jit(jax.vmap(energy))(jnp.asarray(points, jnp.float32)), np.float64)
    log_z = logsumexp(-energies)
    probs = np.exp(-energies - log_z)
    mean = probs @ energies
    return log_z + 2 * np.log(axis[1] - axis[0]), mean, np.sqrt(probs @ (energies - mean) ** 2)


def assert_mean(values, mean, std):
    """Within four standard errors."""
    assert abs(np.mean(np.asarray(values, np.float64)) - mean) < 4 * std / np.sqrt(len(values))


@pytest.mark.parametrize(
    ("target", "low", "high"),
    [
        (GaussianMixture.three_modes(), -10.0, 10.0),
        (GaussianMixture.gmm25(), -17.0, 17.0),
        (OVERLAPPING, -8.0, 8.0),
    ],
)
def test_mixture_against_quadrature(target, low, high):
    log_z, mean, std = grid_sums(target.energy, low, high, 301)
    assert target.log_z == pytest.approx(log_z, abs=1e-5)
    assert target.mean_energy == pytest.approx(mean, abs=1e-5)
    assert target.energy_std == pytest.approx(std, abs=1e-5)


def test_mixture_published_numbers():
    target = GaussianMixture.gmm25()
    assert target.log_z == pytest.approx(1.8379, abs=0.51e-4)
    assert target.mean_energy == pytest.approx(4.1638, abs=0.51e-4)
    assert target.energy_std == pytest.approx(0.8548, abs=0.51e-4)
    np.testing.assert_allclose(target.mode_weights, np.full(25, 0.04), atol=1e-6)
    target = GaussianMixture.three_modes()
    assert target.log_z == pytest.approx(np.log(2 * np.pi * 0.49), abs=1e-12)
    assert target.log_z == pytest.approx(1.1245, abs=0.51e-4)
    np.testing.assert_allclose(target.mode_weights, [0.5, 0.3, 0.2], atol=1e-6)


@pytest.mark.parametrize("target", [GaussianMixture.three_modes(), GaussianMixture.gmm25(), OVERLAPPING])
def test_mixture_draws(target):
    x = jax.jit(target.sample, static_argnums=1)(jax.random.key(0), NUM)
    assert x.shape == (NUM, 2)
    assert_mean(jax.vmap(target.energy)(x), target.mean_energy, target.energy_std)
    cells = np.bincount(jax.vmap(target.mode_index)(x), minlength=len(target.means)) / NUM
    weights = target.mode_weights
    assert weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert np.all(np.abs(cells - weights) < 4 * np.sqrt(weights * (1 - weights) / NUM))
    probs = np.exp(target.log_weights) * np.asarray(target.scales) ** 2
    probs /= probs.sum()
    for i in range(2):
        mean = probs @ target.means[:, i]
        std = np.sqrt(probs @ (target.scales**2 + (target.means[:, i] - mean) ** 2))
        assert_mean(jax.vmap(target.observables[f"x{i}"])(x), mean, std)


def test_mixture_in_other_dimensions():
    line = GaussianMixture(np.array([[-1.0], [4.0]]), np.array([1.0, 2.0]), np.zeros(2))
    x = np.linspace(-30, 30, 6001)
    density = np.exp(-np.asarray(jax.vmap(line.energy)(jnp.asarray(x[:, None], jnp.float32)), np.float64))
    assert line.log_z == pytest.approx(np.log(density.sum() * 0.01), abs=1e-5)
    assert line.mean_energy == pytest.approx(-(density @ np.log(density)) / density.sum(), abs=1e-5)
    assert line.mode_weights is None
    space = GaussianMixture(10 * np.eye(3), np.ones(3), np.log([0.2, 0.3, 0.5]))
    assert space.log_z == pytest.approx(1.5 * np.log(2 * np.pi), abs=1e-12)
    np.testing.assert_allclose(space.mode_weights, [0.2, 0.3, 0.5], atol=1e-12)
    assert space.mean_energy is None


def test_mixture_energy_far_away_has_a_finite_gradient():
    for x in ([0.0, 0.0], [1e3, -1e3]):
        assert np.isfinite(jax.grad(GaussianMixture.gmm25().energy)(jnp.array(x))).all()


def test_rbm_published_numbers():
    target = GaussianBernoulliRBM.six_modes()
    assert target.log_z == pytest.approx(4.26997, abs=0.51e-5)
    assert target.mean_energy == pytest.approx(0.3051, abs=0.51e-4)
    assert target.energy_std == pytest.approx(1.0504, abs=0.51e-4)
    want = [0.0879, 0.1448, 0.1448, 0.2388, 0.1448, 3.3e-12, 0.2388, 5.5e-12]
    np.testing.assert_allclose(target.mode_weights, want, atol=0.51e-4)
    np.testing.assert_allclose(target.mode_weights[[5, 7]], [3.3e-12, 5.5e-12], atol=0.51e-13)


def test_rbm_energy_is_the_definition():
    target = GaussianBernoulliRBM(
        np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([0.3, -0.2]), np.array([0.1, -1.0]), 0.6
    )
    v, h = np.array([0.7, -1.1]), np.array([1, 1])
    want = (
        np.sum((v - target.visible_bias) ** 2) / (2 * 0.36)
        - target.hidden_bias @ h
        - v @ target.weights @ h / 0.36
    )
    x = (jnp.asarray(v, jnp.float32), jnp.asarray(h, jnp.int32))
    assert float(target.energy(x)) == pytest.approx(want, rel=1e-5)
    gradient = jax.grad(lambda v: target.energy((v, x[1])))(x[0])
    np.testing.assert_allclose(gradient, (v - target.visible_bias - target.weights @ h) / 0.36, rtol=1e-5)


@pytest.mark.parametrize(
    "target",
    [
        GaussianBernoulliRBM.six_modes(),
        GaussianBernoulliRBM(
            np.array([[1.0, -2.0], [0.5, 1.0]]), np.array([0.3, -0.2]), np.array([0.1, -1.0]), 0.6
        ),
    ],
)
def test_rbm_against_quadrature(target):
    def marginal(h):
        return grid_sums(lambda v: target.energy((v, jnp.asarray(h))), -13.0, 13.0, 301)

    sums = np.array([marginal(h) for h in enumerate_states(target.weights.shape[1], 2)])
    log_z = logsumexp(sums[:, 0])
    probs = np.exp(sums[:, 0] - log_z)
    assert target.log_z == pytest.approx(log_z, abs=1e-5)
    np.testing.assert_allclose(target.mode_weights, probs, atol=1e-5)
    mean = probs @ sums[:, 1]
    assert target.mean_energy == pytest.approx(mean, abs=1e-4)
    std = np.sqrt(probs @ (sums[:, 2] ** 2 + (sums[:, 1] - mean) ** 2))
    assert target.energy_std == pytest.approx(std, abs=1e-4)


def test_rbm_draws():
    target = GaussianBernoulliRBM.six_modes()
    v, h = x = target.sample(jax.random.key(1), NUM)
    assert v.shape == (NUM, 2)
    assert h.shape == (NUM, 3)
    assert h.dtype == jnp.int32
    assert_mean(jax.vmap(target.energy)(x), target.mean_energy, target.energy_std)
    weights = target.mode_weights
    cells = np.bincount(jax.vmap(target.mode_index)(x), minlength=8) / NUM
    assert np.all(np.abs(cells - weights) <= 4 * np.sqrt(weights * (1 - weights) / NUM) + 1e-9)
    assert_mean(jax.vmap(target.observables["v1"])(x), *visible_moments(target, 1))
    assert int(target.mode_index((jnp.zeros(2), jnp.array([1, 0, 0])))) == 4


def visible_moments(target, i):
    """Mean and standard deviation of visible unit `i`, by the law of total variance."""
    centres = enumerate_states(3, 2) @ target.weights[i] + target.visible_bias[i]
    mean = target.mode_weights @ centres
    return mean, np.sqrt(1 + target.mode_weights @ (centres - mean) ** 2)
