"""What a learned energy is for, with exact ones: sampling to the last level, products, mixtures, the bootstrap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from egmjax import ebm, metrics
from egmjax.estimators import psi_from_energy
from egmjax.paths import CondOT, GaussianPath, VarianceExploding
from egmjax.processes import DiffusionProcess
from egmjax.proposals import reference_posterior
from egmjax.simulators import smc_sampler
from egmjax.targets import GaussianMixture, from_energy
from egmjax.training import Context, snis_objective
from tests.core.checks import z_score

pytestmark = pytest.mark.slow  # compiles a lot


def mixture(weights, means, variance):
    means = np.asarray(means, float)
    log_weights = np.log(weights) - 0.5 * means.shape[1] * np.log(2 * np.pi * variance)
    return GaussianMixture(means, np.full(len(weights), np.sqrt(variance)), log_weights)


A = mixture([0.3, 0.3, 0.4], [[-2, 0], [1, 1.5], [1, -1.5]], 0.15)
B = mixture([0.7, 0.3], [[-1.7, 0.2], [1.6, -1.0]], 0.25)


def product_modes():
    """Closed form: means, log masses of the six pairs; their variance is `1 / (1/.15 + 1/.25)`."""
    variance = 1 / (1 / 0.15 + 1 / 0.25)
    means, log_mass = [], []
    for m, w in zip(A.means, np.log([0.3, 0.3, 0.4])):
        for n, v in zip(B.means, np.log([0.7, 0.3])):
            means.append(variance * (m / 0.15 + n / 0.25))
            log_mass.append(w + v - np.log(2 * np.pi * 0.4) - np.sum((m - n) ** 2) / (2 * 0.4))
    return np.array(means), np.array(log_mass)


def setup(num_steps):
    path = GaussianPath(VarianceExploding(0.02, 10.0), scale=1.0, shape=(2,))
    onto = ebm.product_path(path, (1.0, 1.0))
    fns = [ebm.log_density(path, ebm.mixture_psi(m, path)) for m in (A, B)]
    product = ebm.product_density(fns, (1.0, 1.0))
    times = np.concatenate([[0.0], ebm.log_snr_levels(path, num_steps - 1, 0.02, 9.0), [1.0]])
    return path, onto, fns, product, times


def test_products_are_sampled_on_the_narrower_path():
    """Two seeds of 4096 particles: mode masses and log Z within what is measured for exact energies."""
    _, onto, _, product, times = setup(64)
    psi, process = ebm.relative_to(onto, product), DiffusionProcess(onto)
    smc = smc_sampler(process, times, num_particles=4096)
    run = jax.jit(jax.vmap(lambda k: smc.sample(k, ebm.predict_from_psi(process, psi), psi)))
    found = run(jax.random.split(jax.random.key(0), 2))
    means, log_mass = product_modes()
    log_z = logsumexp(log_mass)
    np.testing.assert_allclose(log_z, -2.3718, atol=1e-4)
    for x, log_weight in zip(found.x, found.log_weight):
        summary = metrics.summarize_weights(log_weight)
        assert abs(float(summary.log_z) - log_z) < 0.1
        assert summary.ess_fraction > 0.4
        nearest = np.argmin(np.sum((np.asarray(x)[:, None] - means) ** 2, axis=-1), axis=1)
        mass = np.bincount(nearest, np.asarray(metrics.normalized_weights(log_weight)), minlength=6)
        assert 0.5 * np.abs(mass - np.exp(log_mass - log_z)).sum() < 0.05
    # unweighted particles of an annealing path are not samples of the product
    psi_one = ebm.mixture_psi(A, onto)
    wrong = smc_sampler(process, times, num_particles=1024, threshold=0.0)
    raw = jax.jit(lambda k: wrong.sample(k, ebm.predict_from_psi(process, psi_one), psi_one))(
        jax.random.key(0)
    )
    assert abs(float(metrics.summarize_weights(raw.log_weight).log_z) - log_z) > 0.5


def test_product_path_is_that_of_powers_of_gaussians():
    """`q^beta` of the reference is the reference of its product path, up to a constant, at every level."""
    path = GaussianPath(VarianceExploding(0.05, 3.0), mean=0.7, scale=1.3, shape=(2,))
    for power in (2.0, 0.5):
        onto = ebm.product_path(path, (power,))
        x, y = jnp.array([0.4, -1.0]), jnp.array([1.2, 0.1])
        for t in (0.0, 0.5, 1.0):
            change = power * (path.log_reference(x, t) - path.log_reference(y, t))
            np.testing.assert_allclose(onto.log_reference(x, t) - onto.log_reference(y, t), change, rtol=1e-4)


def test_mixtures_need_normalisers():
    _, _, fns, _, _ = setup(8)
    x, t = jnp.array([0.3, -0.2]), 0.6
    mixed = ebm.mixture_density(fns, (0.25, 0.75))
    want = np.logaddexp(np.log(0.25) + fns[0](x, t), np.log(0.75) + fns[1](x, t))
    np.testing.assert_allclose(mixed(x, t), want, rtol=1e-5)
    f = ebm.interpolated_normalizers(jnp.array([0.5, 0.7]), jnp.array([1.0, 3.0]))
    raised = [lambda x, t: fns[0](x, t) + f(t), fns[1]]
    again = ebm.mixture_density(raised, (0.25, 0.75), (f, lambda t: jnp.zeros(())))
    np.testing.assert_allclose(again(x, t), want, rtol=1e-5)
    np.testing.assert_allclose(f(0.6), 2.0, rtol=1e-6)


def test_bad_input():
    path, _, fns, _, _ = setup(8)
    for call in (
        lambda: ebm.product_path(path, (1.0, -1.0)),
        lambda: ebm.product_density(fns, (1.0,)),
        lambda: ebm.mixture_density(fns, (1.0, 0.0)),
        lambda: ebm.mixture_density(fns, (0.5, 0.5), (lambda t: t,)),
    ):
        with pytest.raises(ValueError, match=r"^[a-z_]+: "):
            call()


def test_a_learned_psi_is_the_noised_energy_of_the_bootstrap():
    """`snis_objective` at `r < 1` with the exact psi as a model: targets average to the marginal residual.

    At one state the mean of 400 estimates of 64 proposals is that of `target_from_psi`, within 5 standard errors and
    the bias of order 1 / ESS; with psi of the wrong sign it is not.
    """
    path = GaussianPath(VarianceExploding(0.05, 3.0), scale=1.5, shape=(2,))
    process, exact = DiffusionProcess(path), ebm.mixture_psi(B, path)
    x, t = jnp.array([0.1, 0.4]), 0.3

    def mean_target(sign):
        objective = snis_objective(
            process,
            None,
            reference_posterior(path),
            psi_from_energy(B.energy, path),
            num_proposals=64,
            psi_apply_fn=lambda params, y, r: sign * exact(y, r),
            step_fn=lambda t, n: 0.3,
        )

        def examples(key):
            context = Context(None, jnp.ones(()), jnp.int32(0))
            batch, _ = objective.examples(key, context, jnp.broadcast_to(x, (400, 2)), jnp.full((400,), t))
            want = jax.vmap(lambda y: process.target_from_psi(y, t, lambda z: exact(z, t)))(batch.xt)
            return batch.target - want

        return np.asarray(jax.jit(examples)(jax.random.key(0)))

    assert z_score(mean_target(1.0), 0.0) < 5
    assert z_score(mean_target(-1.0), 0.0) > 5


def test_a_learned_energy_is_a_target():
    """Its last level, normalised or not, through `targets.from_energy`."""
    path = GaussianPath(VarianceExploding(0.05, 3.0), scale=1.5, shape=(2,))
    log_q = ebm.log_density(path, ebm.mixture_psi(B, path))
    target = from_energy(lambda x: -log_q(x, 0.95), path.space)
    x = jnp.array([0.1, 0.4])
    np.testing.assert_allclose(target.energy(x), ebm.noised_mixture(B, path, 0.95).energy(x), rtol=1e-4)


def test_scores_alone_with_the_weights_of_feynman_and_kac():
    """Mode masses and log Z of the product from its factors' scores; without weights both are wrong."""
    path, _, fns, _, times = setup(128)
    product = ebm.FeynmanKacProduct(path, (1.0, 1.0))
    smc = smc_sampler(product, times, num_particles=4096)
    scores = lambda x, t: jnp.stack([jax.grad(fn)(x, t) for fn in fns])  # noqa: E731
    found = jax.jit(lambda k: smc.sample(k, scores, lambda x, t: jnp.zeros(())))(jax.random.key(0))
    means, log_mass = product_modes()
    log_z = logsumexp(log_mass)
    nearest = np.argmin(np.sum((np.asarray(found.x)[:, None] - means) ** 2, axis=-1), axis=1)
    mass = np.bincount(nearest, np.asarray(metrics.normalized_weights(found.log_weight)), minlength=6)
    assert 0.5 * np.abs(mass - np.exp(log_mass - log_z)).sum() < 0.05
    estimate = float(metrics.summarize_weights(found.log_weight).log_z + product.log_z_start)
    assert abs(estimate - log_z) < 0.1
    assert abs(estimate - float(product.log_z_start) - log_z) > 0.5  # the constant of the start is needed


