"""Fixed orders: orders and contexts by hand, roll-outs and weights of an autoregressive model by enumeration.

The 3x3 Ising torus has 512 states and three sites that are independent given the rest. Statistical tolerance: 4
standard errors with fixed keys.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from egmjax.networks import CausalTransformer, MaskedMLP, OrderedMLPs, SiteMLPs
from egmjax.paths import (
    MaskedPath,
    Ordered,
    coarse_to_fine,
    displacements,
    nearest_earlier,
    tie_by_displacement,
    torus_points,
)
from egmjax.processes import FlowProcess, MaskedProcess, SitewisePredictor, site_order, sitewise
from egmjax.simulators import first_hitting_sampler, ordered_sampler
from egmjax.targets import Ising, dependence, independent_sites
from egmjax.targets import enumerate_states as enumerate_all
from tests.core.checks import chi_square_score
from tests.core.exact import Table
from tests.core.registry import garbage

TARGET = Ising(3, beta=0.5, field=0.1)
STATES = jnp.asarray(enumerate_all(9, 2))
ENERGIES = np.asarray(jax.vmap(TARGET.energy)(STATES), np.float64)


def test_a_coarse_order_by_hand():
    """On a ring of eight: opposite, then between, then between those; the odd sites last and together."""
    ring = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
    np.testing.assert_array_equal(coarse_to_fine(ring), [0, 4, 2, 5, 1, 6, 3, 7])
    np.testing.assert_array_equal(coarse_to_fine(ring, last=np.arange(8) % 2 == 1), [0, 4, 2, 4, 1, 4, 3, 4])
    line = np.arange(6.0)[:, None]
    np.testing.assert_array_equal(coarse_to_fine(line, period=6)[:4], [0, 2, 3, 1])  # 3 is opposite to 0
    rank = np.array([0, 4, 2, 5, 1, 6, 3, 7])
    found = nearest_earlier(ring, rank, 2)
    np.testing.assert_array_equal(found[0], [-1, -1])
    np.testing.assert_array_equal(found[4], [0, -1])
    assert set(found[1]) == {0, 2}
    with pytest.raises(ValueError, match="last"):
        coarse_to_fine(ring, last=np.ones(8, bool))
    with pytest.raises(ValueError, match="points"):
        coarse_to_fine(np.zeros(3))
    with pytest.raises(ValueError, match="num"):
        nearest_earlier(ring, rank, 0)
    with pytest.raises(ValueError, match="rank"):
        nearest_earlier(ring, rank[:3], 1)


@functools.cache
def order(is_exact=True):
    last = independent_sites(dependence(TARGET))
    points = torus_points(3)
    rank = coarse_to_fine(points, period=3, last=last if is_exact else None)
    path = MaskedPath(Ordered.from_rank(rank), sites=9)
    return path, nearest_earlier(points, rank, 4, period=3)


def options_of(kind):
    if kind is CausalTransformer:
        return {"displacements": displacements(torus_points(3), period=3), "heads": 1}
    return {"block_size": 4} if kind is OrderedMLPs else {}


def model(is_exact, kind=SiteMLPs):
    """A network with arbitrary parameters, bound; `(process, predictor)`."""
    path, contexts = order(is_exact)
    _, first, last = site_order(path)
    sites = first if is_exact else np.concatenate([first, last])
    places = {SiteMLPs: contexts[sites]}.get(kind, sites)
    net = kind(places, width=5, **options_of(kind))
    params = net.init(jax.random.key(0), STATES[0])
    leaves, structure = jax.tree.flatten(params)
    # a density near enough to the target's for its weights to be tested
    gain = {SiteMLPs: 1.0, MaskedMLP: 0.3}.get(kind, 0.5)
    noise = [gain * jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate(leaves)]
    apply_fn = sitewise(
        path,
        net.apply,
        net.decode,
        TARGET.site_energies if is_exact else None,
        block_size=getattr(net, "block_size", None),
    )
    # numpy's, as read from a file
    return MaskedProcess(path), apply_fn.bind(jax.tree.unflatten(structure, map(np.asarray, noise)))


def log_q(process, predictor):
    """Of all states, from the log-weights; whatever the key."""
    sampler = ordered_sampler(process)
    weights = jax.jit(jax.vmap(lambda x: sampler.log_weight(jax.random.key(3), predictor, x)))(STATES)
    return -np.asarray(weights, np.float64)


def test_rows_tied_by_displacement_by_hand():
    """Places 0, 4, 2, 6 of a ring of eight: the last two rows are alike, and mirror each other's places."""
    points = np.array([[0.0], [4], [2], [6]])
    tied = tie_by_displacement(points, period=8)
    np.testing.assert_array_equal(tied.row, [2, 1, 0, 0])
    pair = tied.pair
    assert pair[2, 0] == pair[3, 1]
    assert pair[2, 1] == pair[3, 0]
    assert len({pair[1, 0], pair[2, 0], pair[2, 1], pair[3, 2]}) == 4
    np.testing.assert_allclose(tied.weight[2, :2], 1)
    np.testing.assert_allclose(tied.weight[3, :3], np.array([1, 1, 0.5]) / np.sqrt(0.75))
    np.testing.assert_array_equal(np.triu(tied.weight), 0)
    without_decay = tie_by_displacement(points, period=8, decay=0.0)
    np.testing.assert_allclose(without_decay.weight, np.tri(4, k=-1))
    assert len(set(tie_by_displacement(points).pair[3, :3])) == 3  # on a line, not a ring
    assert tie_by_displacement(points[:1]).weight.shape == (1, 1)
    with pytest.raises(ValueError, match="points"):
        tie_by_displacement(np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("is_exact", "kind"),
    [
        (True, SiteMLPs),
        (False, SiteMLPs),
        (True, OrderedMLPs),
        (False, OrderedMLPs),
        (False, MaskedMLP),
        (True, CausalTransformer),
    ],
)
def test_roll_outs_follow_the_density_of_the_weights(is_exact, kind):
    process, predictor = model(is_exact, kind)
    density = log_q(process, predictor)
    assert logsumexp(density) == pytest.approx(0, abs=1e-5)
    sampler = ordered_sampler(process)
    assert sampler.num_steps == (7 if is_exact else 9)
    keys = jax.random.split(jax.random.key(1), 20_000)
    rollouts = jax.jit(jax.vmap(lambda k: sampler.sample(k, predictor)))(keys)
    index = np.asarray(rollouts.x) @ 2 ** np.arange(8, -1, -1)
    assert chi_square_score(index, np.exp(density)) < 4
    np.testing.assert_allclose(rollouts.log_weight, -density[index], atol=1e-4)
    log_w = -ENERGIES[index] - density[index]
    w = np.exp(log_w - TARGET.log_z)
    assert abs(w.mean() - 1) < 4 * w.std() / np.sqrt(len(w))

    # a seeded fault: symbols drawn from other logits than those of the weights
    def halved(x, memory, start, stop):
        memory, step = predictor.decode(x, memory, start, stop)
        return memory, lambda *state: (0.5 * step(*state)[0], step(*state)[1])

    wrong = SitewisePredictor(predictor.predict, halved, predictor.last, predictor.block_size)
    x = jax.jit(jax.vmap(lambda k: sampler.sample(k, wrong)))(keys).x
    assert chi_square_score(np.asarray(x) @ 2 ** np.arange(8, -1, -1), np.exp(density)) > 8


