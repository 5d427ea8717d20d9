"""One sum over known sites and a perceptron for each: by hand, rows of any contexts, symmetries, roll-outs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.networks import OrderAgnosticMLPs
from egmjax.paths import MaskedPath, Ordered, tie_by_displacement, torus_points
from egmjax.processes import MaskedProcess, condition, rowwise
from egmjax.simulators import first_hitting_sampler
from tests.networks.checks import randomize

LENGTH, SITES = 3, 9
POINTS = torus_points(LENGTH)
TIED = tie_by_displacement(POINTS, period=LENGTH, any_order=True)
CASES = [
    (2, 1, "odd", True),
    (2, 3, "odd", False),
    (2, 2, None, False),
    (3, 2, None, True),
    (3, 1, "equivariant", False),
    (3, 3, "equivariant", True),
]


def network(num_states, depth, symmetry, is_tied):
    """With arbitrary parameters."""
    options = {"num_states": num_states, "width": 4, "depth": depth} | ({symmetry: True} if symmetry else {})
    net = OrderAgnosticMLPs(SITES, tied=TIED if is_tied else None, **options)
    return net, randomize(net.init(jax.random.key(0), jnp.zeros(SITES, jnp.int32)), scale=0.4)


def contexts_of(num_states, seed=0):
    """A different state, with masks, for each site."""
    x = np.random.default_rng(seed).integers(0, num_states + 1, (SITES, SITES))
    assert {*np.unique(x)} == {*range(num_states + 1)}
    return jnp.asarray(x, jnp.int32)


def silu(a):
    return a / (1 + np.exp(-a))


def by_hand(net, params, contexts):
    """Row `i` of `contexts[i]`, place by place, in float64."""
    p = {name: np.asarray(a, np.float64) for name, a in params["params"].items()}
    num, symmetric, rows = net.num_states, net.odd or net.equivariant, []
    for i, x in enumerate(np.asarray(contexts)):
        of = {name: a[0 if net.tied else i] for name, a in p.items()}
        inputs = 1 if num == 2 or net.equivariant else num
        kernel, skip = (of[name].reshape(-1, inputs, of[name].shape[-1]) for name in ("kernel_0", "skip"))
        pre, linear = np.zeros((num if symmetric else 1, net.width)), 0.0
        for j in range(SITES):
            if j == i or x[j] == num:
                continue
            place, weight = j, 1.0
            if net.tied:
                place, weight = net.tied.pair[i, j], net.tied.weight[i, j]
            if net.odd:
                z = np.array([[-1.0], [1.0]]) * (2.0 * x[j] - 1.0)
            elif net.equivariant:
                z = (np.arange(num) == x[j])[:, None] - 1 / num
            else:
                z = np.array([[2.0 * x[j] - 1.0]]) if num == 2 else np.eye(num)[x[j]][None]
            pre = pre + weight * z @ kernel[place]
            linear = linear + weight * z @ skip[place]
            if symmetric:
                pre = pre + weight * of["known_0"][place]
        h = silu(pre + of["bias_0"])
        for n in range(1, net.depth):
            new = h @ of[f"kernel_{n}"] + of[f"bias_{n}"]
            if symmetric:
                new = new + h.mean(0) @ of[f"mean_{n}"]
            h = h + silu(new)
        found = h @ of["head"] + linear
        if symmetric:
            rows.append(found[:, 0])
        else:
            found = (found + of["offset"])[0]
            rows.append(np.array([-0.5, 0.5]) * found if num == 2 else found)
    return np.array(rows)


@pytest.mark.parametrize(("num_states", "depth", "symmetry", "is_tied"), CASES)
def test_rows(num_states, depth, symmetry, is_tied):
    """Those written out; a row alone is that of all; it moves with known sites, not with its own."""
    net, params = network(num_states, depth, symmetry, is_tied)
    contexts = contexts_of(num_states)
    rows = np.asarray(jax.jit(lambda c: net.apply(params, c, method="each"))(contexts))
    np.testing.assert_allclose(rows, by_hand(net, params, contexts), rtol=2e-4, atol=2e-5)
    assert rows.std() > 0.1

    whole = jax.jit(jax.vmap(lambda x: net.apply(params, x, 0.3)))(contexts)
    np.testing.assert_allclose(whole[np.arange(SITES), np.arange(SITES)], rows, rtol=1e-4, atol=1e-5)
    row = jax.jit(lambda x, i: net.apply(params, x, i, method="row"))
    alone = jax.vmap(row)(contexts, jnp.arange(SITES))
    np.testing.assert_allclose(alone, rows, rtol=1e-4, atol=1e-5)

    x = contexts[0]
    others = jax.vmap(lambda j: x.at[j].set((x[j] + 1) % (num_states + 1)))(jnp.arange(SITES))
    moved = np.abs(jax.vmap(lambda y: net.apply(params, y))(others) - whole[:1]).max(-1) > 1e-5
    np.testing.assert_array_equal(moved, ~np.eye(SITES, dtype=bool))


@pytest.mark.parametrize("case", [case for case in CASES if case[2]])
def test_relabelled_symbols_have_relabelled_logits(case):
    """All permutations of the symbols; the mask stays."""
    net, params = network(*case)
    num, apply = case[0], jax.jit(lambda x: net.apply(params, x))
    x = contexts_of(num)[1]
    rows = apply(x)
    for new in itertools.permutations(range(num)):
        relabelled = apply(jnp.asarray([*new, num], jnp.int32)[x])
        np.testing.assert_allclose(relabelled[:, jnp.asarray(new)], rows, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jnp.ptp(apply(jnp.full(SITES, num, jnp.int32)), axis=1), 0, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case[3]])
def test_tied_rows_move_with_the_torus(case):
    net, params = network(*case)
    x = contexts_of(case[0])[2].reshape(LENGTH, LENGTH)
    rows = net.apply(params, x.reshape(-1)).reshape(LENGTH, LENGTH, -1)
    moved = net.apply(params, jnp.roll(x, (1, 2), (0, 1)).reshape(-1))
    np.testing.assert_allclose(
        moved.reshape(rows.shape), jnp.roll(rows, (1, 2), (0, 1)), rtol=1e-4, atol=1e-5
    )
    free, other = network(*case[:3], False)  # without the tie it is no such thing
    rolled = free.apply(other, jnp.roll(x, (1, 2), (0, 1)).reshape(-1)).reshape(rows.shape)
    kept = jnp.roll(free.apply(other, x.reshape(-1)).reshape(rows.shape), (1, 2), (0, 1))
    assert np.abs(rolled - kept).max() > 0.1


def test_ties_of_any_order():
    """Off the torus rows see only what there is; one weight for each displacement, of mean square one."""
    for period, kinds in ((None, 24), (LENGTH, 8)):
        tied = tie_by_displacement(POINTS, period=period, any_order=True)
        off = ~np.eye(SITES, dtype=bool)
        assert not tied.row.any()
        assert not np.diag(tied.weight).any()
        assert len(np.unique(tied.pair[off])) == kinds
        assert np.mean(tied.weight[off] ** 2) == pytest.approx(1)
        for kind in range(kinds):
            here = off & (tied.pair == kind)
            assert np.ptp(tied.weight[here]) < 1e-12
        line = np.array([0, 1, 2])  # the first row of the lattice
        distance = 2 if period is None else 1
        assert tied.weight[0, line[1]] / tied.weight[0, line[2]] == pytest.approx(distance)
        net = OrderAgnosticMLPs(SITES, tied=tied, width=4)
        params = randomize(net.init(jax.random.key(0), jnp.zeros(SITES, jnp.int32)), scale=0.4)
        contexts = contexts_of(2)
        rows = net.apply(params, contexts, method="each")
        np.testing.assert_allclose(rows, by_hand(net, params, contexts), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("sites_per_step", [1, (1, 3), 4])
@pytest.mark.parametrize("schedule", ["random", "ordered", "evidence"])
def test_roll_outs_by_rows_are_those_of_whole_calls(sites_per_step, schedule):
    """The same states and weights from the same keys, and the same weights of given states."""
    net, params = network(2, 2, None, False)
    path = MaskedPath(sites=SITES)
    if schedule == "ordered":
        path = MaskedPath(Ordered.from_rank(np.arange(SITES)[::-1] // 2), sites=SITES)
    process = MaskedProcess(path)
    if schedule == "evidence":
        process = condition(process, jnp.asarray([2, 1, 2, 2, 0, 2, 2, 2, 2], jnp.int32))
    sampler = first_hitting_sampler(process, sites_per_step=sites_per_step)
    apply_fn = rowwise(
        net.apply,
        lambda p, x, i: net.apply(p, x, i, method="row"),
        lambda p, contexts: net.apply(p, contexts, method="each"),
    )
    by_rows = apply_fn.bind(params)
    asked = []

    def whole(x, t):
        asked.append(1)
        return net.apply(params, x, t)

    keys = jax.random.split(jax.random.key(0), 50)
    one, other = (jax.jit(jax.vmap(lambda k, f=f: sampler.sample(k, f)))(keys) for f in (by_rows, whole))
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_allclose(one.log_weight, other.log_weight, rtol=1e-4, atol=1e-4)
    assert np.std(one.log_weight) > 0.1
    weigh = [jax.jit(jax.vmap(lambda k, x, f=f: sampler.log_weight(k, f, x))) for f in (by_rows, whole)]
    np.testing.assert_allclose(*(f(keys, one.x) for f in weigh), rtol=1e-4, atol=1e-4)
    assert asked
    np.testing.assert_allclose(apply_fn(params, one.x[0], 0.2), whole(one.x[0], 0.2), rtol=1e-5, atol=1e-6)


def test_bad_input():
    x = jnp.zeros(SITES, jnp.int32)

    def init(**options):
        return OrderAgnosticMLPs(SITES, **options).init(jax.random.key(0), x)

    with pytest.raises(ValueError, match="odd"):
        init(num_states=3, odd=True)
    with pytest.raises(ValueError, match="tied: expected 9 rows"):
        init(tied=tie_by_displacement(torus_points(2), any_order=True))
    with pytest.raises(ValueError, match="tied: expected 9 rows"):
        init(tied=tie_by_displacement(POINTS, period=LENGTH))  # in order: rows are of several kinds
    with pytest.raises(ValueError, match="tied: a row sees two"):
        init(tied=TIED._replace(pair=np.zeros_like(TIED.pair)))
