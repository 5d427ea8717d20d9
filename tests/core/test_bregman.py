"""Bregman divergences: non-negative, zero at equality, minimised by the mean of noisy targets; closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.losses import bregman, cross_entropy, generalized_kl, squared_error

A = np.array([0.2, 0.7, 1.9])
B = np.array([0.5, 0.4, 2.2])

DIVERGENCES = {  # of positive arrays; networks that speak in logarithms are wrapped
    "squared_error": squared_error,
    "generalized_kl": lambda a, b: generalized_kl(a, jnp.log(b)),
    "itakura_saito": bregman(lambda x: -jnp.sum(jnp.log(x))),
    "cubic": bregman(lambda x: jnp.sum(x**3)),
}


def affine_error(divergence, seed=0):
    """How far the gradient in the prediction is from an affine function of the target."""
    rng = np.random.default_rng(seed)
    b, a, c = (jnp.asarray(rng.uniform(0.2, 2.0, size=3)) for _ in range(3))
    gradient = jax.grad(divergence, argnums=1)
    return float(np.abs(gradient(0.3 * a + 0.7 * c, b) - 0.3 * gradient(a, b) - 0.7 * gradient(c, b)).max())


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergence_is_a_divergence(name, x64):
    divergence = DIVERGENCES[name]
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = (jnp.asarray(rng.uniform(0.1, 3.0, size=4)) for _ in range(2))
        assert divergence(a, b) > 0
        assert abs(divergence(a, a)) < 1e-12
    assert affine_error(divergence) < 1e-12


@pytest.mark.parametrize("name", DIVERGENCES)
def test_minimiser_is_the_mean(name, x64):
    divergence = DIVERGENCES[name]
    targets = jnp.asarray(np.random.default_rng(2).uniform(0.2, 3.0, size=(50, 3)))
    mean = targets.mean(0)

    def risk(b):
        return jnp.mean(jax.vmap(lambda a: divergence(a, b))(targets))

    np.testing.assert_allclose(jax.grad(risk)(mean), 0, atol=1e-12)
    for shift in np.eye(3) * 0.05:
        assert risk(mean + shift) > risk(mean)
        assert risk(mean - shift) > risk(mean)


def test_closed_forms(x64):
    a, b = jnp.asarray(A), jnp.asarray(B)
    np.testing.assert_allclose(squared_error(a, b), np.sum((A - B) ** 2), rtol=1e-14)
    kl = np.sum(A * np.log(A / B) - A + B)
    np.testing.assert_allclose(generalized_kl(a, jnp.log(b)), kl, rtol=1e-12)
    np.testing.assert_allclose(
        DIVERGENCES["itakura_saito"](a, b), np.sum(A / B - np.log(A / B) - 1), rtol=1e-12
    )


def test_generic_divergence_equals_the_named_ones(x64):
    a, b = jnp.asarray(A), jnp.asarray(B)
    squared = bregman(lambda x: jnp.sum(x**2))
    entropy = bregman(lambda x: jnp.sum(x * jnp.log(x)))
    np.testing.assert_allclose(squared(a, b), squared_error(a, b), rtol=1e-12)
    np.testing.assert_allclose(entropy(a, b), generalized_kl(a, jnp.log(b)), rtol=1e-12)


def test_cross_entropy_is_the_divergence_of_negative_entropy_up_to_the_target(x64):
    logits, other = jnp.asarray([[0.3, -1.0, 2.0]]), jnp.asarray([[1.0, 0.1, 0.2]])
    p = jax.nn.softmax(jnp.asarray([0.1, 0.4, -0.7]))
    entropy = bregman(lambda x: jnp.sum(x * jnp.log(x)))
    difference = cross_entropy(p[None], logits)[0] - cross_entropy(p[None], other)[0]
    q, q_other = jax.nn.softmax(logits[0]), jax.nn.softmax(other[0])
    np.testing.assert_allclose(difference, entropy(p, q) - entropy(p, q_other), atol=1e-12)
    np.testing.assert_allclose(cross_entropy(p[None], logits)[0], -np.sum(p * np.log(q)), rtol=1e-12)
    # targets outside the simplex, as bootstrapped ones are: stationary at the mean all the same
    targets = jnp.asarray([[1.8, -0.5, -0.3], [-0.6, 0.9, 0.7]])
    mean_logits = jnp.log(targets.mean(0))[None]

    def risk(z):
        return sum(cross_entropy(a[None], z)[0] for a in targets)

    np.testing.assert_allclose(jax.grad(risk)(mean_logits), 0, atol=1e-12)


def test_zero_rates_are_allowed():
    value, gradient = jax.value_and_grad(generalized_kl, argnums=1)(jnp.zeros(2), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(value, 1 + np.e, rtol=1e-6)
    np.testing.assert_allclose(gradient, [1, np.e], rtol=1e-6)


def test_fault_is_detected(x64):
    """With its arguments swapped a divergence no longer learns the mean."""
    kl = DIVERGENCES["generalized_kl"]
    assert affine_error(lambda a, b: kl(b, a)) > 1e-2
