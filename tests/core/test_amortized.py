"""Amortised processes: a given condition stays, everything else is the inner process's, weights are conditional."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.generators import action
from egmjax.paths import GaussianPath, GivenPath, Linear, MaskedPath, Trigonometric
from egmjax.processes import AmortizedProcess, FlowProcess, MaskedProcess, at_condition, condition
from egmjax.simulators import first_hitting_sampler, grid_sampler
from egmjax.states import Real
from tests.core.checks import weight_score
from tests.core.exact import Table
from tests.core.registry import garbage

pytestmark = pytest.mark.slow  # compiles a lot

NUM, K = 20_000, 4.0
MODEL = Table(3, 3, seed=5)
TEMPERS = np.array([0.2, 1.0, 1.7])
COARSE = [0.0, 0.3, 0.7, 1.0]


def draw_temper(key):
    return jax.random.choice(key, jnp.asarray(TEMPERS, dtype=float), (1,))


def process_of():
    inner = MaskedProcess(MaskedPath(Linear(), sites=3, num_states=3))
    return AmortizedProcess(GivenPath(draw_temper, Real((1,))), inner)


def energy(x):
    """`c E(x)`."""
    return x[0][0] * MODEL.energy(x[1])


def log_z(temper):
    return float(np.log(np.exp(-temper * MODEL.energies).sum()))


SAMPLERS = {
    "grid": lambda p: grid_sampler(p, COARSE),
    "first_hitting": first_hitting_sampler,
    "two_a_step": lambda p: first_hitting_sampler(p, sites_per_step=2),
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_weights_average_to_z_of_each_condition(kind):
    process = process_of()
    sampler, predict_fn = SAMPLERS[kind](process), garbage(process)

    @jax.jit
    @jax.vmap
    def run(key):
        rollout = sampler.sample(key, predict_fn)
        return rollout.x[0][0], -energy(rollout.x) + rollout.log_weight

    tempers, log_w = (np.asarray(a) for a in run(jax.random.split(jax.random.key(0), 3 * NUM)))
    for temper in TEMPERS:
        here = np.isclose(tempers, temper)
        assert abs(here.mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / len(here))
        score, error = weight_score(log_w[here], log_z(temper))
        assert score < K
        assert error < 0.03


@pytest.mark.parametrize("kind", SAMPLERS)
def test_backward_weights(kind):
    """`E_p[1 / w] = 1 / Z(c)` at draws of the target of `c`; here `c = 1`, the table itself."""
    process = process_of()
    sampler, predict_fn, x = SAMPLERS[kind](process), garbage(process), MODEL.sample(1, NUM)
    c = jnp.ones((NUM, 1))
    weigh = jax.jit(jax.vmap(lambda k, y: sampler.log_weight(k, predict_fn, y)))
    upper = weigh(jax.random.split(jax.random.key(1), NUM), (c, x)) + jax.vmap(MODEL.psi_fn)(x)
    score, error = weight_score(-upper, -MODEL.log_z)
    assert score < K
    assert error < 0.03


def test_at_a_condition_it_is_the_inner_process():
    process, key = process_of(), jax.random.key(3)
    predict_fn, c = garbage(process), jnp.array([1.7])
    xt, x1 = jnp.array([3, 1, 3], jnp.int32), jnp.array([0, 1, 2], jnp.int32)
    inner, predict = process.process, at_condition(predict_fn, c)
    for (x, gain), (y, want) in [
        (process.step(key, (c, xt), predict_fn, 0.3, 0.9), inner.step(key, xt, predict, 0.3, 0.9)),
    ]:
        assert x[0] is c
        np.testing.assert_array_equal(x[1], y)
        assert gain == want
    prediction = predict_fn((c, xt), 0.3)
    target = process.target((c, xt), (c, x1), 0.3)
    np.testing.assert_array_equal(target, inner.target(xt, x1, 0.3))
    assert process.divergence(target, prediction, (c, xt), 0.3) == inner.divergence(
        target, prediction, xt, 0.3
    )
    logits = jnp.ones((3, 3))
    np.testing.assert_array_equal(
        process.conditional_target((c, xt), (c, x1), 0.3, logits),
        inner.conditional_target(xt, x1, 0.3, logits),
    )
    implied = process.target_from_psi((c, xt), 0.3, lambda x: x[0][0] * MODEL.psi_fn(x[1]))
    np.testing.assert_allclose(implied, inner.target_from_psi(xt, 0.3, lambda x: 1.7 * MODEL.psi_fn(x)))
    moved = action(process.generator(prediction, (c, xt), 0.3), lambda x: jnp.sum(x[1] * x[0]), (c, xt))
    alone = action(inner.generator(prediction, xt, 0.3), lambda x: 1.7 * jnp.sum(x), xt)
    np.testing.assert_allclose(moved, alone, rtol=1e-5)


def test_given_path_is_a_chain_that_stands_still():
    path = GivenPath(draw_temper, Real((1,)))
    key, c = jax.random.key(0), jnp.array([1.7])
    assert path.sample(key, c, 0.1) is path.propose(key, c, 0.1) is path.bridge(key, c, c, 0.1, 0.2) is c
    assert path.log_prob(c, c, 0.1) == path.propose_log_prob(c, c, 0.1) == path.log_reference(c, 0.0) == 0
    assert path.log_prob(c, 2 * c, 0.1) == -jnp.inf


def test_a_flow_can_be_amortised_and_evidence_given():
    flow = FlowProcess(GaussianPath(Trigonometric(1.0), shape=(2,)))
    process = AmortizedProcess(GivenPath(draw_temper, Real((1,))), flow)
    rollout = grid_sampler(process, COARSE).sample(jax.random.key(0), garbage(process, gain=0.2))
    assert process.is_deterministic
    assert rollout.x[0].shape == (1,)
    assert np.isfinite(rollout.log_weight)
    assert not grid_sampler(process, COARSE).is_reversal
    for sampler in (grid_sampler(process_of(), COARSE), first_hitting_sampler(process_of())):
        assert sampler.is_reversal  # as that of the masked process within
    given = condition(process_of(), jnp.array([3, 1, 3], jnp.int32))
    rollout = first_hitting_sampler(given).sample(jax.random.key(0), garbage(given))
    assert int(rollout.x[1][1]) == 1
    with pytest.raises(ValueError, match="process: first hitting needs a MaskedProcess"):
        first_hitting_sampler(process)


# -- seeded fault ----------------------------------------------------------------------------------------


def test_weights_of_another_condition_are_detected():
    process = process_of()
    sampler, predict_fn = first_hitting_sampler(process), garbage(process)
    rollout = jax.jit(jax.vmap(lambda k: sampler.sample(k, predict_fn)))(
        jax.random.split(jax.random.key(0), NUM)
    )
    log_w = -jax.vmap(energy)(rollout.x) + rollout.log_weight
    here = np.isclose(np.asarray(rollout.x[0][:, 0]), 1.7)
    assert weight_score(log_w[here], log_z(1.7))[0] < K
    assert weight_score(log_w, log_z(1.7))[0] > 10  # conditions mixed up
    assert weight_score(log_w[~here], log_z(1.7))[0] > 10
