"""Blurred rings against convolution by quadrature, closed forms and draws.

Four standard errors for samples of fixed seeds.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import kstest, norm, rice

from egmjax import ebm
from egmjax.paths import CondOT, GaussianPath
from egmjax.targets import GaussianMixture, Rings

NUM = 40_000
SIGMAS = 4.0


def blurry():
    """Rings that overlap, one of them a point, in no order and of no unit mass."""
    return Rings(np.array([1.5, 0.0, 0.8]), np.array([0.3, 0.5, 0.2]), np.log([0.6, 0.3, 0.7]))


def convolved(x, radii, scales, weights):
    """The density by its definition: a sum over points of the circles, equally spaced (spectrally accurate)."""
    angle = 2 * np.pi * np.arange(4096) / 4096
    total = 0.0
    for radius, scale, weight in zip(radii, scales, weights):
        y = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        total += weight * np.mean(np.prod(norm.pdf(x, y, scale), axis=1))
    return total


@pytest.mark.parametrize("rings", [Rings(), blurry()], ids=["default", "blurry"])
def test_density_and_its_gradient(rings, x64):
    """At and near the centre, on, between and outside of rings, and of the law with noise."""
    path = GaussianPath(CondOT(1.3), mean=0.2, shape=(2,))
    for t in (None, 0.3):
        alpha, sigma = (1.0, 0.0) if t is None else (float(a) for a in path.coefficients(t))
        law = rings if t is None else ebm.noised_mixture(rings, path, t)
        radii, scales = alpha * rings.radii, np.sqrt((alpha * rings.scales) ** 2 + sigma**2)
        for x in ([0.0, 0.0], [1e-9, 0.0], [0.7, 0.1], [-1.1, 1.4], [2.0, -3.6]):
            want = np.log(convolved(np.array(x), radii, scales, np.exp(rings.log_weights)))
            assert -law.energy(jnp.asarray(x)) == pytest.approx(want, abs=1e-9)
        assert law.log_z == pytest.approx(rings.log_z)
    np.testing.assert_array_equal(jax.grad(rings.energy)(jnp.zeros(2)), 0.0)


def test_float32_near_the_centre_and_far_away():
    rings = Rings()
    for x in ([0.0, 0.0], [1e-30, 0.0], [1e-4, 1e-4], [4.0, 0.0], [1e3, 1e3]):
        value, gradient = jax.value_and_grad(rings.energy)(jnp.asarray(x, jnp.float32))
        assert value.dtype == jnp.float32
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_moments_and_masses(x64):
    """Quadrature in the plane, cells included; a border in the wrong place is seen."""
    rings = blurry()
    axis = np.linspace(-4.5, 4.5, 901)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    energy = np.asarray(jax.jit(jax.vmap(rings.energy))(x))
    cell = np.asarray(jax.vmap(rings.mode_index)(x))
    probs = np.exp(-energy - logsumexp(-energy))
    assert logsumexp(-energy) + 2 * np.log(0.01) == pytest.approx(rings.log_z, abs=1e-8)
    assert probs @ energy == pytest.approx(rings.mean_energy, abs=1e-7)
    assert np.sqrt(probs @ (energy - probs @ energy) ** 2) == pytest.approx(rings.energy_std, abs=1e-7)
    point = Rings(np.zeros(1), np.ones(1), np.zeros(1))  # r^2 / 2 + log(2 pi), r^2 / 2 exponential
    assert point.mean_energy == pytest.approx(1 + np.log(2 * np.pi), abs=1e-8)
    assert point.energy_std == pytest.approx(1.0, abs=1e-8)
    # cells cut the grid: first order in its step
    np.testing.assert_allclose(np.bincount(cell, probs), rings.mode_weights, atol=2e-4)
    assert np.abs(rings.mode_weights - rings.component_weights).max() > 0.01
    np.testing.assert_allclose(Rings().mode_weights, [0.1, 0.2, 0.3, 0.4], atol=1e-8)


def test_draws():
    rings = blurry()
    x = rings.sample(jax.random.key(0), NUM)
    radius = np.asarray(jax.vmap(rings.observables["radius"])(x), np.float64)
    weights = rings.component_weights

    def cdf(r):
        return sum(w * rice.cdf(r, a / s, scale=s) for w, a, s in zip(weights, rings.radii, rings.scales))

    assert kstest(radius, cdf).pvalue > 1e-3
    cells = np.bincount(np.asarray(jax.vmap(rings.mode_index)(x)), minlength=3) / NUM
    error = np.sqrt(rings.mode_weights * (1 - rings.mode_weights) / NUM)
    assert np.all(np.abs(cells - rings.mode_weights) < SIGMAS * error)
    angle = np.arctan2(*np.asarray(x, np.float64).T)
    assert kstest(angle, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3


@pytest.mark.parametrize(
    "law", [blurry(), GaussianMixture(np.array([[-2.0], [1.0]]), np.array([0.3, 0.6]), np.log([0.2, 0.9]))]
)
def test_components(law):
    """They add up to the mixture, at a traced index, and their masses are their shares."""
    num = len(law.component_weights)
    x = jnp.full(law.space.shape, 0.4)
    each = jax.jit(jax.vmap(lambda k: -law.component(k).energy(x)))(jnp.arange(num))
    np.testing.assert_allclose(jax.nn.logsumexp(each), -law.energy(x), rtol=1e-5)
    masses = [np.exp(law.component(k).log_z - law.log_z) for k in range(num)]
    np.testing.assert_allclose(masses, law.component_weights, rtol=1e-5)
    draws = law.component(num - 1).sample(jax.random.key(1), NUM)
    exact = -law.component(num - 1).mean_energy
    found = -np.asarray(jax.vmap(law.component(num - 1).energy)(draws), np.float64)
    assert found.mean() == pytest.approx(exact, abs=SIGMAS * found.std() / np.sqrt(NUM))


def test_forty_modes_in_any_dimension():
    law = GaussianMixture.forty_modes(5)
    assert law.log_z == pytest.approx(0.0, abs=1e-10)
    assert law.means.shape == (40, 5)
    assert 30 < np.abs(law.means).max() < 40
    np.testing.assert_array_equal(GaussianMixture.forty_modes(2).means, GaussianMixture.gmm40().means)
    with pytest.raises(ValueError, match=r"^dim: "):
        GaussianMixture.forty_modes(0)
