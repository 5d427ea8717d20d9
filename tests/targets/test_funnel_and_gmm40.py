"""The funnel and the two GMM-40 against quadrature, closed forms and each other.

Quadrature as accurate as stated; four standard errors for samples of fixed seeds.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.special import logsumexp
from scipy.stats import kstest, norm

from egmjax.targets import Funnel, GaussianMixture

NUM = 40_000
SIGMAS = 4.0


def batched(fn, x):
    return np.asarray(jax.jit(jax.vmap(fn))(x), np.float64)


def funnel_quadrature(energy_fn, scale):
    """`log Z`, mean and standard deviation of the energy in the plane: trapezoid rules in `x0`, `x1 e^(-x0/2)`."""
    a, b = np.meshgrid(np.linspace(-9, 9, 361) * scale, np.linspace(-9, 9, 361), indexing="ij")
    x = np.stack([a, b * np.exp(a / 2)], axis=-1).reshape(-1, 2)
    energies = batched(energy_fn, jnp.asarray(x))
    log_mass = -energies + a.ravel() / 2
    log_z = logsumexp(log_mass) + np.log((a[1, 0] - a[0, 0]) * (b[0, 1] - b[0, 0]))
    probs = np.exp(log_mass - logsumexp(log_mass))
    mean = probs @ energies
    return log_z, mean, np.sqrt(probs @ (energies - mean) ** 2)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_funnel_against_quadrature(x64, scale):
    target = Funnel(2, scale)
    log_z, mean, std = funnel_quadrature(target.energy, scale)
    assert target.log_z == pytest.approx(log_z, abs=1e-9)
    assert target.mean_energy == pytest.approx(mean, abs=1e-9)
    assert target.energy_std == pytest.approx(std, abs=1e-9)


def test_funnel_quadrature_sees_a_standard_deviation_for_a_variance(x64):
    """Seeded fault: `exp(x0)` read as a standard deviation is normalised too, but its energies are others."""

    def other(x):
        return -jnp.sum(jax.scipy.stats.norm.logpdf(x, 0.0, jnp.stack([jnp.asarray(1.0), jnp.exp(x[0])])))

    _, _, std = funnel_quadrature(other, 1.0)
    assert abs(std - Funnel(2, 1.0).energy_std) > 0.1


@pytest.mark.parametrize("dim", [2, 10])
def test_funnel_draws(dim):
    target = Funnel(dim)
    x = jax.jit(target.sample, static_argnums=1)(jax.random.key(0), NUM)
    assert x.shape == (NUM, dim)
    energies = batched(target.energy, x)
    assert abs(energies.mean() - target.mean_energy) < SIGMAS * target.energy_std / np.sqrt(NUM)
    assert energies.std() == pytest.approx(target.energy_std, rel=SIGMAS * np.sqrt(2 / NUM))
    assert kstest(batched(target.observables["x0"], x), norm(0, 3).cdf).pvalue > 1e-4
    for name, fn in target.observables.items():
        values, probs = getattr(target, f"{name}_law")()
        mean = probs @ values
        std = np.sqrt(probs @ (values - mean) ** 2)
        assert abs(batched(fn, x).mean() - mean) < SIGMAS * std / np.sqrt(NUM) + 1e-3  # atoms for a law
    cells = np.bincount(batched(target.mode_index, x).astype(int), minlength=4) / NUM
    weights = target.mode_weights
    np.testing.assert_allclose(weights, [0.1587, 0.3413, 0.3413, 0.1587], atol=1e-4)
    assert np.all(np.abs(cells - weights) < SIGMAS * np.sqrt(weights * (1 - weights) / NUM))


def test_funnel_is_finite_far_down_the_neck(precision):
    target = Funnel(3)
    x = jnp.asarray([-60.0, 1e-13, 0.0])
    assert target.energy(x).dtype == jnp.dtype(precision)
    assert np.isfinite(target.energy(x))
    assert np.isfinite(jax.grad(target.energy)(x)).all()
    assert target.energy(jnp.asarray([-60.0, 1e13, 0.0])) > 1e30


def test_funnel_refuses_one_dimension():
    with pytest.raises(ValueError, match=r"^dim: "):
        Funnel(1)


@pytest.mark.parametrize(("variant", "scale"), [("torch", np.log1p(np.e)), ("jax", 1.0)])
def test_gmm40_is_normalised_and_as_published(variant, scale):
    target = GaussianMixture.gmm40(variant)
    assert target.log_z == pytest.approx(0.0, abs=1e-12)
    assert target.means.shape == (40, 2)
    assert np.abs(target.means).max() < 40
    np.testing.assert_allclose(target.scales, scale)
    x = np.array([3.0, -11.0])
    density = np.mean(np.prod(norm.pdf(x, target.means, scale), axis=1))
    assert float(target.energy(jnp.asarray(x))) == pytest.approx(-np.log(density), rel=1e-5)


def test_gmm40_means_are_those_of_their_generators():
    """PyTorch's CPU uniforms are the low 24 bits of the same Mersenne twister as numpy's legacy generator."""
    raw = np.random.RandomState(0).randint(0, 2**32, 80, dtype=np.uint32) & (2**24 - 1)
    uniform = raw.astype(np.float32).reshape(40, 2) * np.float32(2.0**-24)
    torch = GaussianMixture.gmm40("torch")
    for variant in ("torch", "jax"):  # in other dimensions the same generators fill another shape
        wider = GaussianMixture.gmm40(variant, 4)
        assert wider.means.shape == (40, 4)
        assert wider.log_z == pytest.approx(0.0, abs=1e-12)
    more = np.random.RandomState(0).randint(0, 2**32, (40, 4), dtype=np.uint32) & (2**24 - 1)
    np.testing.assert_allclose(
        GaussianMixture.gmm40("torch", 4).means, (more / 2.0**24 - 0.5) * 80, atol=1e-5
    )
    np.testing.assert_array_equal(torch.means.astype(np.float32), (uniform - np.float32(0.5)) * 2 * 40)
    np.testing.assert_allclose(torch.means[[0, 1, -1]], PUBLISHED, atol=0.51e-4)
    was = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", False)
    try:
        drawn = jax.random.uniform(jax.random.key(0), (40, 2), jnp.float32, -1.0, 1.0) * 40
    finally:
        jax.config.update("jax_threefry_partitionable", was)
    np.testing.assert_array_equal(GaussianMixture.gmm40("jax").means.astype(np.float32), drawn)


PUBLISHED = [
    [-0.2995, 21.4577],
    [-32.9218, -29.4376],
    [3.6797, -25.0242],
]  # in several PyTorch and JAX projects


def test_gmm40_cells_and_draws():
    target = GaussianMixture.gmm40("torch")
    weights = target.mode_weights
    assert weights.sum() == pytest.approx(1.0, abs=1e-9)
    assert abs(weights - 1 / 40).max() > 1e-4  # modes overlap: cells are not components
    x = target.sample(jax.random.key(1), NUM)
    _, nearest = cKDTree(target.means).query(np.asarray(x))
    np.testing.assert_array_equal(batched(target.mode_index, x), nearest)
    cells = np.bincount(nearest, minlength=40) / NUM
    statistic = NUM * np.sum((cells - weights) ** 2 / weights)
    assert abs(statistic - 39) < SIGMAS * np.sqrt(78)
    energies = batched(target.energy, x)
    assert abs(energies.mean() - target.mean_energy) < SIGMAS * target.energy_std / np.sqrt(NUM)


def test_gmm40_refuses_other_names():
    with pytest.raises(ValueError, match=r"^variant: "):
        GaussianMixture.gmm40("numpy")
    with pytest.raises(ValueError, match=r"^dim: "):
        GaussianMixture.gmm40("torch", 0)
