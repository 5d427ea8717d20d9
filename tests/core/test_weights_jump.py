"""Jumps on R^d and the binned head: exact weights, ESS to one, forward equation, what bins say about the residual.

Statistical tolerance: 4 standard errors with fixed keys. Residuals are held to 1e-6 by quadrature in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from egmjax._pytree import frozen_pytree
from egmjax.estimators import psi_from_energy, snis
from egmjax.generators import RealJump, action, scale, superpose
from egmjax.paths import GaussianPath, stationary_path
from egmjax.paths._intervals import log_interval_mass
from egmjax.processes import (
    BinnedHead,
    DiffusionProcess,
    FlowProcess,
    GaussianJumpProcess,
    ResidualHead,
    SuperpositionProcess,
)
from egmjax.proposals import reference_posterior
from egmjax.simulators import grid_sampler, scale_spacing, time_grid
from egmjax.training import snis_objective
from tests.core.checks import ess_fraction, kolmogorov_score, weight_score
from tests.core.exact import Mixture, slope
from tests.core.registry import GAUSSIAN_FORMS, garbage, gaussian_path
from tests.core.test_forward_equation import TEST_FUNCTIONS

pytestmark = pytest.mark.slow  # compiles a lot

K, LOG_Z = 4.0, 0.7
LINE = Mixture([[-1.0], [1.4]], [0.4, 0.7], [0.35, 0.65], LOG_Z)
PLANE = Mixture([[-1.2, 0.3], [1.0, -0.5]], [0.7, 0.6], [0.4, 0.6], LOG_Z)


def jump_of(dim=1, bins=48, reach=3.5, kind=GaussianJumpProcess):
    return kind(stationary_path((dim,), mean=0.1, scale=1.5), head=BinnedHead(bins, reach))


def posterior_of(process, mixture):
    """The exact prediction for a mixture on the line, from truncated normals."""
    path, head = process.path, process.head

    def predict(x, t):
        alpha, sigma = path.coefficients(t)
        sigma = jnp.maximum(sigma, 1e-6)
        means, scales, weights = (
            jnp.asarray(a, dtype=float) for a in (mixture.means[:, 0], mixture.scales, mixture.weights)
        )
        variance = (alpha * scales) ** 2 + sigma**2
        away = x[0] - alpha * means
        share = jax.nn.softmax(jnp.log(weights) - 0.5 * (away**2 / variance + jnp.log(variance)))
        centre, spread = means + alpha * scales**2 / variance * away, scales * sigma / jnp.sqrt(variance)
        edges = path.mean + path.scale * head.edges
        distances = (edges[None] - centre[:, None]) / spread[:, None]
        log_mass = jnp.log(share)[:, None] + log_interval_mass(distances[:, :-1], distances[:, 1:])
        belief = path.endpoint_belief(x, t)
        distances = (edges - belief.mean[0]) / jnp.maximum(belief.scale, 1e-6)
        reference = log_interval_mass(distances[:-1], distances[1:])
        return jnp.clip(jax.nn.logsumexp(log_mass, axis=0) - reference, -60.0, 60.0)[None]

    return predict


def psi(process, mixture, x):
    return -mixture.energy(x) - process.path.log_reference(x, 1.0)


def roll_out(process, mixture, predict_fn, times, num):
    sampler = grid_sampler(process, times)

    @jax.jit
    @jax.vmap
    def run(key):
        rollout = sampler.sample(key, predict_fn)
        return rollout.x, psi(process, mixture, rollout.x) + rollout.log_weight

    return run(jax.random.split(jax.random.key(0), num))


def grid_of(process, num_steps):
    return time_grid(num_steps, scale_spacing(process.path, float(process.head.width)))


@pytest.mark.parametrize(("dim", "mixture", "bound"), [(1, LINE, 0.02), (2, PLANE, 0.05)])
def test_mean_weight_is_z_for_a_spoiled_network(dim, mixture, bound):
    process = jump_of(dim, 12)
    _, log_w = roll_out(process, mixture, garbage(process, gain=0.6), grid_of(process, 4), 20_000)
    score, error = weight_score(log_w, LOG_Z)
    assert score < K
    assert 1e-3 < error < bound


def test_mean_weight_is_z_for_flow_and_jump_with_one_prediction():
    jump = jump_of(2, 8)
    both = SuperpositionProcess((FlowProcess(jump.path, head=jump.head), jump), (0.5, 0.5))
    _, log_w = roll_out(both, PLANE, garbage(jump, gain=0.3), grid_of(jump, 3), 20_000)
    score, error = weight_score(log_w, LOG_Z)
    assert score < K
    assert 1e-3 < error < 0.05


@pytest.mark.slow
def test_exact_network_tends_to_ess_one_as_bins_get_finer():
    ess = []
    for bins in (16, 64):
        process = jump_of(1, bins)
        x, log_w = roll_out(process, LINE, posterior_of(process, LINE), grid_of(process, 6), 4000)
        ess.append(ess_fraction(log_w))
    assert ess[0] < ess[1]
    assert ess[1] > 0.985
    cdf = lambda v: sum(w * norm.cdf(v, m[0], s) for w, m, s in zip(LINE.weights, LINE.means, LINE.scales))  # noqa: E731
    assert kolmogorov_score(np.asarray(x)[:, 0], cdf) < 2


def test_backward_weights_bound_log_z_from_above():
    process = jump_of(1, 12)
    sampler, predict_fn = grid_sampler(process, grid_of(process, 4)), garbage(process, gain=0.3)
    wide = Mixture([[-1.0], [1.2]], [1.2, 1.3], [0.4, 0.6], LOG_Z)  # 1/w has a variance
    run = jax.jit(jax.vmap(lambda k, x: psi(process, wide, x) + sampler.log_weight(k, predict_fn, x)))
    upper = np.asarray(run(jax.random.split(jax.random.key(1), 20_000), wide.sample(1, 20_000)), np.float64)
    score, error = weight_score(-upper, -LOG_Z)
    assert score < K
    assert error < 0.03
    assert upper.mean() > LOG_Z


@pytest.mark.parametrize("name", ["condot", "trigonometric", "variance_preserving"])
def test_forward_equation_given_an_endpoint(name, x64):
    """The generator that `D = one bin` gives is that of the bin's centre; the worst residual is printed."""
    path = gaussian_path(name, (1,))
    process = GaussianJumpProcess(path, head=BinnedHead(4, 2.0))
    centre = float(process.head.atoms(path)[0, 2])
    prediction = jnp.where(jnp.arange(4) == 2, 0.0, -400.0)[None]
    nodes = np.linspace(-9.0, 9.0, 12_001)
    weights = norm.pdf(nodes) * (nodes[1] - nodes[0])

    @jax.jit
    def act(x, t):
        def all_of(x):
            generator = process.generator(prediction, x, t)
            return jnp.stack([action(generator, fn, x) for fn in TEST_FUNCTIONS.values()])

        return jax.vmap(all_of)(x)

    worst = 0.0
    for t in (0.15, 0.4, 0.8):

        def means(s):
            alpha, _, sigma, _ = GAUSSIAN_FORMS[name](s)
            x = jnp.asarray(alpha * centre + sigma * nodes)[:, None]
            return np.array([(weights * np.asarray(fn(x))).sum() for fn in TEST_FUNCTIONS.values()])

        alpha, _, sigma, _ = GAUSSIAN_FORMS[name](t)
        right = weights @ np.asarray(
            act(jnp.asarray(alpha * centre + sigma * nodes)[:, None], jnp.asarray(t))
        )
        worst = max(worst, np.abs(slope(means, t) - right).max())
    print(f"{name}: worst residual {worst:.1e}")
    assert worst < 1e-6  # of the trapezoid rule, at the kinks of the rate


