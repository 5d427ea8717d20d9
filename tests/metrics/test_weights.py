"""Importance weights: exact small cases, stability, coverage, tails, resampling."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from egmjax import metrics


@pytest.fixture(autouse=True)
def _strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


def test_summary_by_hand():
    summary = metrics.summarize_weights(jnp.log(jnp.array([1.0, 2.0, 3.0])))
    assert float(summary.log_z) == pytest.approx(math.log(2.0), rel=1e-6)
    assert float(summary.ess_fraction) == pytest.approx(36 / (3 * 14), rel=1e-6)
    assert float(summary.log_z_stderr) == pytest.approx(math.sqrt((3 * 14 / 36 - 1) / 3), rel=1e-5)
    assert float(summary.elbo) == pytest.approx(math.log(6.0) / 3, rel=1e-6)
    assert float(summary.largest_weight) == pytest.approx(0.5, rel=1e-6)
    assert int(summary.num_samples) == 3
    assert int(summary.num_nonfinite) == 0
    assert np.isnan(summary.pareto_k)


def test_nonfinite_entries_are_draws_of_weight_zero():
    log_weight = jnp.array([0.0, jnp.nan, jnp.inf, -jnp.inf])
    summary = metrics.summarize_weights(log_weight)
    assert int(summary.num_nonfinite) == 3
    assert float(summary.log_z) == pytest.approx(-math.log(4.0), rel=1e-6)
    assert float(summary.ess_fraction) == pytest.approx(0.25)
    assert float(summary.elbo) == -math.inf
    np.testing.assert_allclose(metrics.normalized_weights(log_weight), [1.0, 0.0, 0.0, 0.0])
    mean, stderr = metrics.weighted_mean(jnp.array([2.0, jnp.nan, 5.0, jnp.inf]), log_weight)
    assert float(mean) == 2.0
    assert float(stderr) == 0.0


def test_no_finite_entry():
    log_weight = jnp.full(30, jnp.nan)
    summary = metrics.summarize_weights(log_weight)
    assert float(summary.log_z) == -math.inf
    assert float(summary.log_z_stderr) == math.inf
    assert float(summary.ess_fraction) == 0.0
    assert float(summary.largest_weight) == 0.0
    assert np.isnan(metrics.weighted_mean(jnp.ones(30), log_weight).mean)
    assert np.all(metrics.resample(jax.random.key(0), log_weight, 5) == 30)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_a_shift_changes_log_z_alone(shift):
    log_weight = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    # float32 resolves 1e-3 at 1e4: compare with the draws that survive the rounding
    log_weight = (log_weight + np.float32(shift)) - np.float32(shift)
    here, there = (
        metrics.summarize_weights(jnp.asarray(a)) for a in (log_weight, log_weight + np.float32(shift))
    )
    assert float(there.ess_fraction) == pytest.approx(float(here.ess_fraction), rel=1e-5)
    assert float(there.pareto_k) == pytest.approx(float(here.pareto_k), abs=1e-4)
    assert float(there.log_z) == pytest.approx(float(here.log_z) + shift, abs=2e-3)
    assert float(there.elbo) == pytest.approx(float(here.elbo) + shift, abs=2e-3)


def test_a_thousand_nats_of_spread_stay_finite():
    log_weight = jnp.linspace(-1000.0, 0.0, 400)
    summary = metrics.summarize_weights(log_weight)
    assert all(np.isfinite(v) for v in summary)
    assert float(summary.pareto_k) > 1.0


def test_eager_agrees_and_keeps_dtype():
    log_weight = jax.random.normal(jax.random.key(0), (200,))
    for fn in (metrics.summarize_weights, metrics.summarize_forward_weights):
        with jax.disable_jit():
            eager = fn(log_weight)
        for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(fn(log_weight))):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
            assert a.dtype == b.dtype
    assert metrics.summarize_weights(log_weight).log_z.dtype == log_weight.dtype


def test_log_z_intervals_cover_on_lognormal_weights():
    repeats, n, sigma = 400, 2000, 0.7
    log_weight = sigma * np.random.default_rng(1).normal(size=(repeats, n)) - 0.5 * sigma**2
    summary = jax.jit(jax.vmap(metrics.summarize_weights))(jnp.asarray(log_weight))
    covered = np.abs(summary.log_z) < 1.96 * summary.log_z_stderr
    assert 0.90 <= np.mean(covered) <= 0.98
    # the ELBO is log Z - sigma^2 / 2 here, the ESS fraction exp(-sigma^2)
    error = np.mean(summary.elbo) + 0.5 * sigma**2
    assert abs(error) < 4 * sigma / math.sqrt(repeats * n)
    assert float(np.mean(summary.ess_fraction)) == pytest.approx(math.exp(-(sigma**2)), abs=0.01)


@pytest.mark.parametrize("k", [0.2, 0.7])
def test_pareto_k_of_generalised_pareto_tails(k):
    draws = scipy.stats.genpareto.rvs(k, size=20_000, random_state=3)
    assert float(metrics.pareto_k(jnp.asarray(np.log(draws)))) == pytest.approx(k, abs=0.15)


def test_pareto_k_matches_a_plain_float64_fit():
    """The same fit on exceedances rather than their logarithms, written independently."""
    weight = np.random.default_rng(4).lognormal(sigma=1.5, size=4000)
    num_tail = math.ceil(3 * math.sqrt(4000))
    ordered = np.sort(weight)
    x = ordered[-num_tail:] - ordered[-num_tail - 1]
    m = 30 + int(math.sqrt(num_tail))
    b = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * x[int(num_tail / 4 + 0.5) - 1])
    k = np.log1p(-b[:, None] * x).mean(axis=1)
    profile = num_tail * (np.log(-b / k) - k - 1)
    posterior = np.exp(profile - profile.max())
    fitted = np.log1p(-np.sum(b * posterior) / posterior.sum() * x).mean()
    expected = (num_tail * fitted + 5) / (num_tail + 10)
    assert float(metrics.pareto_k(jnp.asarray(np.log(weight)))) == pytest.approx(expected, abs=2e-3)


def test_pareto_k_edge_cases():
    assert float(metrics.pareto_k(jnp.full(1000, 3.0))) == 0.0
    assert np.isnan(metrics.pareto_k(jnp.arange(15.0)))
    mostly_zero = jnp.where(jnp.arange(1000) < 3, 0.0, -jnp.inf)
    assert np.isnan(metrics.pareto_k(mostly_zero))
    bounded = jnp.log(jax.random.uniform(jax.random.key(0), (20_000,)))
    assert float(metrics.pareto_k(bounded)) < -0.5


def test_weighted_mean_against_repetition():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(600, 500)) * 1.3
    log_weight = scipy.stats.norm.logpdf(x) - scipy.stats.norm.logpdf(x, scale=1.3)
    mean, stderr = jax.vmap(metrics.weighted_mean)(jnp.asarray(x**2), jnp.asarray(log_weight))
    assert abs(np.mean(mean) - 1.0) < 4 * np.std(mean) / math.sqrt(600) + 1 / 500
    assert float(np.mean(stderr)) == pytest.approx(float(np.std(mean)), rel=0.1)


def test_weighted_mean_of_arrays_and_equal_weights():
    values = jax.random.normal(jax.random.key(1), (50, 2, 3))
    mean, stderr = metrics.weighted_mean(values, jnp.zeros(50))
    np.testing.assert_allclose(mean, values.mean(0), atol=1e-6)
    np.testing.assert_allclose(stderr, values.std(0) / math.sqrt(50), rtol=1e-5)


def test_weighted_mean_agrees_with_resampling():
    x = 1.5 * jax.random.normal(jax.random.key(2), (4000,))
    log_weight = -0.5 * x**2 + 0.5 * (x / 1.5) ** 2
    index = metrics.resample(jax.random.key(3), log_weight, 200_000)
    assert float(jnp.mean(x[index] ** 2)) == pytest.approx(
        float(metrics.weighted_mean(x**2, log_weight).mean), abs=2e-3
    )


def test_systematic_resampling_is_unbiased_and_stratified():
    log_weight = jnp.array([0.0, -jnp.inf, 1.0, -1.0, jnp.nan, 0.3])
    num_samples, repeats = 7, 4000
    keys = jax.random.split(jax.random.key(4), repeats)
    index = jax.vmap(lambda key: metrics.resample(key, log_weight, num_samples))(keys)
    counts = np.asarray(jax.vmap(lambda i: jnp.bincount(i, length=6))(index))
    mean = num_samples * np.asarray(metrics.normalized_weights(log_weight))
    assert np.all(counts >= np.floor(mean))
    assert np.all(counts <= np.ceil(mean))
    stderr = np.sqrt((mean - np.floor(mean)) * (np.ceil(mean) - mean) / repeats)
    assert np.all(np.abs(counts.mean(0) - mean) <= 4.5 * stderr + 1e-6)


def test_resampling_never_takes_a_draw_of_weight_zero():
    n = 30_000
    log_weight = jnp.where(jnp.arange(n) % 3 == 1, 0.0, -jnp.inf)
    index = metrics.resample(jax.random.key(5), log_weight, 100_000)
    assert np.all(np.asarray(index) % 3 == 1)


def test_forward_summary_sees_a_missed_mode():
    """Two points of mass 1/2, log Z = 0; the sampler visits the second with probability 1e-6."""
    q = np.array([1 - 1e-6, 1e-6])
    log_ratio = np.log(0.5) - np.log(q)
    own = metrics.summarize_weights(jnp.full(5000, log_ratio[0]))
    assert float(own.ess_fraction) == pytest.approx(1.0, abs=1e-5)
    assert float(own.log_z) == pytest.approx(-math.log(2.0), abs=1e-5)
    exact = jnp.asarray(np.repeat(log_ratio, 2500))
    forward = metrics.summarize_forward_weights(exact)
    assert float(forward.eubo) == pytest.approx(log_ratio.mean(), rel=1e-5)
    assert float(forward.log_z) == pytest.approx(0.0, abs=1e-5)
    assert float(forward.ess_fraction) == pytest.approx(1 / np.mean(np.exp(log_ratio)), rel=1e-4)
    assert float(forward.ess_fraction) < 1e-5


def test_forward_and_own_summaries_agree_on_a_good_sampler():
    rng = np.random.default_rng(6)
    x, y = 1.2 * rng.normal(size=100_000), rng.normal(size=100_000)
    log_w = [scipy.stats.norm.logpdf(a) - scipy.stats.norm.logpdf(a, scale=1.2) + 3.0 for a in (x, y)]
    own = metrics.summarize_weights(jnp.asarray(log_w[0]))
    forward = metrics.summarize_forward_weights(jnp.asarray(log_w[1]))
    assert abs(float(own.log_z) - 3.0) < 4 * float(own.log_z_stderr)
    assert abs(float(forward.log_z) - 3.0) < 4 * float(forward.log_z_stderr)
    assert float(own.elbo) < 3.0 < float(forward.eubo)
    assert float(own.ess_fraction) == pytest.approx(float(forward.ess_fraction), abs=0.01)


def test_forward_summary_of_an_impossible_draw():
    forward = metrics.summarize_forward_weights(jnp.array([0.0, jnp.inf]))
    assert float(forward.eubo) == math.inf
    assert float(forward.ess_fraction) == 0.0
    assert float(forward.log_z) == pytest.approx(math.log(2.0), rel=1e-6)
    assert int(forward.num_nonfinite) == 1


def test_seeded_fault_a_dropped_zero_weight_biases_log_z():
    """Half of the draws have weight zero: an estimate that leaves them out is log 2 too high."""
    log_weight = jnp.where(jnp.arange(4000) % 2 == 0, math.log(2.0), -jnp.inf)
    right = metrics.summarize_weights(log_weight)
    assert abs(float(right.log_z)) < 3 * float(right.log_z_stderr)
    wrong = metrics.summarize_weights(log_weight[jnp.isfinite(log_weight)])
    assert abs(float(wrong.log_z)) > 3 * float(right.log_z_stderr)


@pytest.mark.parametrize("bad", [jnp.zeros(()), jnp.zeros(0), jnp.zeros((2, 2))])
def test_bad_shapes_name_the_argument(bad):
    calls = (
        metrics.summarize_weights,
        metrics.pareto_k,
        metrics.normalized_weights,
        lambda a: metrics.resample(jax.random.key(0), a, 3),
        lambda a: metrics.weighted_mean(jnp.zeros(3), a),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"^log_weight:"):
            call(bad)
    with pytest.raises(ValueError, match=r"^log_weight_at_exact:"):
        metrics.summarize_forward_weights(bad)


def test_other_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"^values:"):
        metrics.weighted_mean(jnp.zeros(3), jnp.zeros(4))
    with pytest.raises(ValueError, match=r"^num_samples:"):
        metrics.resample(jax.random.key(0), jnp.zeros(4), 0)
