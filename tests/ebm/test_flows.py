"""Flows: the data's Gaussian at first, log-determinants against autodiff, round trips, mass one by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from egmjax import ebm
from tests.networks.checks import randomize

pytest.importorskip("distrax")

MEAN, SCALE = np.array([0.8, -1.5, 0.2]), np.array([0.5, 2.0, 1.3])
KINDS = {
    "nvp": lambda d: ebm.real_nvp(MEAN[:d], SCALE[:d], num_layers=4, width=8, depth=1),
    "spline": lambda d: ebm.spline_flow(MEAN[:d], SCALE[:d], num_layers=4, width=8, depth=1, num_bins=4),
}


def random_params(flow, scale=0.4):
    return randomize(flow.init(jax.random.key(0)), seed=1, scale=scale)


@pytest.mark.parametrize("kind", KINDS)
def test_starts_at_the_gaussian(kind, x64):
    flow = KINDS[kind](3)
    params = flow.init(jax.random.key(0))
    x, log_prob = flow.sample_and_log_prob(params, jax.random.key(1))
    exact = multivariate_normal.logpdf(x, MEAN, np.diag(SCALE**2))
    assert log_prob == pytest.approx(exact, abs=1e-9)
    assert flow.log_prob(params, x) == pytest.approx(exact, abs=1e-9)
    gaussian = ebm.gaussian_flow(MEAN, SCALE)
    assert gaussian.log_prob((), x) == pytest.approx(exact, abs=1e-12)
    np.testing.assert_allclose(gaussian.sample((), jax.random.key(1)), x, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_density_is_that_of_the_map(kind, x64, monkeypatch):
    """`log N(z) - log |det dx/dz|`, with the Jacobian of the sampler by autodiff; a forgotten scale is seen."""
    flow = KINDS[kind](3)
    params = random_params(flow)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: key)  # the "key" is the noise itself

    @jax.jit
    def both(z):
        x, log_prob = flow.sample_and_log_prob(params, z)
        _, log_det = jnp.linalg.slogdet(jax.jacfwd(lambda z: flow.sample(params, z))(z))
        return x, log_prob, flow.log_prob(params, x), log_det

    for z in np.random.default_rng(2).normal(size=(5, 3)) * 1.5:
        x, drawn, found, log_det = both(jnp.asarray(z))
        exact = multivariate_normal.logpdf(z, np.zeros(3), np.eye(3)) - log_det
        assert abs(drawn - exact) < 1e-8
        assert abs(found - exact) < 1e-6  # through the inverse: the round trip
        assert abs(found + np.log(SCALE).sum() - exact) > 0.1
        assert np.abs(x - MEAN - SCALE * z).max() > 0.05  # the map is not the first one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2])
def test_mass_is_one(kind, dim):
    """Midpoint rule, in float32; one dimension has nothing to couple and works all the same."""
    flow = KINDS[kind](dim)
    params = random_params(flow, 0.3)  # stronger ones make ridges finer than the grid
    found = ebm.quadrature_masses(
        lambda x: flow.log_prob(params, x),
        lambda x: jnp.zeros((), jnp.int32),
        1,
        MEAN[:dim] - 12 * SCALE[:dim],
        MEAN[:dim] + 12 * SCALE[:dim],
        300 if dim == 2 else 4000,
    )
    assert found.log_z == pytest.approx(0.0, abs=0.02)


def test_all_coordinates_meet():
    """In five dimensions each output depends on each input after `2 ceil(log2 5)` layers."""
    flow = ebm.real_nvp(np.zeros(5), np.ones(5), num_layers=6, width=8, depth=1)
    params = random_params(flow)
    gradient = jax.jacfwd(jax.grad(lambda x: flow.log_prob(params, x)))(jnp.linspace(-1, 1, 5))
    assert np.abs(gradient).min() > 1e-6


def test_bad_input():
    for call, name in (
        (lambda: ebm.real_nvp(np.zeros(2), np.ones(3)), "mean"),
        (lambda: ebm.spline_flow(np.zeros(2), np.zeros(2)), "scale"),
        (lambda: ebm.real_nvp(np.zeros(2), np.ones(2), num_layers=0), "num_layers"),
        (lambda: ebm.spline_flow(np.zeros(2), np.ones(2), bound=0.0), "bound"),
        (lambda: ebm.moments(np.zeros((5, 2))), "data"),
        (lambda: ebm.moments(np.full((5, 2), np.nan)), "data"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: "):
            call()