def test_the_last_sites_are_summed_out_exactly():
    """`log w` does not depend on them and is `sum_b log 2 cosh(beta (h_b + field))` less what the others cost."""
    process, predictor = model(is_exact=True)
    _, first, last = site_order(process.path)
    assert len(last) == 3
    log_w = -ENERGIES - log_q(process, predictor)
    states = np.asarray(STATES)
    for kept in ({1, 4, 6}, {0, 2, 3}):
        same = np.all(states[:, first] == np.isin(np.arange(6), list(kept)), axis=1)
        assert same.sum() == 8
        np.testing.assert_allclose(log_w[same], log_w[same][0], atol=1e-4)
    spins = 2 * states - 1
    grid = spins.reshape(-1, 3, 3)
    around = sum(np.roll(grid, s, a) for s in (1, -1) for a in (1, 2)).reshape(-1, 9)
    summed = np.log(2 * np.cosh(0.5 * (around + 0.1)))[:, last].sum(1)
    # bonds and field among the others: what the energy keeps when the last ones are put to zero
    zeroed = np.where(np.isin(np.arange(9), last), 0, spins).reshape(-1, 3, 3)
    bonds = sum((zeroed * np.roll(zeroed, 1, a)).sum((1, 2)) for a in (1, 2))
    rest = 0.5 * (bonds + 0.1 * zeroed.sum((1, 2)))
    logits = np.asarray(jax.vmap(predictor.predict)(STATES), np.float64)
    log_d = logits - logsumexp(logits, axis=-1, keepdims=True)
    chosen = np.take_along_axis(log_d, states[..., None], axis=-1)[..., 0][:, first].sum(1)
    np.testing.assert_allclose(log_w, summed + rest - chosen, atol=1e-4)


