"""Flows solved as differential equations against closed forms: Gaussian targets and a mixture.

The flow of the exact residual carries the prior to the target, so its log-probability is the target's, up to the
solver's tolerance; the Hutchinson estimate is unbiased, to 4 standard errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.paths import CondOT, GaussianPath, VarianceExploding, VariancePreserving
from egmjax.processes import BinnedHead, DiffusionProcess, FlowProcess
from egmjax.simulators import flow_ode, time_grid
from tests.core.exact import Mixture
from tests.core.registry import garbage

TARGET = Mixture([[0.9, -0.4], [-0.8, 0.6]], [0.5, 0.5], [0.6, 0.4])
X = jnp.array([[0.3, 0.1], [1.4, -1.0], [-1.1, 0.2]])
STEEP = {"exploding": VarianceExploding(0.05, 3.0), "preserving": VariancePreserving(1.1, 0.1, 8.0)}
MEAN, SCALE, STD = np.array([0.4, -0.2]), np.array([0.6, 1.9]), np.array([1.1, 0.7])


def flow(schedule, scale=1.2, stepper="heun"):
    return FlowProcess(GaussianPath(schedule, mean=0.3, scale=scale, shape=(2,)), stepper=stepper)


def gaussian_residual(path):
    """The exact residual of `N(MEAN, STD^2)`, coordinate by coordinate."""

    def predict(x, t):
        alpha, sigma = path.coefficients(t)
        variance = (alpha * STD) ** 2 + sigma**2
        belief = path.endpoint_belief(x, t)
        scale = jnp.where(belief.scale > 0, belief.scale, 1.0)
        endpoint = MEAN + alpha * STD**2 * (x - alpha * MEAN) / variance
        return jnp.where(sigma > 0, (endpoint - belief.mean) / scale, 0.0)

    return predict


def solve(ode, predict_fn, x, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(x))
    return jax.jit(jax.vmap(lambda k, y: ode.log_prob(k, predict_fn, y)))(keys, x)


def normal(x, mean, std):
    return np.sum(-0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi), -1)


def test_adaptive_log_prob_of_a_mixture():
    process = flow(CondOT(1.5))
    found = solve(flow_ode(process), TARGET.residual(process.path), X)
    np.testing.assert_allclose(found.approximate_log_prob, np.log(TARGET.pdf(X)), atol=2e-4)
    assert np.all(found.num_calls < 300)


@pytest.mark.parametrize("name", STEEP)
def test_schedules_with_an_infinite_slope(name, x64):
    """`(x_t - m_t) / s_t` stays, so the density is the prior's at the start of the line, times `s_0 / s_1`."""
    path = flow(STEEP[name]).path
    alpha, sigma = (float(a) for a in path.coefficients(0.0))
    x, first = np.asarray(X, float), np.sqrt((alpha * STD) ** 2 + sigma**2)
    x0 = alpha * MEAN + first * (x - MEAN) / STD
    exact = normal(x0, alpha * 0.3, np.full(2, np.hypot(alpha * 1.2, sigma))) + np.log(first / STD).sum()
    found = solve(flow_ode(FlowProcess(path), rtol=1e-8, atol=1e-8), gaussian_residual(path), jnp.asarray(x))
    np.testing.assert_allclose(found.x, x0, atol=1e-6)
    np.testing.assert_allclose(found.approximate_log_prob, exact, atol=1e-6)


def test_scales_of_each_coordinate_in_float64(x64):
    path = GaussianPath(CondOT(1.5), mean=jnp.array([0.3, 0.0]), scale=jnp.asarray(SCALE), shape=(2,))
    predict = gaussian_residual(path)
    exact = normal(np.asarray(X), MEAN, STD)
    x = jnp.asarray(X, float)
    adaptive = solve(flow_ode(FlowProcess(path), rtol=1e-9, atol=1e-9), predict, x)
    np.testing.assert_allclose(adaptive.approximate_log_prob, exact, atol=1e-7)
    error = [
        np.abs(
            solve(flow_ode(FlowProcess(path), time_grid(n)), predict, x).approximate_log_prob - exact
        ).max()
        for n in (16, 32)
    ]
    assert 3.5 < error[0] / error[1] < 4.6  # Heun: second order
    there = flow_ode(FlowProcess(path), rtol=1e-9, atol=1e-9).sample(jax.random.key(3), predict)
    np.testing.assert_allclose(there.approximate_log_prob, normal(np.asarray(there.x), MEAN, STD), atol=1e-7)


def test_bins_are_read_through_their_head():
    path = GaussianPath(CondOT(1.5), mean=0.3, scale=1.2, shape=(2,))
    binned = FlowProcess(path, head=BinnedHead(6, 2.5))
    logits = garbage(binned)
    times = time_grid(8)
    found = solve(flow_ode(binned, times), logits, X)

    def residual(x, t):
        return binned.residual(logits(x, t), x, t)

    expected = solve(flow_ode(FlowProcess(path), times), residual, X)
    np.testing.assert_allclose(found.approximate_log_prob, expected.approximate_log_prob, rtol=1e-5)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-5)


def test_hutchinson_is_unbiased():
    times = time_grid(12)
    process = flow(CondOT(1.5))
    predict = TARGET.residual(process.path)
    exact = solve(flow_ode(process, times), predict, X[:1]).approximate_log_prob[0]
    ode = flow_ode(process, times, divergence="hutchinson", num_probes=2)
    values = np.asarray(solve(ode, predict, jnp.tile(X[:1], (1000, 1))).approximate_log_prob, float)
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - exact) < 4 * error
    assert 1e-3 < error < 0.05


@pytest.mark.parametrize("times", [None, time_grid(40)], ids=["adaptive", "fixed"])
def test_gradients_with_respect_to_the_network_and_the_point(times, x64):
    path = GaussianPath(CondOT(1.5), mean=0.3, scale=1.2, shape=(2,))
    ode, exact = flow_ode(FlowProcess(path), times, rtol=1e-8, atol=1e-8), gaussian_residual(path)

    @jax.jit
    def log_prob(gain, x):
        return ode.log_prob(jax.random.key(0), lambda y, t: gain * exact(y, t), x).approximate_log_prob

    x = jnp.asarray(X[0], float)
    slope, force = jax.grad(log_prob, (0, 1))(1.0, x)
    difference = (log_prob(1.0 + 1e-4, x) - log_prob(1.0 - 1e-4, x)) / 2e-4
    np.testing.assert_allclose(slope, difference, rtol=1e-5)
    np.testing.assert_allclose(force, -(x - MEAN) / STD**2, rtol=1e-5 if times is None else 2e-3)


def test_refusals_and_a_solver_that_gives_up():
    process = flow(CondOT(1.5))
    for arguments, match in (
        ({"divergence": "none"}, "divergence"),
        ({"num_probes": 0}, "num_probes"),
        ({"times": [0.0, 0.9]}, "times"),
    ):
        with pytest.raises(ValueError, match=match):
            flow_ode(process, **arguments)
    with pytest.raises(ValueError, match="process: expected a FlowProcess"):
        flow_ode(DiffusionProcess(process.path))
    short = solve(flow_ode(process, max_steps=2), TARGET.residual(process.path), X[:1])
    assert np.isnan(short.approximate_log_prob[0])


def test_faults_are_detected():
    """The wrong sign of the divergence, as a flow that is followed the wrong way."""
    process = flow(CondOT(1.5))
    predict = TARGET.residual(process.path)
    found = solve(flow_ode(process, time_grid(20)), lambda x, t: -predict(x, t), X)
    assert np.abs(found.approximate_log_prob - np.log(TARGET.pdf(X))).max() > 0.1
