"""Perceptrons of their own for each site: rows one by one or all at once, what they look at, odd ones."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.networks import OrderedMLPs, SiteMLPs
from egmjax.paths import tie_by_displacement

CONTEXTS = np.array([[-1, -1], [0, -1], [1, 0], [3, 1]])


def network(num_states, **options):
    net = SiteMLPs(CONTEXTS, num_states=num_states, width=4, **options)
    return net, drawn(net, 5)


def drawn(net, sites):
    """Arbitrary parameters."""
    params = net.init(jax.random.key(0), jnp.zeros(sites, jnp.int32))
    leaves, structure = jax.tree.flatten(params)
    noise = [jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate(leaves)]
    return jax.tree.unflatten(structure, noise)


@pytest.mark.parametrize(
    ("num_states", "depth", "kind"), [(2, 1, "odd"), (2, 2, None), (3, 1, None), (3, 2, "equivariant")]
)
def test_rows(num_states, depth, kind):
    """A row alone is that of all; it moves with the symbols of its context and with no other; masks elsewhere too."""
    net, params = network(num_states, depth=depth, **({kind: True} if kind else {}))
    x = jnp.asarray([1, 0, 1, 0, num_states], jnp.int32)
    rows = jax.jit(net.apply)(params, x)
    assert rows.shape == (4, num_states)
    one = jax.jit(lambda p, x, n: net.apply(p, x, n, method="row"))
    for n in range(4):
        np.testing.assert_allclose(one(params, x, n), rows[n], rtol=1e-5, atol=1e-6)
    for site in range(5):
        other = x.at[site].set((x[site] + 1) % num_states)
        moved = np.abs(np.asarray(jax.jit(net.apply)(params, other)) - rows).max(1) > 1e-4
        np.testing.assert_array_equal(moved, np.any(site == CONTEXTS, axis=1))
    if kind == "odd":
        np.testing.assert_allclose(net.apply(params, 1 - x), -rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rows[0], 0, atol=1e-7)


@pytest.mark.parametrize(
    ("num_states", "depth", "kind", "is_tied"),
    [(2, 1, "odd", False), (2, 2, None, True), (3, 1, None, True), (3, 2, "equivariant", False)],
)
def test_rows_that_look_at_all_earlier_sites(num_states, depth, kind, is_tied):
    """In several blocks: the rows of `SiteMLPs` with the same numbers; alone, from anywhere in a block; causal."""
    num, own = 20, 0.3
    sites = np.random.default_rng(0).permutation(num)
    tied = tie_by_displacement(sites[:, None].astype(float), period=num) if is_tied else None
    options = {"num_states": num_states, "width": 3, "depth": depth} | ({kind: True} if kind else {})
    net = OrderedMLPs(sites, block_size=8, tied=tied, own=own, **options)
    params = jax.tree.map(lambda a: 0.5 * a, drawn(net, num))
    x = jax.random.randint(jax.random.key(9), (num,), 0, num_states)
    rows = np.asarray(jax.jit(net.apply)(params, x))
    assert rows.shape == (num, num_states)
    assert rows.std() > 0.1

    contexts = np.where(np.arange(num) < np.arange(num)[:, None], sites, -1)
    given = {name: np.asarray(a) for name, a in params["params"].items()}
    same = {name: a for name, a in given.items() if "_from_" not in name and "_shared" not in name}
    if is_tied:
        same = {name: given[f"{name}_shared"][tied.row] + own * a for name, a in same.items()}
    for name in ("kernel_0", "skip"):
        blocks = [given[f"{name}_from_{start}"] for start in (0, 8, 16)]
        many = len(blocks[0]) // 8
        whole = [np.pad(a, [(0, num * many - len(a)), (0, 0), (0, 0)]) for a in blocks]
        kernel = np.swapaxes(np.concatenate(whole, axis=1), 0, 1)
        if is_tied:
            common = given[f"{name}_shared"][tied.pair].reshape(kernel.shape)
            kernel = np.repeat(tied.weight, many, axis=1)[..., None] * (common + own * kernel)
        same[name] = kernel
    plain = SiteMLPs(contexts, **options).apply({"params": same}, x)
    np.testing.assert_allclose(plain, rows, rtol=1e-4, atol=1e-5)

    alone = jax.jit(
        lambda x, y, n, start, stop: net.decode(params, x, None, start, stop)[1](None, y, n)[0],
        static_argnums=(3, 4),
    )
    masked = lambda n: x.at[sites[n:]].set(num_states)  # noqa: E731
    for start, stop, n in ((0, 8, 0), (0, 8, 7), (8, 16, 8), (16, 20, 19), (13, 15, 14), (19, 20, 19)):
        for before, after in ((masked(start), masked(n)), (x, x)):  # what is not earlier makes no difference
            np.testing.assert_allclose(alone(before, after, n, start, stop), rows[n], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="stop"):
        net.decode(params, x, None, 6, 10)
    if is_tied:
        with pytest.raises(ValueError, match="tied"):
            OrderedMLPs(sites[1:], tied=tied).init(jax.random.key(0), x)
    for n in (0, 9, 18):
        other = x.at[sites[n]].set((x[sites[n]] + 1) % num_states)
        moved = np.abs(np.asarray(jax.jit(net.apply)(params, other)) - rows).max(1) > 1e-5
        np.testing.assert_array_equal(moved, np.arange(num) > n)


def test_relabelled_symbols_have_relabelled_logits():
    """All six permutations; with two states they are minus the logits. Plain networks are no such thing."""
    net, params = network(3, depth=2, equivariant=True)
    plain, other = network(3, depth=2)
    x = jnp.asarray([1, 0, 2, 0, 1], jnp.int32)
    rows, faulty = (jax.jit(n.apply)(p, x) for n, p in ((net, params), (plain, other)))
    assert float(jnp.std(rows[1:], axis=1).min()) > 0.01  # every row does tell symbols apart
    np.testing.assert_allclose(rows[0] - rows[0, 0], 0, atol=1e-6)  # nothing known: all symbols alike
    for new in itertools.permutations(range(3)):
        relabelled = jax.jit(net.apply)(params, jnp.asarray(new, jnp.int32)[x])
        np.testing.assert_allclose(relabelled[:, jnp.asarray(new)], rows, rtol=1e-5, atol=1e-6)
    moved = jax.jit(plain.apply)(other, jnp.asarray([1, 2, 0], jnp.int32)[x])
    assert np.abs(np.asarray(moved[:, jnp.asarray([1, 2, 0])] - faulty)).max() > 0.1


def test_starts_uniform_and_refuses_odd_symbols():
    net = SiteMLPs(CONTEXTS, num_states=3)
    x = jnp.asarray([1, 0, 2, 0, 1], jnp.int32)
    np.testing.assert_array_equal(net.apply(net.init(jax.random.key(0), x), x), 0)
    with pytest.raises(ValueError, match="odd"):
        SiteMLPs(CONTEXTS, num_states=3, odd=True).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="odd"):
        SiteMLPs(CONTEXTS, odd=True, equivariant=True).init(jax.random.key(0), x)
