"""The mixture path and its jump process against enumeration over two sites of three symbols, in float64.

Chain, reference, bridge, inverse-bridge target and forward equation to rounding; weights to 4 standard errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax._pytree import frozen_pytree
from egmjax.generators import action
from egmjax.paths import MixturePath
from egmjax.processes import MixtureProcess
from egmjax.simulators import grid_sampler, time_grid
from tests.core.checks import chi_square_score, ess_fraction, weight_score
from tests.core.exact import Table, grid, number, slope
from tests.core.registry import MASKED_FORMS, MASKED_SCHEDULES, garbage, mixture_path
from tests.core.test_paths_exact import table

pytestmark = pytest.mark.slow  # compiles a lot

MODEL = Table(3, 2, seed=3, spread=1.2)
X = jnp.asarray(grid(3, 2))
PRIORS = {"uniform": None, "prior": [0.5, 0.2, 0.3]}
PAIRS = [(0.0, 0.4), (0.2, 0.55), (0.3, 1.0), (0.6, 0.95)]
NUM, K = 20_000, 4.0


def prior_of(path):
    return np.full(3, 1 / 3) if path.prior is None else np.asarray(path.prior, float)


def exact_noising(path, kappa_t, kappa_r):
    """`p_{t|r}(x_t | x_r)`, `[x_t, x_r]`, of independent sites, written out."""
    keep = np.where(kappa_r > 0, kappa_t / np.where(kappa_r > 0, kappa_r, 1), 0.0)
    now, later = np.asarray(X)[:, None], np.asarray(X)[None]
    return (keep * (now == later) + (1 - keep) * prior_of(path)[now]).prod(-1)


def marginal(path, kappa):
    return exact_noising(path, kappa, np.ones(2)) @ MODEL.p1


def exact_prediction(path):
    """`f` of the exact posterior: what the other site says about each, relative to the prior."""

    def predict(x, t):
        likelihood = path.likelihood(x, t)  # [sites, S]
        states = jnp.asarray(MODEL.x1)
        p1 = jnp.asarray(MODEL.p1, dtype=float)
        at = jnp.stack([likelihood[i, states[:, i]] for i in range(2)], -1)
        rows = []
        for i in range(2):
            weight = p1 * at[:, 1 - i]
            rows.append(jnp.stack([jnp.sum(weight * (states[:, i] == z)) for z in range(3)]))
        return jnp.log(jnp.stack(rows)) - path.log_prior[None, :]

    return predict


def exact_posterior(path, t):
    """`P(x_1[i] = z | x_t)`, `[x_t, sites, S]`, by enumeration."""
    joint = exact_noising(path, np.asarray(path.kappa(t)), np.ones(2)) * MODEL.p1
    one_hot = (np.asarray(MODEL.x1)[:, :, None] == np.arange(3)).astype(float)
    return np.einsum("xk,kis->xis", joint / joint.sum(1, keepdims=True), one_hot)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("schedule", MASKED_SCHEDULES)
def test_chain_and_reference(schedule, prior, x64):
    path = mixture_path(schedule, PRIORS[prior])
    for t, r in PAIRS:
        kappa_t, kappa_r = np.asarray(path.kappa(t)), np.asarray(path.kappa(r))
        link = table(lambda a, b, t=t, r=r: path.log_prob(a, b, t, r), X, X)
        np.testing.assert_allclose(link, exact_noising(path, kappa_t, kappa_r), atol=1e-12)
        two = link @ table(lambda a, b, r=r: path.log_prob(a, b, r), X, X) if r < 1 else link
        np.testing.assert_allclose(two, exact_noising(path, kappa_t, np.ones(2)), atol=1e-12)
        reference = np.exp([float(path.log_reference(x, t)) for x in X])
        np.testing.assert_allclose(link @ reference, reference, atol=1e-12)  # the chain leaves it alone
        back = table(lambda a, b, t=t, r=r: path.propose_log_prob(b, a, t, r), X, X)
        np.testing.assert_allclose(back, (link * reference / reference[:, None]), atol=1e-12)


@pytest.mark.parametrize("prior", PRIORS)
def test_draws_follow_their_law(prior):
    path = mixture_path("linear", PRIORS[prior])
    xt, xr = jnp.array([2, 1], jnp.int32), jnp.array([0, 1], jnp.int32)
    laws = {
        "prior": (path.sample_prior, path.prior_log_prob),
        "sample": (lambda k: path.sample(k, xr, 0.3, 0.8), lambda x: path.log_prob(x, xr, 0.3, 0.8)),
        "propose": (lambda k: path.propose(k, xt, 0.3), lambda x: path.propose_log_prob(x, xt, 0.3)),
        "bridge": (
            lambda k: path.bridge(k, xt, xr, 0.3, 0.5, 0.8),
            lambda x: path.bridge_log_prob(x, xt, xr, 0.3, 0.5, 0.8),
        ),
    }
    for seed, (draw, log_prob) in enumerate(laws.values()):
        states = jax.vmap(draw)(jax.random.split(jax.random.key(seed), NUM))
        probs = np.exp(np.asarray(jax.vmap(log_prob)(X), np.float64))
        assert abs(probs.sum() - 1) < 1e-5
        assert chi_square_score(number(states, 3), probs) < 4.5


def target_error(process, t, r):
    """Largest error of the mean target over `x_r` given `x_t` against the posterior."""
    path = process.path
    joint = exact_noising(path, np.asarray(path.kappa(t)), np.asarray(path.kappa(r))) * marginal(
        path, np.asarray(path.kappa(r))
    )
    targets = jax.vmap(lambda a: jax.vmap(lambda b: process.target(a, b, t, r))(X))(X)
    mean = np.einsum("xk,xkis->xis", joint / joint.sum(1, keepdims=True), np.asarray(targets))
    return np.abs(mean - exact_posterior(path, t)).max()


@pytest.mark.parametrize("prior", PRIORS)
def test_inverse_bridge_target_is_unbiased_for_every_r(prior, x64):
    process = MixtureProcess(mixture_path("polynomial", PRIORS[prior]))
    for t, r in [(0.0, 0.3), (0.35, 0.4), (0.35, 0.8), (0.35, 1.0), (0.6, 0.9)]:
        assert target_error(process, t, r) < 1e-11, (t, r)


def forward_error(process, schedule, t):
    path = process.path
    values = np.random.default_rng(0).normal(size=(3, len(X)))
    left = slope(lambda s: values @ marginal(path, MASKED_FORMS[schedule](s)[0]), t)
    predict = exact_prediction(path)

    def right(x):
        generator = process.generator(predict(x, t), x, t)
        return jnp.stack(
            [action(generator, lambda y, f=f: jnp.asarray(f)[y[0] * 3 + y[1]], x) for f in values]
        )

    means = np.asarray(jax.jit(jax.vmap(right))(X))
    return np.abs(left - marginal(path, np.asarray(path.kappa(t))) @ means).max()


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("schedule", ["linear", "polynomial", "ordered"])
def test_forward_equation(schedule, prior, x64):
    process = MixtureProcess(mixture_path(schedule, PRIORS[prior]))
    for t in (0.15, 0.4, 0.8):
        assert forward_error(process, schedule, t) < 1e-7


@pytest.mark.parametrize("weighting", ["rate", "uniform"])
@pytest.mark.parametrize("r", [0.8, 1.0])
def test_minimiser_of_the_divergence_is_the_posterior(weighting, r, x64):
    """The expected divergence has no slope at the exact prediction, and curves upwards."""
    path = mixture_path("linear", PRIORS["prior"])
    process, t, row = MixtureProcess(path, weighting), 0.4, 5
    xt = X[row]
    prior_r = marginal(path, np.asarray(path.kappa(r)))
    weights = exact_noising(path, np.asarray(path.kappa(t)), np.asarray(path.kappa(r)))[row] * prior_r
    weights = jnp.asarray(weights / weights.sum())
    target = process.weighted_target(weights, xt, X, t, r)

    def loss(prediction):
        return process.divergence(target, prediction, xt, t)

    best = exact_prediction(path)(xt, t)
    np.testing.assert_allclose(jax.grad(loss)(best), 0, atol=1e-10)
    noise = jax.random.normal(jax.random.key(0), (20, *best.shape))
    assert min(loss(best + 0.3 * e) - loss(best) for e in noise) > 1e-4


def roll_out(process, predict_fn, times, num=NUM):
    sampler = grid_sampler(process, times)

    @jax.jit
    @jax.vmap
    def run(key):
        rollout = sampler.sample(key, predict_fn)
        return rollout.x, rollout.log_weight + psi(process, rollout.x)

    return run(jax.random.split(jax.random.key(0), num))


def psi(process, x):
    return -MODEL.energy(x) - process.path.log_reference(x, 1.0)


@pytest.mark.parametrize("prior", PRIORS)
def test_weights(prior):
    """`E[w] = Z` for a spoiled network; constant weights for the reference itself; ESS to 1 for the exact network."""
    process = MixtureProcess(mixture_path("linear", PRIORS[prior]))
    _, log_w = roll_out(process, garbage(process), [0.0, 0.3, 0.7, 1.0])
    score, error = weight_score(log_w, MODEL.log_z)
    assert score < K
    assert 1e-3 < error < 0.02
    x, idle = roll_out(process, lambda x, t: jnp.zeros((2, 3)), [0.0, 0.3, 0.7, 1.0], 500)
    np.testing.assert_allclose(idle, jax.vmap(lambda v: psi(process, v))(x), atol=2e-5)
    exact = exact_prediction(process.path)
    ess = [ess_fraction(roll_out(process, exact, time_grid(n), 4000)[1]) for n in (16, 320)]
    assert ess[0] < ess[1]
    assert ess[1] > 0.99


def test_backward_weights_bound_log_z_from_above():
    process = MixtureProcess(mixture_path("linear"))
    sampler, predict_fn, x1 = grid_sampler(process, time_grid(3)), garbage(process), MODEL.sample(1, NUM)
    keys = jax.random.split(jax.random.key(2), NUM)
    log_w = jax.jit(jax.vmap(lambda k, x: psi(process, x) + sampler.log_weight(k, predict_fn, x)))(keys, x1)
    upper = np.asarray(log_w, np.float64)
    score, error = weight_score(-upper, -MODEL.log_z)
    assert score < K
    assert error < 0.02
    assert upper.mean() - 10 * upper.std() / np.sqrt(NUM) > MODEL.log_z


# -- seeded faults ---------------------------------------------------------------------------------------------


@frozen_pytree
class OneHotTarget(MixtureProcess):
    """The published target, `1{x_r}` for every `r`."""

    def target(self, xt, xr, t, r=1.0):
        return jax.nn.one_hot(xr, self.path.num_states, dtype=float)


@frozen_pytree
class ForgetsThePrior(MixtureProcess):
    def _moved(self, xt, xs, gain):
        return -jnp.sum(jnp.take_along_axis(gain, xs[:, None], axis=-1))


def test_faults_are_detected(x64):
    path = mixture_path("linear", PRIORS["prior"])
    assert target_error(OneHotTarget(path), 0.35, 0.6) > 0.05
    bad = ForgetsThePrior(path)
    _, log_w = roll_out(bad, garbage(bad), [0.0, 0.3, 0.7, 1.0])
    assert weight_score(log_w, MODEL.log_z)[0] > 10
    with pytest.raises(ValueError, match="prior: expected 3 probabilities"):
        MixturePath(prior=jnp.ones(2), sites=2, num_states=3)
    with pytest.raises(ValueError, match="weighting"):
        MixtureProcess(path, weighting="other")
