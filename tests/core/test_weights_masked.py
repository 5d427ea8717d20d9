"""Certified weights of masked roll-outs against enumeration: `E[w] = Z` whatever the network says.

Statistical tolerance: 4 standard errors with fixed keys, and the relative standard error is itself required
to be below 2 %, so that a wrong constant cannot hide.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.paths import Linear, MaskedPath, Ordered, Polynomial
from egmjax.processes import MaskedProcess
from egmjax.simulators import first_hitting_sampler, grid_sampler, ordered_sampler
from tests.core.checks import chi_square_score, ess_fraction, weight_score
from tests.core.exact import Table, number
from tests.core.registry import garbage

NUM, K = 20_000, 4.0
MODEL = Table(3, 3, seed=5)
COARSE = [0.0, 0.3, 0.7, 1.0]
SCHEDULES = {
    "linear": Linear,
    "polynomial": lambda: Polynomial(1.7),
    "ordered": lambda: Ordered.from_rank([1, 2, 0]),
    "groups": lambda: Ordered.from_rank([1, 0, 1]),
}


def process_of(schedule):
    return MaskedProcess(MaskedPath(SCHEDULES[schedule](), sites=3, num_states=3))


KINDS = {
    "grid": lambda process: grid_sampler(process, COARSE),
    "first_hitting": first_hitting_sampler,
    "two_a_step": lambda process: first_hitting_sampler(process, sites_per_step=2),
}


def sampler_of(kind, process):
    return KINDS[kind](process)


def keys(seed, num=NUM):
    return jax.random.split(jax.random.key(seed), num)


def forward(sampler, predict_fn, seed=0, num=NUM):
    rollout = jax.jit(jax.vmap(lambda k: sampler.sample(k, predict_fn)))(keys(seed, num))
    return rollout.x, np.asarray(jax.vmap(MODEL.psi_fn)(rollout.x) + rollout.log_weight, np.float64)


def backward(sampler, predict_fn, seed=1, num=NUM):
    x1 = MODEL.sample(seed, num)
    log_weight = jax.jit(jax.vmap(lambda k, x: sampler.log_weight(k, predict_fn, x)))(keys(seed, num), x1)
    return np.asarray(jax.vmap(MODEL.psi_fn)(x1) + log_weight, np.float64)


@functools.cache
def spoiled(schedule, kind):
    """Log-weights of roll-outs of a spoiled network."""
    process = process_of(schedule)
    return forward(sampler_of(kind, process), garbage(process))[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_mean_weight_is_z_for_a_spoiled_network(schedule, kind):
    log_w = spoiled(schedule, kind)
    score, error = weight_score(log_w, MODEL.log_z)
    assert score < K
    assert 1e-3 < error < 0.02


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exact_network_has_constant_weights_by_first_hitting(schedule):
    process = process_of(schedule)
    x, log_w = forward(first_hitting_sampler(process), MODEL.predict)
    np.testing.assert_allclose(log_w, MODEL.log_z, atol=2e-5)
    assert chi_square_score(number(x, 3), MODEL.p1) < 4.5


def test_exact_network_on_a_grid_tends_to_ess_one():
    process = process_of("linear")
    ess = [
        ess_fraction(forward(grid_sampler(process, np.linspace(0, 1, n + 1)), MODEL.predict, num=4000)[1])
        for n in (1, 4, 80)
    ]
    assert ess[0] < ess[1] < ess[2]
    assert ess[2] > 0.99


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", ["polynomial", "groups"])
def test_backward_weights_bound_log_z_from_above(schedule, kind):
    """EUBO >= log Z >= ELBO, and `E_p[1 / w] = 1 / Z` exactly."""
    process = process_of(schedule)
    upper, lower = backward(sampler_of(kind, process), garbage(process)), spoiled(schedule, kind)
    score, error = weight_score(-upper, -MODEL.log_z)
    assert score < K
    assert error < 0.02
    stderr = upper.std() / np.sqrt(NUM)
    assert (
        upper.mean() - 10 * stderr > MODEL.log_z > lower.mean() + 10 * stderr
    )  # a spoiled network has a gap


def test_autoregressive_weight_is_a_function_of_the_state():
    """With one site a rank there is one chain: backward weights do not depend on the key and equal forward's."""
    process = process_of("ordered")
    sampler, predict_fn = first_hitting_sampler(process), table_network()
    rollout = jax.jit(jax.vmap(lambda k: sampler.sample(k, predict_fn)))(keys(3, 50))
    log_weight = jax.jit(jax.vmap(lambda k, x: sampler.log_weight(k, predict_fn, x)))
    again = [log_weight(keys(seed, 50), rollout.x) for seed in (4, 5)]
    np.testing.assert_allclose(again[0], again[1], atol=1e-5)
    np.testing.assert_allclose(again[0], rollout.log_weight, atol=1e-5)


def table_network(seed=8):
    """Wrong logits that depend on the state and not on time."""
    logits = np.random.default_rng(seed).normal(size=(len(MODEL.xt), 3, 3))
    return lambda x, t: jnp.asarray(logits, dtype=float)[number(x, 4)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [[3, 3, 3], [3, 1, 3], [2, 3, 0]])
