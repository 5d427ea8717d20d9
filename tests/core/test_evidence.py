"""Conditional sampling with given symbols against enumeration of the completions.

Statistical tolerance: 4 standard errors with fixed keys, relative standard error below 3 %.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from egmjax.paths import GaussianPath, Linear, MaskedPath, MixturePath, Ordered, Polynomial, Trigonometric
from egmjax.processes import FlowProcess, MaskedProcess, MixtureProcess, ProductProcess, condition
from egmjax.simulators import first_hitting_sampler, grid_sampler
from egmjax.targets import JointMoG
from tests.core.checks import chi_square_score, weight_score
from tests.core.exact import Table, number
from tests.core.registry import garbage

pytestmark = pytest.mark.slow  # compiles a lot

NUM, K = 20_000, 4.0
MODEL = Table(3, 3, seed=5)
COARSE = [0.0, 0.3, 0.7, 1.0]
SAMPLERS = {
    "grid": lambda p: grid_sampler(p, COARSE),
    "first_hitting": first_hitting_sampler,
    "two_a_step": lambda p: first_hitting_sampler(p, sites_per_step=2),
}
SCHEDULES = {"polynomial": lambda: Polynomial(1.7), "ordered": lambda: Ordered.from_rank([1, 2, 0])}
EVIDENCE = [[3, 1, 3], [2, 3, 0], [3, 3, 3], [0, 1, 2]]


def process_of(schedule="polynomial", evidence=None):
    process = MaskedProcess(MaskedPath(SCHEDULES[schedule](), sites=3, num_states=3))
    return condition(process, None if evidence is None else jnp.array(evidence, jnp.int32))


def exact_log_z(evidence):
    """The log of the sum over completions, in float64."""
    fits = np.all((np.array(evidence) == 3) | (MODEL.x1 == np.array(evidence)), axis=1)
    return float(logsumexp(-MODEL.energies[fits]))


def keys(seed, num=NUM):
    return jax.random.split(jax.random.key(seed), num)


def forward(sampler, predict_fn, seed=0):
    rollout = jax.jit(jax.vmap(lambda k: sampler.sample(k, predict_fn)))(keys(seed))
    return rollout.x, jax.vmap(MODEL.psi_fn)(rollout.x) + rollout.log_weight


@pytest.mark.parametrize("evidence", EVIDENCE[:3])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", SAMPLERS)
def test_mean_weight_is_the_sum_over_completions(kind, schedule, evidence):
    process = process_of(schedule, evidence)
    x, log_w = forward(SAMPLERS[kind](process), garbage(process))
    score, error = weight_score(log_w, exact_log_z(evidence))
    assert score < K
    assert error < 0.03
    given = np.array(evidence) < 3
    assert np.all(np.asarray(x)[:, given] == np.array(evidence)[given])


@pytest.mark.parametrize("kind", SAMPLERS)
def test_nothing_left_to_sample_is_exact(kind):
    process = process_of(evidence=[0, 1, 2])
    _, log_w = forward(SAMPLERS[kind](process), garbage(process))
    np.testing.assert_allclose(log_w, exact_log_z([0, 1, 2]), atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_network_of_all_evidence_draws_exact_completions(schedule):
    evidence = [3, 1, 3]
    x, log_w = forward(first_hitting_sampler(process_of(schedule, evidence)), MODEL.predict)
    np.testing.assert_allclose(log_w, exact_log_z(evidence), atol=2e-5)
    law = np.where(MODEL.x1[:, 1] == 1, MODEL.p1, 0)
    assert chi_square_score(number(x, 3), law) < 4.5


@pytest.mark.parametrize("kind", SAMPLERS)
def test_backward_weights_of_given_completions(kind):
    """`E_p[1 / w] = 1 / Z(evidence)`, and what contradicts the evidence has no finite weight."""
    process = process_of(evidence=[3, 1, 3])
    sampler, predict_fn = SAMPLERS[kind](process), garbage(process)
    x = MODEL.sample(1, 3 * NUM)
    x = x[np.asarray(x)[:, 1] == 1]
    weigh = jax.jit(jax.vmap(lambda k, y: sampler.log_weight(k, predict_fn, y)))
    upper = weigh(keys(2, len(x)), x) + jax.vmap(MODEL.psi_fn)(x)
    score, error = weight_score(-upper, -exact_log_z([3, 1, 3]))
    assert score < K
    assert error < 0.03
    assert not np.any(np.isfinite(weigh(keys(3, 4), jnp.zeros((4, 3), jnp.int32))))


def test_evidence_may_be_swept():
    """One trace for all evidence, and the probability of each symbol of a site adds up to one."""
    process, traces = process_of(), []

    @jax.jit
    def log_z(evidence, key):
        traces.append(1)
        given = condition(process, evidence)
        sampler = first_hitting_sampler(given)
        rollout = jax.vmap(lambda k: sampler.sample(k, MODEL.predict))(jax.random.split(key, 4))
        return (jax.vmap(MODEL.psi_fn)(rollout.x) + rollout.log_weight)[0]

    evidence = jnp.array([[s, 3, 3] for s in range(3)], jnp.int32)
    values = np.asarray(jax.vmap(log_z)(evidence, keys(0, 3)), np.float64)
    np.testing.assert_allclose(logsumexp(values), MODEL.log_z, atol=1e-5)
    log_z(evidence[0], jax.random.key(0))
    log_z(evidence[1], jax.random.key(0))
    assert len(traces) == 1


def test_what_is_given_is_never_noised():
    """Path functions with evidence: the chain keeps given symbols, and is a chain still."""
    path = process_of(evidence=[3, 1, 3]).path
    x1 = jnp.array([2, 1, 0], jnp.int32)
    xt = jax.vmap(lambda k: path.sample(k, x1, 0.2))(keys(0, 200))
    assert np.all(np.asarray(xt)[:, 1] == 1)
    assert np.any(np.asarray(xt)[:, 0] == 3)
    assert np.all(np.isfinite(jax.vmap(lambda x: path.log_prob(x, x1, 0.2))(xt)))
    drawn = jax.vmap(lambda k: path.propose(k, xt[0], 0.2, 0.6))(keys(1, 200))
    assert np.all(np.asarray(drawn)[:, 1] == 1)
    np.testing.assert_allclose(path.kappa(0.0), [0, 1, 0])
    np.testing.assert_allclose(path.hazard(0.5)[1], 0)
    assert path.prior_log_prob(path.sample_prior(jax.random.key(0))) == 0
    leaves, structure = jax.tree.flatten(path)
    assert jax.tree.structure(jax.tree.unflatten(structure, leaves)) == structure


def test_products_take_evidence_about_their_symbols():
    """Pairs of a number and a sign are independent: a given sign halves Z."""
    target = JointMoG(num_pairs=2, scale=0.8)
    process = ProductProcess(
        (
            FlowProcess(GaussianPath(Trigonometric(1.4), mean=0.1, scale=1.4, shape=(2,))),
            MaskedProcess(MaskedPath(Linear(), sites=2, num_states=2)),
        )
    )
    given = condition(process, (None, jnp.array([2, 1], jnp.int32)))
    sampler, predict_fn = grid_sampler(given, COARSE), garbage(process, gain=0.2)

    @jax.jit
    @jax.vmap
    def run(key):
        rollout = sampler.sample(key, predict_fn)
        psi = -target.energy(rollout.x) - given.path.log_reference(rollout.x, 1.0)
        return rollout.x[1], psi + rollout.log_weight

    symbols, log_w = run(keys(4))
    assert np.all(np.asarray(symbols)[:, 1] == 1)
    score, error = weight_score(log_w, target.log_z - np.log(2))
    assert score < K
    assert error < 0.03


def test_bad_evidence():
    process = process_of()
    for evidence in (jnp.zeros(3), jnp.zeros(2, jnp.int32), jnp.array([0, 4, 0]), np.array([-1, 0, 0])):
        with pytest.raises(ValueError, match="evidence: expected"):
            condition(process, evidence)
    with pytest.raises(ValueError, match="evidence: only masked"):
        condition(MixtureProcess(MixturePath(sites=3)), jnp.zeros(3, jnp.int32))
    product = ProductProcess((process, process))
    for evidence in ((None,), jnp.zeros(3, jnp.int32)):
        with pytest.raises(ValueError, match="evidence: expected a tuple of 2"):
            condition(product, evidence)
    assert condition(product, (None, None)).path.paths[0].evidence is None


# -- seeded faults ---------------------------------------------------------------------------------------


def test_faults_are_detected():
    evidence = [3, 1, 3]
    process = process_of(evidence=evidence)

    class Forgetful(MaskedPath):
        """Counts the given site as masked at the start."""

        def log_reference(self, x, t):
            whole = MaskedPath(self.schedule, sites=self.sites, num_states=self.num_states)
            return whole.log_reference(jnp.where(jnp.asarray(t) == 0, 3, x), t)

    path = Forgetful(**{f.name: getattr(process.path, f.name) for f in dataclasses.fields(process.path)})
    _, log_w = forward(first_hitting_sampler(MaskedProcess(path)), garbage(process))
    assert weight_score(log_w, exact_log_z(evidence))[0] > 10
    # the certificate is for the completions, not for the whole
    _, log_w = forward(first_hitting_sampler(process), garbage(process))
    assert weight_score(log_w, MODEL.log_z)[0] > 10