def test_last_sites_that_do_depend_on_each_other_spoil_the_model_and_not_its_weights():
    """All nine sites of the torus at once: the density is normalised all the same, and roll-outs follow it."""
    path = MaskedPath(Ordered.from_rank(np.zeros(9, int)), sites=9)
    no_rows = lambda params, x: jnp.zeros((0, 2))  # noqa: E731
    predictor = sitewise(path, no_rows, lambda *_: None, TARGET.site_energies).bind(None)
    process = MaskedProcess(path)
    density = log_q(process, predictor)
    assert logsumexp(density) == pytest.approx(0, abs=1e-5)
    rollout = jax.jit(lambda k: ordered_sampler(process).sample(k, predictor))(jax.random.key(2))
    index = int(np.asarray(rollout.x) @ 2 ** np.arange(8, -1, -1))
    np.testing.assert_allclose(rollout.log_weight, -density[index], atol=1e-4)


def test_sites_of_the_last_rank_do_not_look_at_each_other():
    """Drawn together from a network that could: the density is normalised, and roll-outs have it."""
    path = MaskedPath(Ordered.from_rank([0, 1, 2, 3, 4, 5, 6, 6, 6]), sites=9)
    net = OrderedMLPs(np.arange(9), width=5)
    params = jax.tree.map(lambda a: a + 0.5, net.init(jax.random.key(0), STATES[0]))
    predictor = sitewise(path, net.apply, net.decode, block_size=net.block_size).bind(params)
    process = MaskedProcess(path)
    density = log_q(process, predictor)
    assert logsumexp(density) == pytest.approx(0, abs=1e-5)
    assert density.std() > 0.5
    rollout = jax.jit(lambda k: ordered_sampler(process).sample(k, predictor))(jax.random.key(2))
    index = int(np.asarray(rollout.x) @ 2 ** np.arange(8, -1, -1))
    np.testing.assert_allclose(rollout.log_weight, -density[index], atol=1e-4)


def test_odd_networks_give_both_signs_the_same_density():
    target = Ising(3, beta=0.5)
    path, contexts = order()
    net = SiteMLPs(contexts[site_order(path).first], width=5, odd=True)
    params = net.init(jax.random.key(0), STATES[0])
    params = jax.tree.map(lambda a: a + 0.5, params)
    predictor = sitewise(path, net.apply, net.decode, target.site_energies).bind(params)
    density = log_q(MaskedProcess(path), predictor)
    np.testing.assert_allclose(density, density[::-1], atol=1e-5)  # all spins flipped reverses the list
    assert density.std() > 0.5


def test_any_denoiser_can_be_sampled_in_order():
    """The same log-weights as site by site at hitting times; evidence is kept and costs nothing."""
    table = Table(3, 3, seed=5)
    process = MaskedProcess(MaskedPath(Ordered.from_rank([1, 2, 0]), sites=3, num_states=3))
    timeless = garbage(process)
    predict_fn = lambda x, t: timeless(x, 0.0)  # noqa: E731
    sampler, other = ordered_sampler(process), first_hitting_sampler(process)
    key, x1 = jax.random.key(0), jnp.asarray(table.x1)
    np.testing.assert_allclose(
        jax.vmap(lambda x: sampler.log_weight(key, predict_fn, x))(x1),
        jax.vmap(lambda x: other.log_weight(key, predict_fn, x))(x1),
        rtol=1e-5,
    )
    rollout = jax.jit(lambda k: sampler.sample(k, predict_fn))(key)
    np.testing.assert_allclose(rollout.log_weight, sampler.log_weight(key, predict_fn, rollout.x), rtol=1e-5)
    given = MaskedPath(
        Ordered.from_rank([1, 2, 0]), sites=3, num_states=3, evidence=jnp.asarray([3, 2, 3], jnp.int32)
    )
    sampler = ordered_sampler(MaskedProcess(given))
    rollouts = jax.jit(jax.vmap(lambda k: sampler.sample(k, predict_fn)))(jax.random.split(key, 2000))
    assert np.all(np.asarray(rollouts.x)[:, 1] == 2)
    weights = [sampler.log_weight(key, predict_fn, x) for x in (rollouts.x[0], x1[0])]
    assert weights[0] == pytest.approx(float(rollouts.log_weight[0]), rel=1e-4)
    assert weights[1] == np.inf  # contradicts the evidence


def test_bad_input():
    flow = FlowProcess.__new__(FlowProcess)
    with pytest.raises(ValueError, match="process"):
        ordered_sampler(flow)
    with pytest.raises(ValueError, match="path: expected"):
        ordered_sampler(MaskedProcess(MaskedPath(sites=3)))
    with pytest.raises(ValueError, match="path: ranks"):
        site_order(MaskedPath(Ordered.from_rank([0, 0, 1]), sites=3))
