"""Certified weights of flow roll-outs against closed forms: `E[w] = Z` whatever the network says.

Statistical tolerance: 4 standard errors with fixed keys, relative standard error below 3 %.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from egmjax._pytree import frozen_pytree
from egmjax.paths import CondOT, GaussianPath, Trigonometric, VarianceExploding, VariancePreserving
from egmjax.processes import FlowProcess
from egmjax.simulators import grid_sampler, time_grid
from tests.core.checks import ess_fraction, kolmogorov_score, weight_score
from tests.core.exact import Mixture
from tests.core.registry import garbage

NUM, K = 20_000, 4.0
LOG_Z = 1.3
LINE = Mixture([[-1.2], [1.0]], [0.6, 0.5], [0.4, 0.6], LOG_Z)
WIDE = Mixture([[-1.6, 0.3], [1.5, -0.5]], [1.25, 1.2], [0.4, 0.6], LOG_Z)  # 1/w has a variance
PLANE = Mixture([[-1.2, 0.3], [1.0, -0.5]], [0.7, 0.6], [0.4, 0.6], LOG_Z)


def process_of(stepper="heun", dim=1, schedule=None):
    path = GaussianPath(schedule or Trigonometric(1.5), mean=0.1, scale=1.5, shape=(dim,))
    return FlowProcess(path, stepper=stepper)


def keys(seed, num=NUM):
    return jax.random.split(jax.random.key(seed), num)


def psi(process, mixture, x):
    return -mixture.energy(x) - process.path.log_reference(x, 1.0)


def forward(process, mixture, predict_fn, steps=4, seed=0, num=NUM):
    sampler = grid_sampler(process, time_grid(steps))

    @jax.jit
    @jax.vmap
    def run(key):
        rollout = sampler.sample(key, predict_fn)
        return rollout.x, psi(process, mixture, rollout.x) + rollout.log_weight

    return run(keys(seed, num))


def backward(process, mixture, predict_fn, steps=4, seed=1, num=NUM):
    sampler = grid_sampler(process, time_grid(steps))
    run = jax.jit(jax.vmap(lambda k, x: psi(process, mixture, x) + sampler.log_weight(k, predict_fn, x)))
    return np.asarray(run(keys(seed, num), mixture.sample(seed, num)), np.float64)


SCHEDULES = {
    "condot": CondOT(1.5),
    "variance_preserving": VariancePreserving(1.5, 0.1, 8.0),
    "variance_exploding": VarianceExploding(0.05, 4.0),
}


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("stepper", ["euler", "heun"])
def test_mean_weight_is_z_for_a_spoiled_network(stepper, dim):
    process, mixture = process_of(stepper, dim), (LINE, PLANE)[dim - 1]
    _, log_w = forward(process, mixture, garbage(process, gain=0.3))
    score, error = weight_score(log_w, LOG_Z)
    assert score < K
    assert 1e-3 < error < 0.02


@pytest.mark.parametrize("name", SCHEDULES)
def test_mean_weight_is_z_on_every_path(name):
    process = process_of("heun", schedule=SCHEDULES[name])
    _, log_w = forward(process, LINE, garbage(process, gain=0.2), steps=6)
    score, error = weight_score(log_w, LOG_Z)
    assert score < K
    assert error < 0.03


@pytest.mark.parametrize(
    ("stepper", "schedule"), [("euler", None), ("heun", None), ("heun", "variance_preserving")]
)
def test_exact_network_tends_to_ess_one(stepper, schedule):
    """Also on a schedule whose slope is infinite at `t=1`: the angle of the path is what steps are taken in."""
    process = process_of(stepper, 2, SCHEDULES.get(schedule))
    steps = (5, 20, 80) if stepper == "heun" else (5, 80)
    predict_fn = PLANE.residual(process.path)
    ess = [ess_fraction(forward(process, PLANE, predict_fn, n, num=4000)[1]) for n in steps]
    assert ess == sorted(ess)
    assert ess[-1] > 0.99


def test_backward_weights_bound_log_z_from_above(x64):
    """EUBO >= log Z >= ELBO and `E_p[1 / w] = 1 / Z`; the inverse of a step retraces it."""
    process = process_of("heun", 2)
    predict_fn = garbage(process, gain=0.2)
    upper = backward(process, WIDE, predict_fn)
    assert np.all(np.isfinite(upper))
    lower = np.asarray(forward(process, WIDE, predict_fn)[1])
    score, error = weight_score(-upper, -LOG_Z)
    assert score < K
    assert error < 0.02
    stderr = max(upper.std(), lower.std()) / np.sqrt(NUM)
    assert upper.mean() - 10 * stderr > LOG_Z > lower.mean() + 10 * stderr

    xs, log_w = forward(process, WIDE, predict_fn, num=50)
    sampler = grid_sampler(process, time_grid(4))
    again = jax.vmap(lambda k, x: psi(process, WIDE, x) + sampler.log_weight(k, predict_fn, x))(
        keys(3, 50), xs
    )
    np.testing.assert_allclose(again, log_w, atol=1e-8)


def test_inverse_of_a_step_converges_in_float32():
    process = process_of("heun", 2)
    values = backward(process, PLANE, garbage(process, gain=0.3), num=4000)
    assert np.all(np.isfinite(values))


def test_rollout_from_the_middle_estimates_psi():
    """A flow is deterministic from `x_t` on: with the exact network the estimate itself is `psi(x_t, t)`."""
    process = process_of("heun")
    sampler, predict_fn, t = grid_sampler(process, time_grid(60)), LINE.residual(process.path), 0.4
    alpha, sigma = (float(v) for v in process.path.coefficients(t))
    x = jnp.linspace(-1.5, 1.5, 7)[:, None]
    rollout = jax.vmap(lambda k, y: sampler.sample(k, predict_fn, y, t))(keys(0, 7), x)
    value = jax.vmap(lambda y: psi(process, LINE, y))(rollout.x) + rollout.log_weight
    reference = jax.vmap(lambda y: process.path.log_reference(y, t))(x)
    exact = np.log(LINE.noised(alpha, sigma).pdf(np.asarray(x))) + LOG_Z - np.asarray(reference)
    np.testing.assert_allclose(value, exact, atol=5e-3)  # second order in the step: 4e-4 at 60 steps


def test_intermediate_marginals():
    """From the prior, whose law is that of `t = 0` here, the observer sees the mixture noised to every time."""
    process = process_of("heun")
    times = np.linspace(0, 1, 81)
    sampler = grid_sampler(process, times, observer=lambda x, t: x[0])
    predict_fn = LINE.residual(process.path)
    seen = jax.jit(jax.vmap(lambda k: sampler.sample(k, predict_fn).observed))(keys(5))
    for step in (0, 24, 56, 76):
        alpha, sigma = (float(v) for v in process.path.coefficients(times[step]))
        law = LINE.noised(alpha, sigma)
        parts = list(zip(law.weights, law.means[:, 0], law.scales))
        score = kolmogorov_score(
            np.asarray(seen)[:, step], lambda v, parts=parts: sum(w * norm.cdf(v, m, s) for w, m, s in parts)
        )
        assert score < 2.2  # probability 1e-4


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_log_determinant_is_that_of_the_map(shape, x64):
    path = GaussianPath(Trigonometric(1.5), mean=0.1, scale=1.5, shape=shape)
    process = FlowProcess(path)
    predict_fn, x = garbage(process, gain=0.3), jnp.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    xs, increment = process.step(jax.random.key(0), x, predict_fn, 0.3, 0.6)
    h, flat = 1e-6, np.ravel(x)
    columns = []
    for e in h * np.eye(flat.size):
        ends = [
            process.step(jax.random.key(0), jnp.asarray(y.reshape(shape)), predict_fn, 0.3, 0.6)[0]
            for y in (flat + e, flat - e)
        ]
        columns.append(np.ravel(ends[0] - ends[1]) / (2 * h))
    log_det = np.linalg.slogdet(np.array(columns).T)[1]
    np.testing.assert_allclose(
        increment, log_det + path.log_reference(xs, 0.6) - path.log_reference(x, 0.3), atol=1e-7
    )


def test_folding_map_voids_the_certificate():
    """A step so violent that the map folds has a determinant that is not positive: nan, to be counted."""
    process = process_of("euler")

    def wild(x, t):
        return 40.0 * jnp.sin(8.0 * x)

    _, log_w = forward(process, LINE, wild, steps=2, num=500)
    assert np.isnan(np.asarray(log_w)).mean() > 0.2
    with pytest.raises(ValueError, match="stepper"):
        FlowProcess(process.path, stepper="trapezoid")


# -- seeded faults ---------------------------------------------------------------------------------------


@frozen_pytree
class DeterminantDropped(FlowProcess):
    def _map_with_log_det(self, x, predict_fn, t, s):
        value, _ = super()._map_with_log_det(x, predict_fn, t, s)
        return value, jnp.zeros(())


@frozen_pytree
class WrongPrior(GaussianPath):
    """Draws from a wider law than it states."""

    def sample_prior(self, key):
        return 1.3 * super().sample_prior(key)


def test_faults_are_detected():
    good = process_of("heun")
    predict_fn = garbage(good, gain=0.3)
    bad = DeterminantDropped(good.gaussian)
    assert weight_score(forward(bad, LINE, predict_fn)[1], LOG_Z)[0] > 10
    path = good.path
    wrong = FlowProcess(WrongPrior(path.schedule, path.mean, path.scale, path.shape))
    assert weight_score(forward(wrong, LINE, predict_fn)[1], LOG_Z)[0] > 10
