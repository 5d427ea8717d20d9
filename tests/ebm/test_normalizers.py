"""Normalisers by MBAR: exact free energies of Gaussians, Bennett's equation, and honest standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from egmjax import ebm

pytestmark = pytest.mark.slow  # compiles a lot


def gaussians(key, sigmas, dim, counts):
    """`log_q [n, N] = -|x|^2 / 2 (1 + sigma^2)`, unnormalised, and `counts` exact draws of each."""
    std = jnp.sqrt(1 + jnp.asarray(sigmas) ** 2)
    index = np.repeat(np.arange(len(sigmas)), counts)
    x = std[index][:, None] * jax.random.normal(key, (len(index), dim))
    return -0.5 * jnp.sum(x**2, axis=1)[:, None] / std[None, :] ** 2


@pytest.mark.parametrize(("dim", "gate"), [(2, 0.1), (16, 0.4)])
def test_sixteen_noise_levels(dim, gate):
    """Largest error within the gate, in float32; truth `(d/2) log(1 + sigma^2)`."""
    sigmas = np.geomspace(0.1, 10, 16)
    counts = np.full(16, 1000)
    fit = ebm.fit_normalizers(gaussians(jax.random.key(0), sigmas, dim, counts), counts)
    truth = 0.5 * dim * np.log((1 + sigmas**2) / (1 + sigmas[0] ** 2))
    error = np.abs(np.asarray(fit.normalizers) - truth)
    assert error.max() < gate
    assert fit.gradient < 2e-6
    assert np.all(error[1:] < 5 * np.asarray(fit.stderr[1:]))
    assert fit.normalizers[0] == 0
    assert fit.stderr[0] == 0


def test_two_states_are_bennetts_ratio(x64):
    counts = np.array([300, 500])
    log_q = gaussians(jax.random.key(1), [0.3, 1.5], 3, counts)
    fit = ebm.fit_normalizers(log_q, counts)
    gap = np.asarray(log_q[:, 1] - log_q[:, 0]) + np.log(500 / 300)

    def bennett(f):  # as many from the second state as it should have produced
        return expit(gap - f).sum() - 500

    np.testing.assert_allclose(fit.normalizers[1], brentq(bennett, -10, 10), atol=1e-10)
    moved = ebm.fit_normalizers(log_q + jnp.asarray([[0.0, 400.0]]), counts)
    np.testing.assert_allclose(moved.normalizers[1] - fit.normalizers[1], 400, atol=1e-8)
    np.testing.assert_allclose(moved.stderr[1], fit.stderr[1], rtol=1e-6)


def test_standard_errors_are_those_of_repetitions(x64):
    """300 repetitions: the spread of the estimate and the mean stated error agree within 5 * 300^-1/2 * .71."""
    counts, sigmas = np.array([60, 40, 80]), [0.2, 0.8, 2.5]

    @jax.jit
    @jax.vmap
    def repeat(key):
        fit = ebm.fit_normalizers(gaussians(key, sigmas, 2, counts), counts)
        return fit.normalizers, fit.stderr

    values, errors = (np.asarray(a) for a in repeat(jax.random.split(jax.random.key(2), 300)))
    spread, stated = values.std(axis=0)[1:], np.sqrt((errors**2).mean(axis=0))[1:]
    assert np.all(np.abs(spread / stated - 1) < 5 * 0.71 / np.sqrt(300))
    # without the correction for fixed counts they would be far off
    uncorrected = np.sqrt(stated**2 + 1 / 60 + 1 / counts[1:])
    assert np.all(np.abs(spread / uncorrected - 1) > 5 * 0.71 / np.sqrt(300))


def test_a_state_without_samples_is_reweighted(x64):
    counts = np.array([4000, 0, 4000])
    sigmas = [0.3, 0.6, 1.0]
    log_q = gaussians(jax.random.key(3), sigmas, 2, counts)
    fit = ebm.fit_normalizers(log_q, counts)
    truth = np.log((1 + np.array(sigmas) ** 2) / 1.09)
    np.testing.assert_allclose(fit.normalizers, truth, atol=0.1)
    assert np.isnan(fit.stderr[1])


def test_the_classification_gradient_vanishes_there(x64):
    """Frozen energies: the derivative of the loss in `F`, computed by jax from the logits, is zero at the fit."""
    counts, sigmas = np.array([200, 200, 200]), [0.2, 0.8, 2.5]
    log_q = gaussians(jax.random.key(4), sigmas, 2, counts)
    fit = ebm.fit_normalizers(log_q, counts)
    blocks = log_q.reshape(3, 200, 3).transpose(1, 0, 2)  # [repetition, sample, class]
    loss = lambda f: jnp.mean(jax.vmap(lambda b: ebm.classification_loss(b - f[None, :]))(blocks))  # noqa: E731
    np.testing.assert_allclose(jax.grad(loss)(fit.normalizers), 0, atol=1e-10)
    assert loss(fit.normalizers) < np.log(3)


def test_bad_input():
    with pytest.raises(ValueError, match="counts"):
        ebm.fit_normalizers(jnp.zeros((4, 2)), jnp.array([4]))
    with pytest.raises(ValueError, match="anchor"):
        ebm.fit_normalizers(jnp.zeros((4, 2)), jnp.array([2, 2]), anchor=2)
