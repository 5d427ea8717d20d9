"""Diffusions and superpositions: kernels against closed forms, `E[w] = Z`, ESS to one at any noise level.

Statistical tolerance: 4 standard errors with fixed keys, relative standard error below 3 %.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax._pytree import frozen_pytree
from egmjax.paths import GaussianPath, Trigonometric, VarianceExploding
from egmjax.processes import DiffusionProcess, FlowProcess, SuperpositionProcess
from egmjax.simulators import grid_sampler, time_grid
from tests.core.checks import ess_fraction, weight_score
from tests.core.exact import Mixture
from tests.core.registry import GAUSSIAN_FORMS, GAUSSIAN_SCHEDULES, garbage, gaussian_path
from tests.core.test_forward_equation import TEST_FUNCTIONS, flow_residual

pytestmark = pytest.mark.slow  # compiles a lot

NUM, K, LOG_Z = 20_000, 4.0, 1.3
PLANE = Mixture([[-1.2, 0.3], [1.0, -0.5]], [0.7, 0.6], [0.4, 0.6], LOG_Z)
WIDE = Mixture([[-1.6, 0.3], [1.5, -0.5]], [1.25, 1.2], [0.4, 0.6], LOG_Z)  # 1/w has a variance


def path_of(schedule=None, dim=2, scale=1.5):
    return GaussianPath(schedule or Trigonometric(1.5), mean=0.1, scale=scale, shape=(dim,))


def process_of(noise=1.0, schedule=None):
    return DiffusionProcess(path_of(schedule), noise)


def both(schedule=None):
    path = path_of(schedule)
    return SuperpositionProcess((FlowProcess(path), DiffusionProcess(path, 1.5)), (0.5, 0.5))


def psi(process, mixture, x):
    return -mixture.energy(x) - process.path.log_reference(x, 1.0)


def roll_out(process, mixture, predict_fn, times, num=NUM):
    sampler = grid_sampler(process, times)

    @jax.jit
    @jax.vmap
    def run(key):
        rollout = sampler.sample(key, predict_fn)
        return rollout.x, psi(process, mixture, rollout.x) + rollout.log_weight

    return run(jax.random.split(jax.random.key(0), num))


def weigh(process, mixture, predict_fn, times, num=NUM):
    sampler = grid_sampler(process, times)
    run = jax.jit(jax.vmap(lambda k, x: psi(process, mixture, x) + sampler.log_weight(k, predict_fn, x)))
    return np.asarray(run(jax.random.split(jax.random.key(1), num), mixture.sample(1, num)), np.float64)


@pytest.mark.parametrize(
    ("name", "noise"), list(zip(GAUSSIAN_SCHEDULES, [0.3, 1.0, 1.6, 2.5, 0.7], strict=True))
)
def test_forward_equation(name, noise, x64):
    process = DiffusionProcess(gaussian_path(name, (1,)), noise)
    for t in (0.15, 0.4, 0.8):
        for fn in TEST_FUNCTIONS.values():
            assert flow_residual(process, GAUSSIAN_FORMS[name], t, fn) < 1e-7


@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_superposition_of_flow_and_diffusion_is_a_weaker_diffusion(name, x64):
    path, x = gaussian_path(name, (2,)), jnp.array([0.3, -0.8])
    mixed = SuperpositionProcess((FlowProcess(path), DiffusionProcess(path, 2.0)), (3.0, 1.0))
    predict_fn = garbage(mixed)
    got, want = (p.generator(predict_fn(x, 0.4), x, 0.4) for p in (mixed, DiffusionProcess(path, 0.5)))
    np.testing.assert_allclose(got.drift, want.drift, atol=1e-12)
    np.testing.assert_allclose(got.covariance, want.covariance, atol=1e-12)


@pytest.mark.parametrize("noise", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_step_of_one_point_keeps_its_marginal(name, noise, x64):
    """A target of a single point: the exact prediction makes `x_s | x_1` follow from `x_t | x_1`, at any step size.

    The step has the variance of the reference's belief on top, so means agree and variances exceed by that.
    """
    process = DiffusionProcess(gaussian_path(name, (1,)), noise)
    path, x1 = process.path, jnp.array([1.3])
    for t, s in [(0.0, 0.4), (0.3, 0.35), (0.5, 0.9)]:
        kernel = process._kernel(t, s)
        now, later = path.angle(t), path.angle(s)
        end = (x1 - path.mean) / path.scale
        spread = now.cos**2  # of z_t given x_1
        # eta = (end - sin z_t) / cos is linear in z_t: push mean and variance through the step
        gain = kernel.decay - kernel.forward * now.sin / now.cos
        mean = gain * now.sin * end + kernel.forward * end / now.cos
        np.testing.assert_allclose(mean, later.sin * end, atol=1e-10)
        belief = kernel.forward**2  # of the endpoint given z_t, seen through the step
        variance = gain**2 * spread + kernel.variance - belief
        np.testing.assert_allclose(variance, later.cos**2, atol=1e-10)


def test_short_steps_are_those_of_euler_and_maruyama(x64):
    process, predict_fn = process_of(0.7), garbage(process_of())
    x, t, h = jnp.array([0.4, -0.2]), 0.4, 1e-7
    generator = process.generator(predict_fn(x, t), x, t)
    keys = jax.random.split(jax.random.key(0), 2)
    noise = [jax.random.normal(k, (2,)) for k in keys]
    moved = [process.step(k, x, predict_fn, t, t + h)[0] for k in keys]
    std = jnp.sqrt(h * generator.covariance)
    for e, y in zip(noise, moved):
        np.testing.assert_allclose((y - x - std * e) / h, generator.drift, atol=1e-2)


def test_own_noise_is_undone_by_the_path(x64):
    """At `noise = 1` the backward kernel is `p_{t|s}` whatever the network says, written as 1 or as an array."""
    path, predict_fn, xs = path_of(), garbage(process_of()), jnp.array([0.4, -0.2])
    keys = jax.random.split(jax.random.key(0), 4)
    for noise in (1.0, jnp.asarray(1.0)):
        process = DiffusionProcess(path, noise)
        got = jax.vmap(lambda k, p=process: p.backward(k, xs, predict_fn, 0.4, 0.7))(keys)
        np.testing.assert_allclose(got, jax.vmap(lambda k: path.sample(k, xs, 0.4, 0.7))(keys), atol=1e-10)


@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_reference_has_constant_weights(noise):
    """With a zero prediction every step, of any length, is exact."""
    process = process_of(noise, VarianceExploding(0.05, 4.0))
    sampler = grid_sampler(process, [0.0, 0.3, 0.9, 1.0])
    rollout = jax.vmap(lambda k: sampler.sample(k, lambda x, t: jnp.zeros(2)))(
        jax.random.split(jax.random.key(0), 200)
    )
    np.testing.assert_allclose(rollout.log_weight, 0.0, atol=1e-5)


@pytest.mark.parametrize("noise", [0.2, 1.0, 2.5])
@pytest.mark.parametrize("name", ["trigonometric", "variance_exploding"])
def test_a_narrow_mode_has_constant_weights(name, noise, x64):
    """A Gaussian off the centre, of widths `detail` times the reference's: with the exact prediction, three steps do.

    `E[x_1 | x_t]` is by the formula for a product of two normal densities.
    """
    detail, mean = jnp.array([0.05, 0.4]), jnp.array([2.1, -0.7])
    path = gaussian_path(name, (2,))
    width = detail * path.scale

    def residual(x, t):
        alpha, sigma = path.coefficients(t)
        belief = path.endpoint_belief(x, t)
        gain = alpha * width**2 / (alpha**2 * width**2 + sigma**2)
        return (mean + gain * (x - alpha * mean) - belief.mean) / belief.scale

    def log_weights(process):
        # not to 1, where the belief has no width to divide by
        def run(key):
            x = path.sample_prior(key)
            total = path.log_reference(x, 0.0)
            for n, (t, s) in enumerate([(0.0, 0.2), (0.2, 0.7), (0.7, 0.99)]):
                x, increment = process.step(jax.random.fold_in(key, n), x, residual, t, s)
                total += increment
            alpha, sigma = path.coefficients(0.99)
            variance = alpha**2 * width**2 + sigma**2
            law = -0.5 * jnp.sum(jnp.square(x - alpha * mean) / variance + jnp.log(2 * jnp.pi * variance))
            first = path.coefficients(0.0)
            start = first[0] ** 2 * width**2 + first[1] ** 2
            prior = -0.5 * jnp.sum(
                jnp.square(path.sample_prior(key) - first[0] * mean) / start + jnp.log(2 * jnp.pi * start)
            )
            return total + law - path.log_reference(x, 0.99) - prior

        return jax.vmap(run)(jax.random.split(jax.random.key(0), 50))

    np.testing.assert_allclose(log_weights(DiffusionProcess(path, noise, detail)), 0.0, atol=1e-9)
    assert np.std(log_weights(DiffusionProcess(path, noise))) > 0.1


PROCESSES = {
    "weak": lambda: process_of(0.3),
    "detailed": lambda: DiffusionProcess(path_of(), 0.7, jnp.array([0.6, 0.5])),
    "detailed_own": lambda: DiffusionProcess(path_of(), 1.0, 0.5),
    "own": process_of,
    "strong": lambda: process_of(2.5),
    "steep": lambda: process_of(0.8, VarianceExploding(0.05, 4.0)),
    "flow_and_diffusion": both,
}


@pytest.mark.parametrize("name", PROCESSES)
def test_mean_weight_is_z_for_a_spoiled_network(name):
    process = PROCESSES[name]()
    _, log_w = roll_out(process, PLANE, garbage(process, gain=0.2), time_grid(4))
    score, error = weight_score(log_w, LOG_Z)
    assert score < K
    assert 1e-3 < error < 0.03


@pytest.mark.parametrize("name", PROCESSES)
def test_exact_network_tends_to_ess_one(name):
    process = PROCESSES[name]()
    predict_fn = PLANE.residual(process.path)
    ess = [ess_fraction(roll_out(process, PLANE, predict_fn, time_grid(n), 4000)[1]) for n in (5, 40, 160)]
    assert ess[0] < ess[1] < ess[2]
    assert ess[2] > (0.97 if name != "strong" else 0.93)


@pytest.mark.parametrize("name", ["weak", "own", "flow_and_diffusion", "detailed"])
def test_backward_weights_bound_log_z_from_above(name):
    process = PROCESSES[name]()
    predict_fn = garbage(process, gain=0.2)
    upper = weigh(process, WIDE, predict_fn, time_grid(4))
    score, error = weight_score(-upper, -LOG_Z)
    assert score < K
    assert error < 0.03
    lower = np.asarray(roll_out(process, WIDE, predict_fn, time_grid(4))[1])
    stderr = max(upper.std(), lower.std()) / np.sqrt(NUM)
    assert upper.mean() - 5 * stderr > LOG_Z > lower.mean() + 5 * stderr


def test_bad_input():
    path = path_of()
    with pytest.raises(ValueError, match="noise: must be positive"):
        DiffusionProcess(path, 0.0)
    with pytest.raises(ValueError, match="detail: must be positive"):
        DiffusionProcess(path, detail=0.0)
    with pytest.raises(ValueError, match="weights: expected one"):
        SuperpositionProcess((FlowProcess(path),), (0.5, 0.5))
    with pytest.raises(ValueError, match="weights: must not be negative"):
        SuperpositionProcess((FlowProcess(path), DiffusionProcess(path)), (1.5, -0.5))
    with pytest.raises(ValueError, match="one path and one prediction"):
        SuperpositionProcess((FlowProcess(path), DiffusionProcess(path_of(dim=3))), (0.5, 0.5))
    other = dataclasses.replace(path, scale=2.0 * path.scale)
    with pytest.raises(ValueError, match="one path and one prediction"):
        SuperpositionProcess((FlowProcess(path), DiffusionProcess(other)), (0.5, 0.5))
    swept = dataclasses.replace(path, scale=jnp.asarray(path.scale))
    SuperpositionProcess((FlowProcess(path), DiffusionProcess(swept)), (0.5, 0.5))


# -- seeded faults -------------------------------------------------------------------------------------------


@frozen_pytree
class NoisingBackwards(DiffusionProcess):
    """A backward kernel without the prediction at a noise level that needs it."""

    def _pull(self, kernel, xs, predict_fn, s):
        return jnp.zeros_like(xs)


@frozen_pytree
class NarrowKernel(DiffusionProcess):
    """Weighs as if the last kernel had the variance it has not."""

    def _log_ratio(self, kernel, zt, zs, shift, pull):
        return DiffusionProcess._log_ratio(
            kernel._replace(variance=0.4 * kernel.variance), zt, zs, shift, pull
        )


def test_faults_are_detected():
    predict_fn = PLANE.residual(path_of())
    # unbiased still, since any backward kernel serves, but its weights do not tend to one (the right one: .97)
    useless = NoisingBackwards(path_of(), 0.3)
    assert ess_fraction(roll_out(useless, PLANE, predict_fn, time_grid(160), 4000)[1]) < 0.8
    wrong = NarrowKernel(path_of(), 1.0)
    assert weight_score(roll_out(wrong, PLANE, garbage(wrong, gain=0.5), time_grid(4))[1], LOG_Z)[0] > 10