def test_bins_imply_the_residual_of_a_step_density(x64):
    """`E[x_1 | x_t]` by quadrature, for a posterior that is the belief times a step function."""
    process, prediction = jump_of(1, 10, 2.5), 0.8 * jnp.sin(jnp.arange(10.0))[None]
    flow = FlowProcess(process.path, head=process.head)
    for t, x in [(0.0, 0.4), (0.5, -1.3), (0.97, 1.9)]:
        xt = jnp.array([x])
        belief = process.path.endpoint_belief(xt, t)
        e = np.linspace(-10.0, 10.0, 400_001)
        x1 = belief.mean[0] + belief.scale * e
        density = np.exp(prediction[0][process.head.bin_of(process.path, x1)]) * norm.pdf(e)
        want = (density * e).sum() / density.sum()
        np.testing.assert_allclose(flow.residual(prediction, xt, t), [want], atol=1e-4)
        masses = np.exp(process.head.posterior(process.path, prediction, xt, t))[0]
        found = (
            np.bincount(process.head.bin_of(process.path, x1), weights=density, minlength=10) / density.sum()
        )
        np.testing.assert_allclose(masses, found, atol=1e-4)
    level = jnp.full((1, 10), 0.7)
    np.testing.assert_allclose(flow.residual(level, jnp.array([0.4]), 0.6), 0.0, atol=1e-12)


