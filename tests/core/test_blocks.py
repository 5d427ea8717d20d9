"""Several sites a step: densities, weights and total correlations by enumeration of all orders and states.

Five two-valued sites have 120 orders and 32 states. Statistical tolerance: 4 standard errors with fixed keys.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.estimators import total_correlation
from egmjax.metrics import weighted_mean
from egmjax.paths import Linear, MaskedPath, Ordered
from egmjax.processes import FlowProcess, MaskedProcess, condition
from egmjax.simulators import first_hitting_sampler
from egmjax.states import Categorical
from egmjax.targets import coloring, dependence, from_energy
from tests.core.checks import chi_square_score
from tests.core.exact import Table, grid, number
from tests.core.registry import garbage

SITES = 5
MODEL = Table(2, SITES, seed=3)
ORDERS = np.array(list(itertools.permutations(range(SITES))))
X1 = jnp.asarray(MODEL.x1)
LOGITS = np.random.default_rng(8).normal(size=(len(MODEL.xt), SITES, 2))
KEY = jax.random.key(0)


def wrong(x, t):
    """A network with arbitrary answers to every question."""
    return jnp.asarray(LOGITS, dtype=float)[number(x, 3)]


def in_order(order):
    """The process whose sites come in a given order."""

    class Path(MaskedPath):
        def hitting_times(self, key, t=0.0):
            return jnp.argsort(order) / SITES

    return MaskedProcess(Path(Linear(), sites=SITES))


def of_all(fn, orders=ORDERS):
    """`fn(process, x)` for all orders and states, in float64."""
    over_states = jax.vmap(lambda order, x: fn(in_order(order), x), (None, 0))
    found = jax.jit(jax.vmap(over_states, (0, None)))(jnp.asarray(orders), X1)
    return np.asarray(found, np.float64)


def blocks_of(order, k):
    """What each step reveals, by taking sites off the front."""
    sizes, left, blocks = list(np.atleast_1d(k)), list(order), []
    while left:
        size = sizes[0] if len(sizes) == 1 else sizes.pop(0)
        blocks, left = [*blocks, left[:size]], left[size:]
    return blocks


def log_weights(predict_fn, k):
    return of_all(lambda p, x: first_hitting_sampler(p, sites_per_step=k).log_weight(KEY, predict_fn, x))


def correlations(predict_fn, k):
    """`[orders, states, steps]`."""
    return of_all(lambda p, x: total_correlation(KEY, x, process=p, predict_fn=predict_fn, sites_per_step=k))


def log_q(k):
    """`[orders, states]` of the wrong network, in numpy: a table read at each block of each order."""
    log_d = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    found = np.zeros((len(ORDERS), len(MODEL.x1)))
    for row, order in zip(found, ORDERS):
        context = np.full_like(MODEL.x1, 2)
        for block in blocks_of(order, k):
            row += sum(log_d[number(context, 3), site, MODEL.x1[:, site]] for site in block)
            context[:, block] = MODEL.x1[:, block]
    return found


def entropy(model, sites):
    """Of the marginal of some sites, in nats."""
    law = np.bincount(number(np.pad(model.x1[:, sites], ((0, 0), (1, 0))), 2), model.p1)
    return -np.sum(law[law > 0] * np.log(law[law > 0]))


def exact_correlations(model, blocks):
    """`sum_i H(x_i | c) - H(x_B | c)` of each block, `c` all before."""
    found = []
    for n, block in enumerate(blocks):
        before = [site for earlier in blocks[:n] for site in earlier]
        known = entropy(model, before)
        apart = sum(entropy(model, [*before, site]) - known for site in block)
        found.append(apart - (entropy(model, [*before, *block]) - known))
    return np.array(found)


@pytest.mark.parametrize("k", [1, 2, 5, (1, 3), (2, 1)])
def test_weights_are_those_of_a_density_for_every_order(k):
    """`-log q_k(x | order)` by a sum written out; `q_k` has mass one, so `E_q[w] = Z` for every order."""
    density = log_q(k)
    np.testing.assert_allclose(log_weights(wrong, k), -density, atol=1e-5)
    np.testing.assert_allclose(np.exp(density).sum(1), 1, atol=1e-9)

    sampler = first_hitting_sampler(MaskedProcess(MaskedPath(sites=SITES)), sites_per_step=k)
    assert sampler.num_steps == len(blocks_of(range(SITES), k))
    keys = jax.random.split(jax.random.key(1), 20_000)
    x = jax.jit(jax.vmap(lambda key: sampler.sample(key, wrong).x))(keys)
    assert chi_square_score(number(x, 2), np.exp(density).mean(0)) < 4
    other = 3 if k == 2 else 2  # the test can tell
    assert chi_square_score(number(x, 2), np.exp(log_q(other)).mean(0)) > 8

    def roll_out(order):
        rollout = first_hitting_sampler(in_order(order), sites_per_step=k).sample(KEY, wrong)
        return rollout.x, rollout.log_weight

    x, log_weight = jax.jit(jax.vmap(roll_out))(jnp.asarray(ORDERS))
    np.testing.assert_allclose(log_weight, -density[np.arange(120), number(x, 2)], atol=1e-5)


@pytest.mark.parametrize("k", [2, (1, 3)])
def test_exact_conditionals_have_the_total_correlation_of_the_target(k):
    """By entropies of marginals, each step of each order; nothing else is between EUBO and log Z."""
    want = np.array([exact_correlations(MODEL, blocks_of(order, k)) for order in ORDERS])
    assert want.min() > -1e-12
    found = np.einsum("oxs,x->os", correlations(MODEL.predict, k), MODEL.p1)
    np.testing.assert_allclose(found, want, atol=2e-6)
    assert want.sum(1).mean() > 0.05

    eubo = (log_weights(MODEL.predict, k) - MODEL.energies) @ MODEL.p1
    np.testing.assert_allclose(eubo - MODEL.log_z, want.sum(1), atol=1e-5)
    # and no network comes below that
    assert np.all((log_weights(wrong, k) - MODEL.energies) @ MODEL.p1 - MODEL.log_z > want.sum(1))


@functools.cache
def ring(sites):
    """Ising spins on a ring, in numbers of `grid`."""
    spins = 2.0 * grid(2, sites) - 1
    return Table(2, sites, energies=-0.7 * np.sum(spins * np.roll(spins, 1, axis=1), axis=1))


@pytest.mark.parametrize(("sites", "sizes"), [(6, [3, 3]), (5, [1, 2, 2])])
def test_colours_are_drawn_at_once(sites, sizes):
    """Given all else they are independent, so the last colour costs nothing, and earlier ones what entropies say."""
    model = ring(sites)
    pairs = dependence(from_energy(model.energy, Categorical(sites, 2)))
    rank = coloring(pairs)
    np.testing.assert_array_equal(np.bincount(rank), sizes)
    process = MaskedProcess(MaskedPath(Ordered.from_rank(rank), sites=sites))
    sampler = first_hitting_sampler(process, sites_per_step=sites)
    assert sampler.num_steps == len(sizes)

    def steps(predict_fn, x):
        return total_correlation(KEY, x, process=process, predict_fn=predict_fn, sites_per_step=sites)

    states = jnp.asarray(model.x1)
    values = np.asarray(jax.jit(jax.vmap(lambda x: steps(model.predict, x)))(states), np.float64)
    want = exact_correlations(model, [list(np.flatnonzero(rank == n)) for n in range(len(sizes))])
    np.testing.assert_allclose(model.p1 @ values, want, atol=2e-6)
    np.testing.assert_allclose(values[:, -1], 0, atol=2e-6)
    assert want[-2] > 0.02

    # a density: the order within a colour does not matter
    timeless = garbage(process)
    weigh = jax.jit(
        jax.vmap(lambda key, x: sampler.log_weight(key, lambda x, t: timeless(x, 0.0), x), (None, 0))
    )
    density = np.exp(-np.asarray(weigh(jax.random.key(1), states), np.float64))
    np.testing.assert_allclose(density.sum(), 1, atol=1e-5)
    np.testing.assert_allclose(np.exp(-weigh(jax.random.key(2), states)), density, rtol=1e-4)


@pytest.mark.parametrize("evidence", [None, [2, 0, 2, 2, 1]])
@pytest.mark.parametrize("rank", [None, [1, 0, 1, 0, 1]])
@pytest.mark.parametrize("k", [1, 4, (2, 1)])
def test_steps_add_up_to_the_difference_of_log_weights(k, rank, evidence):
    """Of one network along one order: the same key, K sites a step less one. Evidence costs nothing."""
    schedule = Linear() if rank is None else Ordered.from_rank(rank)
    process = MaskedProcess(MaskedPath(schedule, sites=SITES))
    process = condition(process, None if evidence is None else jnp.asarray(evidence, jnp.int32))
    samplers = [first_hitting_sampler(process, sites_per_step=num) for num in (k, 1)]
    x1 = X1 if evidence is None else X1[(X1[:, 1] == 0) & (X1[:, 4] == 1)]
    keys = jax.random.split(jax.random.key(4), len(x1))

    def both(key, x):
        steps = total_correlation(key, x, process=process, predict_fn=wrong, sites_per_step=k)
        several, one = (sampler.log_weight(key, wrong, x) for sampler in samplers)
        return steps, several - one

    steps, difference = jax.jit(jax.vmap(both))(keys, x1)
    assert steps.shape == (len(x1), samplers[0].num_steps)
    np.testing.assert_allclose(steps.sum(1), difference, atol=1e-5)
    assert (np.abs(difference).max() > 0.1) == (k != 1)


def test_own_samples_by_weight_tell_the_same_as_exact_ones():
    """`E_p` of a network's own total correlation, by enumeration and by weighted samples with fresh orders."""
    process = MaskedProcess(MaskedPath(sites=SITES))
    sampler = first_hitting_sampler(process, sites_per_step=2)

    def near(x, t):
        return MODEL.predict(x, t) + 0.5 * wrong(x, t)

    @jax.jit
    @jax.vmap
    def draw(key):
        key_draw, key_order = jax.random.split(key)
        rollout = sampler.sample(key_draw, near)
        steps = total_correlation(key_order, rollout.x, process=process, predict_fn=near, sites_per_step=2)
        return steps, MODEL.psi_fn(rollout.x) + rollout.log_weight

    found = weighted_mean(*draw(jax.random.split(jax.random.key(5), 40_000)))
    exact = np.einsum("oxs,x->s", correlations(near, 2), MODEL.p1) / len(ORDERS)
    assert np.all(np.abs(found.mean - exact)[:2] < 4 * found.stderr[:2])
    assert exact[1] > 10 * found.stderr[1]
    assert found.mean[2] == exact[2] == 0  # one site


def test_bad_input():
    process = MaskedProcess(MaskedPath(sites=SITES))
    for k in (0, 6, 1.5, (), (1, 0), (6, 1)):
        with pytest.raises(ValueError, match="sites_per_step: from 1 to the 5 sites"):
            first_hitting_sampler(process, sites_per_step=k)
        with pytest.raises(ValueError, match="sites_per_step"):
            total_correlation(KEY, X1[0], process=process, predict_fn=wrong, sites_per_step=k)
    with pytest.raises(ValueError, match="comes after all 5 sites"):
        first_hitting_sampler(process, sites_per_step=(2, 3, 1))
    with pytest.raises(ValueError, match="process"):
        total_correlation(
            KEY, X1[0], process=FlowProcess.__new__(FlowProcess), predict_fn=wrong, sites_per_step=1
        )
