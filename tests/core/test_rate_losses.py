"""Divergences of rates and covariances against their direct forms, and the processes' own "rate" weighting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.losses import (
    bregman,
    generalized_kl,
    itakura_saito,
    jump_kl,
    log_det_divergence,
    mixture_kl,
)
from egmjax.paths import MaskedPath, MixturePath
from egmjax.processes import MaskedProcess, MixtureProcess

SITES, STATES, T = 4, 3, 0.3


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.usefixtures("x64")
def test_polar_form_is_the_direct_one():
    rate, law = jnp.exp(normal(0, SITES)), jax.nn.softmax(3 * normal(1, SITES, STATES))
    law = law.at[0].set(jnp.array([0.0, 1.0, 0.0]))  # empty bins
    rate = rate.at[2].set(0.0)
    log_rate, logits = normal(2, SITES), normal(3, SITES, STATES)
    log_q = log_rate[:, None] + jax.nn.log_softmax(logits)
    direct = generalized_kl(rate[:, None] * law, log_q)
    np.testing.assert_allclose(jump_kl(rate, law, log_rate, logits), direct, rtol=1e-12)
    gradient = jax.grad(lambda a, b: jump_kl(rate, law, a, b), (0, 1))(log_rate, logits)
    assert all(np.all(np.isfinite(g)) for g in gradient)
    own = jump_kl(rate[:2], law[:2] + 1e-300, jnp.log(rate[:2]), jnp.log(law[:2] + 1e-300))
    np.testing.assert_allclose(own, 0, atol=1e-12)
    # a fault that this catches: cross-entropy not weighted by the rate
    wrong = direct - jnp.sum((rate - 1) * jnp.sum(law * -jax.nn.log_softmax(logits), axis=-1))
    assert abs(wrong - direct) > 0.1


def mixture_rates(posterior, xt, hazard):
    """`c (p(y) - 1{y = x})` off the diagonal, written out."""
    rates = np.array(hazard * posterior)
    for i, x in enumerate(xt):
        if x < STATES:
            rates[i, x] = 0.0
    return rates


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("prior", ["mask", "uniform"])
def test_code_form_is_the_bregman_sum(prior):
    """The form of released code against `sum_y u_theta - u + u log(u / u_theta)`."""
    xt = jnp.array([0, 2, 1, 1]) if prior == "uniform" else jnp.array([STATES, 2, STATES, 1])
    x1 = jnp.array([0, 1, 2, 1]) if prior == "uniform" else jnp.array([0, 2, 2, 1])
    log_p = jax.nn.log_softmax(2 * normal(5, SITES, STATES))
    if prior == "mask":  # what is shown is known
        log_p = jnp.where((xt < STATES)[:, None], jnp.log(jax.nn.one_hot(xt, STATES)), log_p)
    hazard = 1 / (1 - T)
    target = jax.nn.one_hot(x1, STATES, dtype=float)
    u, u_theta = (mixture_rates(p, xt, hazard) for p in (target, jnp.exp(log_p)))
    with np.errstate(divide="ignore"):
        direct = generalized_kl(u, np.log(u_theta))
    np.testing.assert_allclose(hazard * jnp.sum(mixture_kl(target, log_p, xt)), direct, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_rate_weighting_of_masks_is_the_code_form():
    process = MaskedProcess(MaskedPath(sites=SITES, num_states=STATES))
    xt, x1 = jnp.array([STATES, 2, STATES, 1]), jnp.array([0, 2, 2, 1])
    logits = normal(6, SITES, STATES)
    known = jnp.where((xt < STATES)[:, None], jnp.log(jax.nn.one_hot(xt, STATES)), jax.nn.log_softmax(logits))
    loss = process.divergence(process.target(xt, x1, T), logits, xt, T)
    code = jnp.sum(mixture_kl(jax.nn.one_hot(x1, STATES, dtype=float), known, xt)) / (1 - T)
    np.testing.assert_allclose(loss, code, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_rate_weighting_of_uniform_symbols_is_that_of_the_reversal():
    """Bregman of the reversed noising chain's rates, which are others than the clock's: not the code form."""
    process = MixtureProcess(MixturePath(sites=SITES, num_states=STATES))
    xt, x1 = jnp.array([0, 2, 1, 1]), jnp.array([0, 1, 2, 1])
    target = process.target(xt, x1, T)
    losses, code = [], []
    for seed in (7, 8):
        prediction = normal(seed, SITES, STATES)
        log_p = process.posterior(prediction, xt, T)
        u, u_theta = (np.array(process.intensities(p, xt, T)) for p in (target, jnp.exp(log_p)))
        away = np.arange(STATES)[None, :] != np.asarray(xt)[:, None]
        losses.append(
            (
                process.divergence(target, prediction, xt, T),
                generalized_kl(jnp.asarray(u[away]), jnp.log(u_theta[away])),
            )
        )
        code.append(jnp.sum(mixture_kl(target, log_p, xt)) / (1 - T))
    # equal up to what depends on the target alone
    np.testing.assert_allclose(losses[0][0] - losses[1][0], losses[0][1] - losses[1][1], rtol=1e-12)
    assert abs((losses[0][0] - losses[1][0]) - (code[0] - code[1])) > 0.01


@pytest.mark.usefixtures("x64")
def test_divergences_of_variances():
    a, log_b = jnp.exp(normal(9, 5)), normal(10, 5)
    direct = bregman(lambda x: -jnp.sum(jnp.log(x)))(a, jnp.exp(log_b))
    np.testing.assert_allclose(itakura_saito(a, log_b), direct, rtol=1e-10)
    np.testing.assert_allclose(itakura_saito(a, jnp.log(a)), 0, atol=1e-12)
    root_a, root_b = normal(11, 3, 3), normal(12, 3, 3)
    big_a, big_b = (r @ r.T + 0.1 * jnp.eye(3) for r in (root_a, root_b))
    direct = bregman(lambda x: -jnp.linalg.slogdet(x)[1])(big_a, big_b)
    np.testing.assert_allclose(log_det_divergence(big_a, big_b), direct, rtol=1e-9)
    values = jnp.linalg.eigvals(big_a @ jnp.linalg.inv(big_b)).real
    np.testing.assert_allclose(
        log_det_divergence(big_a, big_b), itakura_saito(values, jnp.zeros(3)), rtol=1e-9
    )
