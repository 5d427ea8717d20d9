"""Paths in float64: the chain composes, densities match formulas, the proposal is the reference posterior.

Masked paths by enumeration over two sites of three symbols, Gaussian paths by moments. Tolerance 1e-10.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from egmjax._pytree import frozen_pytree
from egmjax.paths import GaussianPath, MaskedPath, Ordered, Path
from egmjax.processes import FlowProcess
from tests.core.exact import grid
from tests.core.registry import (
    GAUSSIAN_FORMS,
    GAUSSIAN_SCHEDULES,
    MASKED_FORMS,
    MASKED_SCHEDULES,
    MEAN,
    PATHS,
    SCALE,
    endpoint,
    gaussian_path,
    masked_path,
)

PAIRS = [(0.0, 0.4), (0.2, 0.55), (0.3, 0.9), (0.6, 0.95)]
X1, XT = jnp.asarray(grid(3, 2)), jnp.asarray(grid(4, 2))


def table(fn, rows, columns):
    """`exp(fn(row, column))` for all pairs."""
    return np.exp(np.asarray(jax.vmap(lambda a: jax.vmap(lambda b: fn(a, b))(columns))(rows)))


def masked_chain_error(path, t, r):
    """`max |sum_{x_r} p_{t|r} p_{r|1} - p_{t|1}|` over all states."""
    late, early = (
        table(lambda a, b: path.log_prob(a, b, r), XT, X1),
        table(lambda a, b: path.log_prob(a, b, t, r), XT, XT),
    )
    direct = table(lambda a, b: path.log_prob(a, b, t), XT, X1)
    return np.abs(early @ late - direct).max()


def gaussian_chain_error(path, t, s, r):
    """How far two links `t|s`, `s|r` are from `t|r`, in mean and variance."""
    (a, va), (b, vb), (c, vc) = path.chain(t, s), path.chain(s, r), path.chain(t, r)
    return max(abs(float(a * b - c)), abs(float(va + a**2 * vb - vc)))


def reference_identity_error(path, t, r, seed=0):
    """`p_{t|r}(x_t | x_r) reference_r(x_r) = reference_t(x_t) propose(x_r | x_t)` at likely states."""
    keys = jax.random.split(jax.random.key(seed), 64)
    x1 = endpoint(path.space)

    def gap(key):
        key_t, key_r = jax.random.split(key)
        xt = path.sample(key_t, x1, t)
        xr = path.propose(key_r, xt, t, r)
        left = path.log_prob(xt, xr, t, r) + path.log_reference(xr, r)
        return left - path.log_reference(xt, t) - path.propose_log_prob(xr, xt, t, r)

    return float(np.abs(np.asarray(jax.vmap(gap)(keys))).max())


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
def test_masked_chain_composes(name, x64):
    path = masked_path(name)
    for t, r in PAIRS:
        assert masked_chain_error(path, t, r) < 1e-10


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
def test_masked_density_matches_formula(name, x64):
    path = masked_path(name)
    for t in (0.0, 0.2, 0.6):
        kappa = MASKED_FORMS[name](t)[0]
        probs = table(lambda a, b, t=t: path.log_prob(a, b, t), XT, X1)
        xt, x1 = np.asarray(XT)[:, None], np.asarray(X1)[None]
        exact = np.where(xt == 3, 1 - kappa, np.where(xt == x1, kappa, 0)).prod(-1)
        np.testing.assert_allclose(probs, exact, atol=1e-12)


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
def test_masked_laws_sum_to_one(name, x64):
    path = masked_path(name)
    for t, r in PAIRS:
        s = 0.5 * (t + r)
        ways = table(lambda a, b, t=t, r=r: path.propose_log_prob(b, a, t, r), XT, XT).sum(1)
        np.testing.assert_allclose(ways, 1, atol=1e-10)
        xr = X1[5]
        for key in jax.random.split(jax.random.key(0), 3):
            xt = path.sample(key, xr, t, r)
            bridge = jax.vmap(lambda a, t=t, s=s, r=r, xt=xt, xr=xr: path.bridge_log_prob(a, xt, xr, t, s, r))
            assert abs(np.exp(np.asarray(bridge(XT))).sum() - 1) < 1e-10


@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_gaussian_chain_composes(name, x64):
    path = gaussian_path(name)
    for t, s, r in [(0.0, 0.3, 0.7), (0.2, 0.5, 1.0), (0.55, 0.7, 0.8)]:
        assert gaussian_chain_error(path, t, s, r) < 1e-10


@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_gaussian_densities_match_formulas(name, x64):
    path = gaussian_path(name)
    xt, xr = jnp.array([0.3, -0.8]), jnp.array([1.1, 0.2])
    for t, r in [*PAIRS, (0.3, 1.0)]:
        alpha, _, sigma, _ = GAUSSIAN_FORMS[name](t)
        alpha_r, _, sigma_r, _ = GAUSSIAN_FORMS[name](r) if r < 1 else (1.0, 0, 0.0, 0)
        c = alpha / alpha_r
        sd = np.sqrt(sigma**2 - (c * sigma_r) ** 2)
        reference = norm(alpha * MEAN, np.sqrt((alpha * SCALE) ** 2 + sigma**2))
        assert abs(path.log_prob(xt, xr, t, r) - norm(c * np.asarray(xr), sd).logpdf(xt).sum()) < 1e-10
        assert abs(path.log_reference(xt, t) - reference.logpdf(xt).sum()) < 1e-10
    assert path.prior_log_prob(xt) == path.log_reference(xt, 0.0)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("as_array", [False, True], ids=["literal", "array"])
def test_proposal_is_the_reference_posterior(name, as_array, x64):
    path = PATHS[name]()
    if as_array and not path.is_markov:
        pytest.skip("only the literal 1 is known to be the time of the data")
    for t, r in [*(PAIRS if path.is_markov else ()), (0.0, 1.0), (0.4, 1.0)]:
        r = jnp.asarray(r) if as_array else r
        assert reference_identity_error(path, t, r) < 1e-10


@pytest.mark.parametrize("name", [name for name in PATHS if PATHS[name]().is_markov])
def test_bridge_density_is_that_of_the_chain(name, x64):
    path = PATHS[name]()
    key_r, key_s, key_t = jax.random.split(jax.random.key(1), 3)
    for t, s, r in [(0.0, 0.2, 0.6), (0.3, 0.5, 0.9)]:
        xr = path.sample(key_r, endpoint(path.space), r)
        xs = path.sample(key_s, xr, s, r)
        xt = path.sample(key_t, xs, t, s)
        chain = path.log_prob(xt, xs, t, s) + path.log_prob(xs, xr, s, r) - path.log_prob(xt, xr, t, r)
        assert abs(path.bridge_log_prob(xs, xt, xr, t, s, r) - chain) < 1e-10


@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_score_and_velocity_agree_with_the_reference(name, x64):
    """With a zero residual the score and velocity are those of the noised reference itself."""
    path = gaussian_path(name)
    x, zero = jnp.array([0.3, -0.8]), jnp.zeros(2)
    for t in (0.1, 0.5, 0.9):
        score = jax.grad(path.log_reference)(x, t)
        np.testing.assert_allclose(path.score(zero, x, t), score, atol=1e-10)
        alpha, alpha_dot, sigma, sigma_dot = GAUSSIAN_FORMS[name](t)
        variance = (alpha * SCALE) ** 2 + sigma**2
        rate = (alpha * alpha_dot * SCALE**2 + sigma * sigma_dot) / variance
        np.testing.assert_allclose(
            path.velocity(zero, x, t), alpha_dot * MEAN + rate * (x - alpha * MEAN), atol=1e-10
        )


def test_velocity_matches_published_closed_forms(x64):
    """`v(x | x_r)` of the conditional-OT and variance-exploding paths, as `x_1`-units of the endpoint."""
    x, xr, t, r = jnp.array([0.3]), jnp.array([1.1]), 0.3, 0.7
    ot = GaussianPath(GAUSSIAN_SCHEDULES["condot"](), mean=0.2, scale=0.9)
    s2 = 1.5**2 * ((1 - t) ** 2 - (t / r) ** 2 * (1 - r) ** 2)
    ds2 = 1.5**2 * (-2 * (1 - t) - 2 * t * (1 - r) ** 2 / r**2)
    expected = xr / r + 0.5 * ds2 / s2 * (x - t / r * xr)
    process = FlowProcess(ot)
    np.testing.assert_allclose(ot.velocity(process.target(x, xr, t, r), x, t), expected, atol=1e-10)

    ve = gaussian_path("variance_exploding", (1,))
    _, _, sigma, sigma_dot = GAUSSIAN_FORMS["variance_exploding"](t)
    h_r = GAUSSIAN_FORMS["variance_exploding"](r)[2] ** 2
    expected = sigma_dot * sigma / (sigma**2 - h_r) * (x - xr)
    target = FlowProcess(ve).target(x, xr, t, r)
    np.testing.assert_allclose(ve.velocity(target, x, t), expected, atol=1e-10)


CALLS = {
    "sample": lambda p, x, t, r: p.sample(jax.random.key(0), x, t, r),
    "log_prob": lambda p, x, t, r: p.log_prob(x, x, t, r),
    "propose": lambda p, x, t, r: p.propose(jax.random.key(0), x, t, r),
    "propose_log_prob": lambda p, x, t, r: p.propose_log_prob(x, x, t, r),
    "bridge": lambda p, x, t, r: p.bridge(jax.random.key(0), x, x, t, r, 1.0),
    "bridge_log_prob": lambda p, x, t, r: p.bridge_log_prob(x, x, x, t, r, 1.0),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["gaussian_condot", "masked_linear", "product"])
def test_times_out_of_order_are_refused(name, call):
    path = PATHS[name]()
    x = endpoint(path.space)
    for t, r in [(0.5, 0.5), (0.6, 0.3), (-0.1, 0.5), (0.5, 1.2)]:
        with pytest.raises(ValueError, match="r: times must satisfy"):
            CALLS[call](path, x, t, r)


# -- seeded faults: each check sees the mistake it is there for ----------------------------------------------


@frozen_pytree
class WrongChainVariance(GaussianPath):
    def chain(self, t, r):
        c, _ = super().chain(t, r)
        return c, self.coefficients(t)[1] ** 2 - c * self.coefficients(r)[1] ** 2


@frozen_pytree
class NormalizerOfTheEnd(MaskedPath):
    """Uses the normaliser of `r = 1` for every time."""

    def log_reference(self, x, t):
        return jnp.zeros(())

    propose_log_prob = Path.propose_log_prob


def test_faults_are_detected(x64):
    good = gaussian_path("condot")
    bad = WrongChainVariance(**{f.name: getattr(good, f.name) for f in dataclasses.fields(good)})
    assert gaussian_chain_error(bad, 0.2, 0.5, 0.8) > 1e-2

    path = masked_path("linear")
    wrong = NormalizerOfTheEnd(path.schedule, path.sites, path.num_states)
    ways = table(lambda a, b: wrong.propose_log_prob(b, a, 0.2, 0.5), XT, XT).sum(1)
    assert np.abs(ways - 1).max() > 0.1

    # a keep probability that forgets r breaks the composition of the chain
    forgetful = masked_path("linear")
    object.__setattr__(forgetful, "_keep_prob", lambda t, r: forgetful.kappa(t))
    assert masked_chain_error(forgetful, 0.2, 0.5) > 0.1


def test_order_of_sites_is_a_schedule(x64):
    """With one site a rank, a state that reveals a later site before an earlier one has probability zero."""
    path = MaskedPath(Ordered.from_rank([0, 1]), sites=2, num_states=3)
    assert path.log_prob(jnp.array([3, 1]), jnp.array([0, 1]), 0.6) == -jnp.inf
    assert np.isclose(path.log_prob(jnp.array([0, 3]), jnp.array([0, 1]), 0.6), np.log(0.8))
