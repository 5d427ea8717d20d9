"""The head is a normalised Gaussian at zero with score and density consistent; grids, picks and exact marginals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from egmjax import ebm
from egmjax.networks import InnerProduct, ResidualMLP
from egmjax.paths import CondOT, GaussianPath, Trigonometric, VarianceExploding
from egmjax.processes import FlowProcess
from egmjax.targets import GaussianMixture
from tests.networks.checks import randomize

MEAN = np.array([0.8, -1.5])


def paths():
    return {
        "exploding": GaussianPath(VarianceExploding(0.05, 3.0), mean=MEAN, scale=1.3, shape=(2,)),
        "rotating": GaussianPath(Trigonometric(1.2), mean=MEAN, scale=1.2, shape=(2,)),
        "each": GaussianPath(CondOT(1.5), mean=MEAN, scale=jnp.asarray([0.5, 2.0]), shape=(2,)),
    }


def model(path, scale):
    """`(params, psi)` with the layers of the network drawn anew at `scale`; zero as initialised for 0. With an offset
    on the exploding path."""
    shape = ((2,), ()) if isinstance(path.schedule, VarianceExploding) else (2,)
    network = InnerProduct(ResidualMLP(path.space, shape, width=8, depth=1, num_frequencies=3))
    params = network.init(jax.random.key(0), jnp.zeros(2), jnp.zeros(()))
    return randomize(params, scale=scale) if scale else params, ebm.preconditioned_psi(path, network.apply)


@pytest.mark.parametrize("name", paths())
def test_zero_is_the_normalised_gaussian_of_the_data(name, x64):
    path = paths()[name]
    params, psi = model(path, 0)
    log_q = ebm.log_density(path, lambda x, t: psi(params, x, t))
    x = jnp.asarray([0.3, 0.9])
    for t in (0.0, 0.4, 0.97):
        alpha, sigma = (float(a) for a in path.coefficients(t))
        variance = alpha**2 * np.broadcast_to(np.asarray(path.scale) ** 2, 2) + sigma**2
        want = multivariate_normal(alpha * np.asarray(MEAN), np.diag(variance)).logpdf(np.asarray(x))
        np.testing.assert_allclose(log_q(x, t), want, rtol=1e-10)
    assert np.isfinite(psi(params, x, 1.0))


@pytest.mark.parametrize("name", paths())
def test_score_and_log_density_agree_for_any_mean(name, x64):
    """`grad log q = (alpha D - x) / sigma^2`, D the endpoint that the prediction of psi stands for."""
    path = paths()[name]
    params, psi = model(path, 0.5)
    psi_fn = lambda x, t: psi(params, x, t)  # noqa: E731
    predict = ebm.predict_from_psi(FlowProcess(path), psi_fn)
    x = jnp.asarray([0.3, 0.9])
    for t in (0.1, 0.6, 0.95):
        alpha, sigma = path.coefficients(t)
        belief = path.endpoint_belief(x, t)
        residual = predict(x, t)
        assert np.all(np.abs(residual) > 1e-3)
        denoised = belief.mean + belief.scale * residual
        score = jax.grad(ebm.log_density(path, psi_fn))(x, t)
        np.testing.assert_allclose(score, (alpha * denoised - x) / sigma**2, rtol=1e-6)
        # a head that forgets the mean, as an expanded square may, has another score
        centred = dataclasses.replace(path, mean=0.0)
        wrong = jax.grad(ebm.log_density(centred, psi_fn))(x, t)
        assert np.abs(wrong - score).max() > 0.02
    assert np.all(np.isfinite(predict(x, 0.0)))


def test_the_prediction_is_of_order_one_where_noise_is_small():
    """In float32 at a noise of .002 scales: `cot tan` cancels, the residual is the gradient of the base."""
    path = GaussianPath(VarianceExploding(0.002, 10.0), mean=MEAN, scale=1.3, shape=(2,))
    network = InnerProduct(ResidualMLP(path.space, (2,), width=8, depth=1))
    params = randomize(network.init(jax.random.key(0), jnp.zeros(2), jnp.zeros(())))
    psi = ebm.preconditioned_psi(path, network.apply)
    t, x = float(ebm.log_snr_levels(path, 2, 0.002, 1.0)[-1]), jnp.asarray([0.3, 0.9])
    found = ebm.predict_from_psi(FlowProcess(path), lambda y, u: psi(params, y, u))(x, t)
    want = jax.grad(lambda z: network.apply(params, z, t))(path.standardize(x, t))
    np.testing.assert_allclose(found, want, rtol=1e-4)


@pytest.mark.parametrize("schedule", [VarianceExploding(0.05, 3.0), CondOT(1.5)])
def test_noised_mixtures_are_convolutions(schedule, x64):
    """`p_t(x) = int p(x_1) N(x; alpha x_1, sigma^2) dx_1` by the trapezoid rule, log Z included."""
    mixture = GaussianMixture(np.array([[-0.7], [0.9]]), np.array([0.2, 0.4]), np.log([0.3, 1.1]), 0.8)
    path = GaussianPath(schedule, mean=0.2, scale=0.9, shape=(1,))
    grid = np.linspace(-6, 6, 4001)
    density = np.exp(-np.asarray(jax.vmap(mixture.energy)(jnp.asarray(grid)[:, None])))
    psi = ebm.mixture_psi(mixture, path)
    for t in (0.1, 0.5, 0.9):
        alpha, sigma = (float(a) for a in path.coefficients(t))
        noised = ebm.noised_mixture(mixture, path, t)
        for x in (-1.0, 0.2, 1.4):
            want = np.log(np.trapezoid(density * norm.pdf(x, alpha * grid, sigma), grid))
            np.testing.assert_allclose(-noised.energy(jnp.asarray([x])), want, atol=1e-8)
            relative = want - float(path.log_reference(jnp.asarray([x]), t))
            np.testing.assert_allclose(psi(jnp.asarray([x]), t), relative, atol=1e-8)
        assert noised.log_z == pytest.approx(mixture.log_z)
    at_data = -mixture.energy(jnp.asarray([0.2])) - path.log_reference(jnp.asarray([0.2]), 1.0)
    np.testing.assert_allclose(psi(jnp.asarray([0.2]), 1.0), at_data)


def test_the_last_level_may_be_the_true_energy():
    path = paths()["exploding"]
    psi = ebm.with_energy(path, lambda x, t: 7.0 * t, lambda x: jnp.sum(x**2))
    x = jnp.asarray([0.5, 0.2])
    np.testing.assert_allclose(psi(x, 0.5), 3.5)
    np.testing.assert_allclose(psi(x, 1.0), -0.29 - path.log_reference(x, 1.0), rtol=1e-6)
    back = ebm.relative_to(path, ebm.log_density(path, psi))
    np.testing.assert_allclose(back(x, 0.5), 3.5, rtol=1e-5)


def test_levels_have_the_noise_asked_for():
    path = GaussianPath(VarianceExploding(0.01, 10.01), shape=(2,))
    levels = ebm.log_snr_levels(path, 16, 0.01, 10.0)
    alpha, sigma = path.coefficients(jnp.asarray(levels))
    np.testing.assert_allclose(sigma / alpha, np.geomspace(10, 0.01, 16), rtol=1e-4)
    curved = GaussianPath(CondOT(), shape=(2,))
    levels = ebm.log_snr_levels(curved, 8, 0.02, 50.0)
    np.testing.assert_allclose((1 - levels) / levels, np.geomspace(50, 0.02, 8), rtol=1e-4)
    np.testing.assert_allclose(ebm.uniform_levels(5, 0.1, 0.9), [0.1, 0.3, 0.5, 0.7, 0.9])


def test_picks_are_distinct_and_equally_likely():
    """Frequencies of pairs within 5 standard errors of equal."""
    keys = jax.random.split(jax.random.key(0), 4000)
    for pick, num_pairs in (
        (ebm.random_levels(5), 10),
        (ebm.local_pairs(5, 2), 7),
        (ebm.local_pairs(5), 4),
        (ebm.random_levels(5, 3), None),
    ):
        found = np.sort(np.asarray(jax.vmap(pick)(keys)), axis=1)
        assert np.all(np.diff(found, axis=1) > 0)
        if num_pairs is not None:
            _, counts = np.unique(found, axis=0, return_counts=True)
            assert len(counts) == num_pairs
            share = 1 / num_pairs
            assert np.all(np.abs(counts - 4000 * share) < 5 * np.sqrt(4000 * share * (1 - share)))
    np.testing.assert_array_equal(ebm.random_levels(4, 4)(keys[0]), [0, 1, 2, 3])
    both = ebm.mixed_pick((ebm.local_pairs(5, 1), ebm.random_levels(5)), 0.5)
    gaps = np.abs(np.diff(np.asarray(jax.vmap(both)(keys)), axis=1))
    assert abs(np.mean(gaps == 1) - 0.7) < 5 * np.sqrt(0.21 / 4000)


def test_bad_input():
    path = paths()["exploding"]
    for call in (
        lambda: ebm.uniform_levels(1),
        lambda: ebm.uniform_levels(4, 0.5, 1.0),
        lambda: ebm.log_snr_levels(path, 4, 1.0, 0.1),
        lambda: ebm.log_snr_levels(path, 4, 0.1, 30.0),
        lambda: ebm.random_levels(4, 5),
        lambda: ebm.local_pairs(4, 4),
        lambda: ebm.mixed_pick((ebm.random_levels(4), ebm.random_levels(4)), 1.5),
        lambda: GaussianMixture.two_modes(0),
    ):
        with pytest.raises(ValueError, match=r"^[a-z_]+: "):
            call()