def test_rollout_from_the_middle_estimates_psi(kind, start):
    """`E[exp(psi(x_1) + log_weight)] = exp(psi(x_t, t))` from any state and time."""
    process = process_of("linear")
    sampler, predict_fn, xt = sampler_of(kind, process), garbage(process), jnp.array(start, jnp.int32)
    rollout = jax.jit(jax.vmap(lambda k: sampler.sample(k, predict_fn, xt, 0.4)))(keys(6))
    log_w = jax.vmap(MODEL.psi_fn)(rollout.x) + rollout.log_weight
    score, error = weight_score(log_w, MODEL.psi[int(number(xt, 4))])
    assert score < K
    assert error < 0.02
    revealed = np.array(start) < 3
    assert np.all(np.asarray(rollout.x)[:, revealed] == np.array(start)[revealed])


@pytest.mark.parametrize("schedule", ["linear", "groups"])
def test_intermediate_marginals(schedule):
    """The observer sees `p_t` at every time of a fine grid: chi-square below 4.5 over 64 states."""
    process = process_of(schedule)
    times = np.linspace(0, 1, 65)
    sampler = grid_sampler(process, times, observer=lambda x, t: (number(x, 4), t))
    _, (seen, clock) = jax.jit(
        lambda k: (None, jax.vmap(lambda key: sampler.sample(key, MODEL.predict))(k).observed)
    )(keys(9, 8000))
    np.testing.assert_allclose(clock[0], times[:-1], atol=1e-6)
    for step in (0, 16, 40, 60):
        law = MODEL.marginal(np.asarray(process.path.kappa(times[step]), np.float64))
        assert chi_square_score(np.asarray(seen)[:, step], law) < 4.5


def test_sampler_refuses_bad_arguments():
    process = process_of("linear")
    for times in ([0.0], [0.1, 1.0], [0.0, 0.9], [0.0, 0.5, 0.5, 1.0], [[0.0, 1.0]]):
        with pytest.raises(ValueError, match="times"):
            grid_sampler(process, times)
    with pytest.raises(ValueError, match="MaskedProcess"):
        first_hitting_sampler(object())
    with pytest.raises(ValueError, match="weighting"):
        MaskedProcess(process.path, weighting="none")


def test_equal_hitting_times_still_are_an_order():
    """Logits that depend only on how many sites are known: every order has one weight, so must ties."""

    class Coarse(MaskedPath):
        def hitting_times(self, key, t=0.0):
            return jnp.floor(4 * jax.random.uniform(key, (self.sites,))) / 4

    process = MaskedProcess(Coarse(Linear(), sites=6, num_states=2))
    bias = jnp.arange(7.0)

    def predict_fn(x, t):
        known = jnp.sum(x < 2)
        return jnp.stack([jnp.zeros(6), jnp.full((6,), bias[known])], axis=-1)

    x1 = jnp.ones(6, jnp.int32)
    values = jax.vmap(lambda k: first_hitting_sampler(process).log_weight(k, predict_fn, x1))(keys(0, 20))
    np.testing.assert_allclose(values, values[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["grid", "first_hitting", "ordered"])
def test_long_rollouts_round_their_log_weight_once(kind):
    """Against `-sum_i log q_i(x_i)` in float64: 100 sites of eight symbols, nearly uniform.

    One rounding has a standard deviation of .29 units in the last place; a running total that began at `100 log 8`
    would have ten times as much. What is common to all roll-outs is left out: it changes no weight.
    """
    sites = 100
    path = MaskedPath(Ordered.from_rank(np.arange(sites)), sites=sites, num_states=8)
    process = MaskedProcess(path)
    kinds = {
        "grid": lambda: grid_sampler(process, np.linspace(0, 1, sites + 1)),
        "first_hitting": lambda: first_hitting_sampler(process),
        "ordered": lambda: ordered_sampler(process),
    }
    sampler = kinds[kind]()
    table = 0.1 * np.random.default_rng(0).normal(size=(sites, 8)).astype(np.float32)
    sample = lambda k: sampler.sample(k, lambda x, t: jnp.asarray(table))  # noqa: E731
    x, log_weight, _ = jax.jit(jax.vmap(sample))(keys(10, 200))
    logits = table.astype(np.float64)
    log_q = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    expected = -np.sum(log_q[np.arange(sites), x], axis=1)
    error = np.asarray(log_weight, np.float64) - expected
    assert np.std(error) < 0.5 * np.spacing(np.float32(expected.min()))


# -- seeded faults ---------------------------------------------------------------------------------------


def test_faults_are_detected():
    process = process_of("linear")
    predict_fn = garbage(process)
    _, log_w = forward(grid_sampler(process, COARSE), predict_fn)
    # a symbol's normaliser forgotten once
    assert weight_score(log_w - np.log(3) / 3, MODEL.log_z)[0] > 10

    class Halved(MaskedProcess):
        def _revealed(self, xt, xs, logits):
            return 0.5 * super()._revealed(xt, xs, logits)

    _, log_w = forward(grid_sampler(Halved(process.path), COARSE), predict_fn)
    assert weight_score(log_w, MODEL.log_z)[0] > 10

    # the wrong start: log_weight without the correction of the prior
    upper = backward(first_hitting_sampler(process), predict_fn, num=4000) - 3 * np.log(3)
    assert weight_score(-upper, -MODEL.log_z)[0] > 10
