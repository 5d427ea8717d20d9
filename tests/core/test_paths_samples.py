"""Draws of every path follow their stated log-probabilities. Fixed keys; a score above 4.5 fails.

Scores: `(chi^2 - df) / sqrt(2 df)` for masked draws, standard errors for moments of Gaussian draws.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tests.core.checks import chi_square_score, kolmogorov_score
from tests.core.exact import grid, number
from tests.core.registry import GAUSSIAN_SCHEDULES, MASKED_SCHEDULES, PATHS, gaussian_path, masked_path

NUM, K = 20_000, 4.5
XT = jnp.asarray(grid(4, 2))
ONE_MASK = {"ordered": jnp.array([3, 2], jnp.int32)}  # the other site comes first in this order


def keys(seed):
    return jax.random.split(jax.random.key(seed), NUM)


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
@pytest.mark.parametrize(("t", "r"), [(0.3, 0.8), (0.55, 1.0)])
def test_masked_draws_follow_their_law(name, t, r):
    path = masked_path(name)
    xr = jnp.array([1, 2], jnp.int32) if r == 1 else ONE_MASK.get(name, jnp.array([1, 3], jnp.int32))
    start = jnp.array([3, 3], jnp.int32)
    s = 0.5 * (t + r)
    laws = {
        "sample": (lambda k: path.sample(k, xr, t, r), lambda x: path.log_prob(x, xr, t, r)),
        "propose": (lambda k: path.propose(k, start, t, r), lambda x: path.propose_log_prob(x, start, t, r)),
    }
    if float(path.log_prob(start, xr, t, r)) > -np.inf:
        laws["bridge"] = (
            lambda k: path.bridge(k, start, xr, t, s, r),
            lambda x: path.bridge_log_prob(x, start, xr, t, s, r),
        )
    for seed, (draw, log_prob) in enumerate(laws.values()):
        states = jax.vmap(draw)(keys(seed))
        probs = np.exp(np.asarray(jax.vmap(log_prob)(XT), dtype=np.float64))
        assert abs(probs.sum() - 1) < 1e-5
        assert chi_square_score(number(states, 4), probs) < K


@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_gaussian_draws_follow_their_law(name):
    """Mean and variance read off the log-density (its gradient and curvature), then Kolmogorov's test."""
    path = gaussian_path(name, (1,))
    xt, xr, t, s, r = jnp.array([0.4]), jnp.array([1.3]), 0.3, 0.5, 0.8
    laws = {
        "sample": (lambda k: path.sample(k, xr, t, r), lambda x: path.log_prob(x, xr, t, r)),
        "propose": (lambda k: path.propose(k, xt, t, r), lambda x: path.propose_log_prob(x, xt, t, r)),
        "propose_end": (lambda k: path.propose(k, xt, t), lambda x: path.propose_log_prob(x, xt, t)),
        "bridge": (
            lambda k: path.bridge(k, xt, xr, t, s, r),
            lambda x: path.bridge_log_prob(x, xt, xr, t, s, r),
        ),
        "prior": (path.sample_prior, path.prior_log_prob),
    }
    for seed, (draw, log_prob) in enumerate(laws.values()):
        draws = np.asarray(jax.vmap(draw)(keys(seed)))[:, 0]
        gradient = jax.grad(log_prob)
        at_zero, at_one = float(gradient(jnp.zeros(1))[0]), float(gradient(jnp.ones(1))[0])
        variance = 1 / (at_zero - at_one)
        law = norm(at_zero * variance, np.sqrt(variance))
        assert kolmogorov_score(draws, law.cdf) < 2.2  # probability 1e-4
        peak = log_prob(jnp.array([law.mean()], dtype=jnp.float32))
        assert abs(float(peak) - law.logpdf(law.mean())) < 1e-3


def test_product_draws_are_independent_and_follow_their_laws():
    path = PATHS["product"]()
    x1 = (jnp.array([0.5, -1.0]), jnp.array([1, 2], jnp.int32))
    real, symbols = jax.vmap(lambda k: path.sample(k, x1, 0.4))(keys(7))
    exact = np.exp(np.asarray(jax.vmap(lambda x: path.paths[1].log_prob(x, x1[1], 0.4))(XT), np.float64))
    assert chi_square_score(number(symbols, 4), exact) < K
    c, v = path.paths[0].chain(0.4, 1.0)
    law = norm(float(c) * 0.5, float(np.sqrt(v)))
    assert kolmogorov_score(np.asarray(real)[:, 0], law.cdf) < 2.2
    masked = np.asarray(symbols[:, 0] == 3)
    correlation = np.corrcoef(np.asarray(real)[:, 0], masked)[0, 1]
    assert abs(correlation) < K / np.sqrt(NUM)


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
def test_hitting_times_follow_the_clock(name):
    """Given that a site is masked at `t`, it is hit before `s` with `(kappa_s - kappa_t) / (1 - kappa_t)`."""
    path = masked_path(name)
    for t in (0.0, 0.3):
        hits = np.asarray(jax.vmap(lambda k, t=t: path.hitting_times(k, t))(keys(11)))
        for s in (0.4, 0.7, 0.9):
            p = np.asarray(path.reveal_prob(t, s), dtype=np.float64)
            error = np.sqrt(p * (1 - p) / NUM) + 1e-6
            assert np.all(np.abs((hits <= s).mean(0) - p) < K * error)
        assert hits.min() >= t
        assert hits.max() <= 1


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
def test_masked_prior_is_all_masks(name):
    path = masked_path(name)
    x0 = path.sample_prior(jax.random.key(0))
    np.testing.assert_array_equal(x0, [3, 3])
    assert path.prior_log_prob(x0) == 0
    assert path.prior_log_prob(jnp.array([3, 1])) == -jnp.inf
    np.testing.assert_array_equal(path.sample(jax.random.key(1), jnp.array([0, 2]), 0.0), [3, 3])


@pytest.mark.parametrize("num_states", [2, 3, 4, 7, 8])
def test_uniform_symbols_are_uniform(num_states):
    from egmjax.paths._masked import random_symbols

    draws = random_symbols(jax.random.key(2), 501, 37, num_states)
    assert draws.shape == (501, 37)
    assert draws.dtype == jnp.int32
    assert chi_square_score(np.asarray(draws).ravel(), np.full(num_states, 1 / num_states)) < K
    # neighbouring sites and consecutive states, which may share a word of random bits: pairs are uniform too
    for pairs in (draws[:, :-1:2] * num_states + draws[:, 1::2], draws[:-1:2] * num_states + draws[1::2]):
        assert chi_square_score(np.asarray(pairs).ravel(), np.full(num_states**2, num_states**-2.0)) < K
