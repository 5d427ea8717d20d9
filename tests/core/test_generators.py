"""Generators: their action against finite differences, and the arithmetic of superposition and scale."""

import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.generators import Diffusion, Flow, Jump, Superposition, action, scale, superpose
from tests.core.registry import GENERATORS

H = 1e-4  # central differences in float64: error O(h^2) = 1e-7


def test_fn(x):
    return jnp.sin(x[0]) * x[1] ** 2 + jnp.exp(0.3 * x[0] * x[1])


test_fn.__test__ = False


def differences(x):
    """Gradient and Hessian of `test_fn` by central differences."""

    def fn(y):
        return np.sin(y[0]) * y[1] ** 2 + np.exp(0.3 * y[0] * y[1])

    x, e = np.asarray(x, np.float64), H * np.eye(2)
    gradient = [(fn(x + e[i]) - fn(x - e[i])) / (2 * H) for i in range(2)]
    hessian = [
        [(fn(x + a + b) - fn(x + a - b) - fn(x - a + b) + fn(x - a - b)) / (4 * H**2) for b in e] for a in e
    ]
    return np.array(gradient), np.array(hessian)


@pytest.mark.parametrize(
    "covariance", [0.8, [0.8, 0.1], [[0.8, 0.2], [0.2, 0.3]]], ids=["scalar", "diagonal", "full"]
)
def test_diffusion_acts_as_drift_and_half_the_trace(covariance, x64):
    x, drift = jnp.array([0.4, -1.1]), jnp.array([0.7, 0.2])
    gradient, hessian = differences(x)
    matrix = np.asarray(covariance)
    matrix = matrix * np.eye(2) if matrix.ndim == 0 else np.diag(matrix) if matrix.ndim == 1 else matrix
    exact = gradient @ np.asarray(drift) + 0.5 * np.sum(matrix * hessian)
    got = action(Diffusion(drift, jnp.asarray(covariance)), test_fn, x)
    np.testing.assert_allclose(got, exact, atol=1e-6)


def test_flow_and_jump_act_by_their_definitions(x64):
    x = jnp.array([0.4, -1.1])
    np.testing.assert_allclose(
        action(Flow(jnp.array([0.7, 0.2])), test_fn, x), differences(x)[0] @ [0.7, 0.2], atol=1e-6
    )
    rates, state = np.array([[0.3, 0.0, 1.1], [0.2, 0.5, 0.0]]), np.array([3, 1])
    values = np.random.default_rng(0).normal(size=(4, 4))
    exact = sum(
        rates[i, y] * (values[tuple(np.where(np.arange(2) == i, y, state))] - values[tuple(state)])
        for i in range(2)
        for y in range(3)
    )
    got = action(Jump(jnp.asarray(rates)), lambda s: jnp.asarray(values)[s[0], s[1]], jnp.asarray(state))
    np.testing.assert_allclose(got, exact, atol=1e-12)


def test_rate_and_law_of_a_jump():
    jump = Jump(jnp.array([[0.2, 0.0, 0.6], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(jump.rate, [0.8, 0.0])
    np.testing.assert_allclose(jump.law, [[0.25, 0.0, 0.75], [0.0, 0.0, 0.0]])


REAL = ["flow", "diffusion_scalar", "diffusion_diagonal", "diffusion_full", "superposition"]


@pytest.mark.parametrize("first", REAL)
@pytest.mark.parametrize("second", REAL)
def test_superposition_acts_as_the_weighted_sum(first, second, x64):
    (a, x), (b, _) = GENERATORS[first](), GENERATORS[second]()
    both = superpose([a, b], [0.3, 1.7])
    expected = 0.3 * action(a, test_fn, x) + 1.7 * action(b, test_fn, x)
    np.testing.assert_allclose(action(both, test_fn, x), expected, atol=1e-12)


def test_superposition_merges_what_it_can():
    flow, diffusion = GENERATORS["flow"]()[0], GENERATORS["diffusion_full"]()[0]
    jump = Jump(jnp.ones((2, 3)))
    assert isinstance(superpose([flow, flow], [0.5, 0.5]), Flow)
    assert isinstance(superpose([flow, diffusion], [0.5, 0.5]), Diffusion)
    assert isinstance(superpose([jump, jump], [0.5, 0.5]), Jump)
    mixed = superpose([jump, superpose([flow, jump], [1.0, 1.0]), diffusion], [1.0, 2.0, 3.0])
    assert isinstance(mixed, Superposition)
    assert [type(p) for p in mixed.parts] == [Diffusion, Jump]
    np.testing.assert_allclose(mixed.parts[1].intensities, 3.0)
    one = superpose([flow], [1.0])
    np.testing.assert_allclose(one.velocity, flow.velocity)


def test_products_are_superposed_by_component(x64):
    product, x = GENERATORS["product"]()
    other = scale(product, 0.5)

    def fn(state):
        return jnp.sin(state[0][0]) * state[1][0] + state[1][1] * state[0][1]

    both = superpose([product, other], [2.0, 3.0])
    assert isinstance(both, tuple)
    np.testing.assert_allclose(action(both, fn, x), 3.5 * action(product, fn, x), atol=1e-12)


def test_superpose_refuses_what_does_not_fit():
    flow, product = GENERATORS["flow"]()[0], GENERATORS["product"]()[0]
    with pytest.raises(ValueError, match="weights"):
        superpose([flow, flow], [1.0])
    with pytest.raises(ValueError, match="weights"):
        superpose([], [])
    with pytest.raises(ValueError, match="product"):
        superpose([flow, product], [0.5, 0.5])
    with pytest.raises(ValueError, match="components"):
        superpose([product, product[:1]], [0.5, 0.5])


def test_fault_is_detected(x64):
    """A trace without its half is seen."""
    x, drift = jnp.array([0.4, -1.1]), jnp.zeros(2)
    _, hessian = differences(x)
    wrong = action(Diffusion(drift, jnp.asarray(2.0)), test_fn, x)
    assert abs(wrong - 0.5 * np.trace(hessian)) > 0.1
