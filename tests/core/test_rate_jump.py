"""The published parameterisation: its target, its divergence, and samples from the exact rates.

With one endpoint the exact prediction is closed form: end points are then within a bin of it.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from egmjax.generators import action
from egmjax.paths import stationary_path
from egmjax.processes import BinnedHead, RateJumpProcess

pytestmark = pytest.mark.slow  # compiles a lot

Z = 0.8


def process_of(rule="corrected", bins=24):
    return RateJumpProcess(stationary_path((1,), mean=0.1, scale=1.2), BinnedHead(bins, 3.0), rule)


def exact(process):
    """The prediction for the single endpoint `Z`, from the target by inverting softplus."""

    def predict(x, t):
        t, z = jnp.minimum(t, 0.999), jnp.full((1,), Z)
        alpha, sigma = process.path.coefficients(t)
        away = process.target(
            alpha * z - 5.0 * sigma, z, t
        )  # the law is that of every state; here there is a rate
        rate = jnp.clip(process.target(x, z, t)[..., -1:], 1e-6, 80.0)
        law = away[..., :-1] / away[..., -1:]
        return jnp.concatenate([jnp.log(law + 1e-12), jnp.log(jnp.expm1(rate))], axis=-1)

    return predict


def test_target_is_the_law_of_jumps(x64):
    process, t, x = process_of(bins=6), 0.4, -1.9
    alpha, sigma = np.sin(0.5 * np.pi * t), 1.2 * np.cos(0.5 * np.pi * t)
    r = np.cos(0.5 * np.pi * t) * Z / (1.2 * np.sin(0.5 * np.pi * t))
    target = np.asarray(process.target(jnp.array([x]), jnp.array([Z]), t))[0]
    e = (x - alpha * Z) / sigma
    np.testing.assert_allclose(target[-1], max(e * e - r * e - 1, 0), rtol=1e-10)
    np.testing.assert_allclose(target[:-1].sum(), target[-1], rtol=1e-10)
    edges = np.concatenate([[-np.inf], 0.1 + 1.2 * np.linspace(-2.0, 2.0, 5), [np.inf]])
    low, high = np.sort(np.roots([-1.0, r, 1.0]))

    def mass(a, b):
        a, b = (np.clip((v - alpha * Z) / sigma, low, high) for v in (a, b))
        return quad(lambda e: (1 + r * e - e * e) * norm.pdf(e), a, b, epsabs=1e-13)[0]

    masses = np.array([mass(a, b) for a, b in itertools.pairwise(edges)])
    np.testing.assert_allclose(target[:-1] / target[-1], masses / masses.sum(), atol=1e-9)


def test_divergence_is_the_generalised_kl_of_intensities(x64):
    """Polar form and direct form differ by what the target alone says."""
    process, x, t = process_of(bins=6), jnp.array([-1.9]), 0.4
    target = process.target(x, jnp.array([Z]), t)
    raws = jax.random.normal(jax.random.key(0), (2, 1, 7))

    def direct(raw):
        intensity = process.rate(raw)[..., None] * jax.nn.softmax(raw[..., :-1], axis=-1)
        return jnp.sum(intensity - target[..., :-1] * jnp.log(intensity))

    polar = [process.divergence(target, raw, x, t) for raw in raws]
    np.testing.assert_allclose(polar[0] - polar[1], direct(raws[0]) - direct(raws[1]), rtol=1e-10)
    best = exact(process)(x, t)
    assert process.divergence(target, best, x, t) < min(polar)
    assert np.all(np.isfinite(jax.grad(lambda raw: process.divergence(target, raw, x, t))(best)))


@pytest.mark.parametrize("rule", ["corrected", "exp"])
def test_exact_rates_end_near_the_endpoint(rule):
    process, times = process_of(rule), jnp.linspace(0.0, 1.0, 41)

    @jax.jit
    @jax.vmap
    def run(key):
        def advance(x, inputs):
            x, increment = process.step(inputs[0], x, exact(process), *inputs[1:])
            return x, increment

        x, increments = jax.lax.scan(
            advance, process.path.sample_prior(key), (jax.random.split(key, 40), times[:-1], times[1:])
        )
        return x, increments

    x, increments = run(jax.random.split(jax.random.key(0), 2000))
    assert np.all(np.isnan(increments))
    width = 1.2 * 6.0 / 24
    near = np.mean(np.abs(np.asarray(x)[:, 0] - Z) < width)
    assert near > (0.97 if rule == "corrected" else 0.5)


def test_no_weights_and_no_bootstrap():
    process, x = process_of(), jnp.zeros(1)
    assert not process.can_bootstrap
    for fn in (
        lambda: process.backward(jax.random.key(0), x, exact(process), 0.2, 0.3),
        lambda: process.increment(jax.random.key(0), x, x, exact(process), 0.2, 0.3),
    ):
        with pytest.raises(NotImplementedError, match="no backward kernel"):
            fn()
    with pytest.raises(ValueError, match="r: rates of jumps"):
        process.target(x, x, 0.2, 0.6)
    with pytest.raises(ValueError, match="rule: expected"):
        process_of("never")


def test_generator_moves_towards_the_endpoint(x64):
    process, x = process_of(), jnp.array([-2.5])
    generator = process.generator(exact(process)(x, 0.5), x, 0.5)
    assert action(generator, lambda y: y[0], x) > 0
    np.testing.assert_allclose(action(generator, lambda y: 1.0 + 0.0 * y[0], x), 0.0, atol=1e-12)


def test_a_fault_is_detected():
    """Bins by the density at their centres lose the law near `t = 1`; exact masses do not."""
    process, t = process_of(bins=24), 0.995
    target = np.asarray(process.target(jnp.array([2.0]), jnp.array([Z]), t))[0]
    np.testing.assert_allclose(target[:-1].sum() / target[-1], 1.0, rtol=1e-3)
    sigma = float(process.path.coefficients(t)[1])
    centres = np.asarray(process.grid.atoms(process.path))[0]
    by_centre = norm.pdf((centres - Z) / sigma).sum() * (1.2 * 0.25) / sigma
    assert abs(by_centre - 1) > 0.1