def test_coefficients_of_jumps_add_and_scale(x64):
    x = jnp.array([0.3, -0.2])
    a = RealJump(jnp.array([[0.2, 0.4], [0.1, 0.0]]), jnp.array([[0.5, -1.0], [0.3, 0.1]]))
    b = RealJump(jnp.array([[1.0], [0.5]]), jnp.array([[2.0], [0.7]]))
    fn = lambda y: jnp.sin(y[0]) * y[1] ** 2  # noqa: E731
    want = 2.0 * action(a, fn, x) + 0.5 * action(b, fn, x)
    np.testing.assert_allclose(action(superpose([a, b], [2.0, 0.5]), fn, x), want, rtol=1e-12)
    np.testing.assert_allclose(scale(a, 3.0).locations, a.locations)


def test_bootstrap_is_refused():
    process = jump_of()
    assert not process.can_bootstrap
    psi_fn, proposal = psi_from_energy(LINE.energy, process.path), reference_posterior(process.path)
    with pytest.raises(ValueError, match="r: the target of this process exists at r=1 only"):
        snis(
            jax.random.key(0), jnp.zeros(1), 0.2, 0.6,
            process=process, proposal=proposal, psi_fn=psi_fn, num_proposals=4,
        )  # fmt: skip
    with pytest.raises(ValueError, match="step_fn: the target of this process"):
        snis_objective(
            process, lambda p, x, t: 0.0, proposal, psi_fn, num_proposals=4,
            psi_apply_fn=lambda p, x, t: 0.0, step_fn=lambda t, i: 0.1,
        )  # fmt: skip
    with pytest.raises(ValueError, match="r: the bin of x_1"):
        process.target(jnp.zeros(1), jnp.zeros(1), 0.2, 0.6)


def test_bad_input():
    path = stationary_path((1,))
    with pytest.raises(ValueError, match="bins: at least 2"):
        BinnedHead(1)
    with pytest.raises(ValueError, match="reach: must be positive"):
        BinnedHead(4, 0.0)
    with pytest.raises(ValueError, match="head: jumps need a BinnedHead"):
        GaussianJumpProcess(path, head=ResidualHead())
    with pytest.raises(ValueError, match="num_steps: at least 1"):
        time_grid(0, scale_spacing(path, 0.1))
    with pytest.raises(ValueError, match="last_scale"):
        scale_spacing(path, 1.5)
    with pytest.raises(ValueError, match="one path and one prediction"):
        SuperpositionProcess((DiffusionProcess(path), jump_of()), (0.5, 0.5))


def test_last_step_starts_where_asked():
    for path in (
        stationary_path((2,)),
        GaussianPath(gaussian_path("condot").schedule, scale=2.0, shape=(1,)),
    ):
        times = time_grid(5, scale_spacing(path, 0.1))
        assert (times[0], times[-1], len(times)) == (0, 1, 6)
        np.testing.assert_allclose(path.angle(times[-2]).cos, 0.1, rtol=1e-3)


@frozen_pytree
class AtomForgotten(GaussianJumpProcess):
    """Weighs a stay as if it had been certain."""

    def _increment(self, xt, xs, raw, predict_fn, t, s):
        right = super()._increment(xt, xs, raw, predict_fn, t, s)
        moved = self.path.log_reference(xs, jnp.minimum(s, 0.99)) - self.path.log_reference(xt, t)
        return jnp.where(jnp.all(xt == xs), moved, right)


def test_faults_are_detected():
    process = jump_of(1, 12, kind=AtomForgotten)
    _, log_w = roll_out(process, LINE, garbage(process, gain=0.6), grid_of(process, 4), 20_000)
    assert weight_score(log_w, LOG_Z)[0] > 6