@pytest.mark.parametrize("noise", [4.0, 9.0])
def test_a_power_of_a_gaussian_by_its_score(noise):
    """`q^2` of a Gaussian has half its variance; little noise would leave it to the weights."""
    path = GaussianPath(VarianceExploding(0.02, 10.0), scale=1.0, shape=(1,))
    product = ebm.FeynmanKacProduct(path, (2.0,), noise=noise)
    times = np.concatenate([[0.0], ebm.log_snr_levels(path, 255, 0.02, 9.0), [1.0]])
    smc = smc_sampler(product, times, num_particles=8192)
    score = jax.grad(path.log_reference)
    found = jax.jit(lambda k: smc.sample(k, lambda x, t: score(x, t)[None], lambda x, t: jnp.zeros(())))(
        jax.random.key(1)
    )
    summary = metrics.summarize_weights(found.log_weight)
    exact = -0.5 * np.log(4 * np.pi)  # integral of N(0, 1)^2
    np.testing.assert_allclose(float(summary.log_z + product.log_z_start), exact, atol=0.05)
    weights = np.asarray(metrics.normalized_weights(found.log_weight))
    np.testing.assert_allclose(weights @ np.asarray(found.x[:, 0]) ** 2, 0.5, atol=0.04)


def test_bad_products_of_scores():
    path = GaussianPath(VarianceExploding(0.02, 10.0), scale=1.0, shape=(1,))
    for make in (
        lambda: ebm.FeynmanKacProduct(GaussianPath(CondOT(), shape=(1,)), (1.0, 1.0)),
        lambda: ebm.FeynmanKacProduct(path, (1.0, -1.0)),
        lambda: ebm.FeynmanKacProduct(path, (1.0, 1.0), noise=-0.1),
    ):
        with pytest.raises(ValueError, match=r"^[a-z_]+: "):
            make()
