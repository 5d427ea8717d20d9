"""Networks whose rows use what earlier rows have computed: all at once, one by one; symmetries; by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.networks import CausalTransformer, MaskedMLP, OrderedMLPs
from egmjax.paths import displacements, torus_points
from tests.networks.checks import randomize

NUM, LENGTH = 70, 9  # more rows than are computed at once, fewer than there are sites
SITES = np.random.default_rng(0).permutation(LENGTH**2)[:NUM]
TORUS = displacements(torus_points(LENGTH), period=LENGTH)


@functools.cache
def network(kind, num_states, depth, symmetry):
    """With arbitrary parameters; its rows jitted."""
    options = {"num_states": num_states, "width": 4, "depth": depth} | ({symmetry: True} if symmetry else {})
    net = MaskedMLP(SITES, **options) if kind is MaskedMLP else kind(SITES, TORUS, heads=2, **options)
    start = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(LENGTH**2, jnp.int32))
    params = randomize(start, scale=0.3)
    return net, params, jax.jit(lambda x: net.apply(params, x))


def state(num_states):
    return jax.random.randint(jax.random.key(9), (LENGTH**2,), 0, num_states)


def masked(x, n, num_states):
    """What is known before rank `n`."""
    rank = jnp.full(LENGTH**2, NUM).at[SITES].set(jnp.arange(NUM))
    return jnp.where(rank < n, x, num_states)


CASES = [
    (MaskedMLP, 2, 1, "odd"),
    (MaskedMLP, 2, 2, None),
    (MaskedMLP, 3, 2, "equivariant"),
    (CausalTransformer, 2, 2, "odd"),
    (CausalTransformer, 3, 1, None),
    (CausalTransformer, 3, 2, "equivariant"),
]


@pytest.mark.parametrize(("kind", "num_states", "depth", "symmetry"), CASES)
def test_rows(kind, num_states, depth, symmetry):
    """One by one with a memory they are those of one call, whatever is not known; causal, with the symmetry."""
    net, params, apply = network(kind, num_states, depth, symmetry)
    x = state(num_states)
    rows = np.asarray(apply(x))
    assert rows.shape == (NUM, num_states)
    assert rows.std() > 0.02

    def block(x, memory, start, stop):
        memory, step = net.decode(params, x, memory, start, stop)
        # in the first block all symbols are there already: of those that are not earlier nothing may be used
        seen = lambda n: x if start == 0 else masked(x, n, num_states)  # noqa: E731
        return jax.lax.scan(lambda memory, n: step(memory, seen(n), n)[::-1], memory, jnp.arange(start, stop))

    @jax.jit
    def one_by_one(x):
        """Two blocks, and the second without the memory of the first."""
        memory, before = block(x, None, 0, 32)
        return before, block(x, memory, 32, NUM)[1], block(x, None, 32, NUM)[1]

    before, after, forgetful = one_by_one(x)
    np.testing.assert_allclose(np.concatenate([before, after]), rows, rtol=1e-4, atol=1e-5)
    if depth > 1:  # the seeded fault
        assert np.abs(forgetful - rows[32:]).max() > 1e-3

    for n in (0, 40, 68):
        other = x.at[SITES[n]].set((x[SITES[n]] + 1) % num_states)
        moved = np.abs(np.asarray(apply(other)) - rows).max(1) > 1e-6
        np.testing.assert_array_equal(moved, np.arange(NUM) > n)
    if symmetry == "odd":
        np.testing.assert_allclose(apply(1 - x), -rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rows[0], 0, atol=1e-7)
    if symmetry == "equivariant":
        new = jnp.asarray([1, 2, 0])
        np.testing.assert_allclose(apply(new[x])[:, new], rows, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rows[0] - rows[0, 0], 0, atol=1e-6)


@pytest.mark.parametrize(("num_states", "symmetry"), [(3, None), (2, "odd"), (3, "equivariant")])
def test_a_masked_network_without_the_units_of_earlier_rows_is_a_perceptron_a_site(num_states, symmetry):
    num, width = 6, 3
    options = {"num_states": num_states, "width": width, "depth": 2} | ({symmetry: True} if symmetry else {})
    x = jax.random.randint(jax.random.key(1), (num,), 0, num_states)
    sites = np.random.default_rng(1).permutation(num)
    net = MaskedMLP(sites, **options)
    params = dict(randomize(jax.eval_shape(net.init, jax.random.key(0), x))["params"])
    own = np.repeat(np.eye(num), width, axis=0)[..., None]
    same = dict(params)
    for name in {"kernel_1", "mean_1", "head"} & set(params):
        params[name] = params[name] * own
        blocks = params[name].reshape(num, width, num, -1)
        same[name] = jnp.stack([blocks[i, :, i] for i in range(num)])
    for name in ("kernel_0", "skip"):  # all rows are one block
        same[f"{name}_from_0"] = same.pop(name)
    rows = jax.jit(net.apply)({"params": params}, x)
    expected = jax.jit(OrderedMLPs(sites, **options).apply)({"params": same}, x)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_the_transformer_by_hand():
    """The docstring's formulas, place by place, in double precision."""
    length, width, heads = 3, 4, 2
    sites = np.array([4, 0, 7, 2, 5])
    net = CausalTransformer(
        sites, displacements(torus_points(length), period=length), width=width, depth=2, heads=heads
    )
    x = jnp.asarray([1, 0, 0, 1, 1, 1, 0, 0, 1], jnp.int32)
    params = randomize(jax.eval_shape(net.init, jax.random.key(0), x), seed=3)
    p = {k: np.asarray(v, np.float64) for k, v in params["params"].items()}
    spin = 2.0 * np.asarray(x) - 1

    # numbers of displacements that occur, in the order of those of the whole torus: by rows, then columns
    place = lambda i, j: tuple((np.array(divmod(sites[j], 3)) - np.array(divmod(sites[i], 3))) % 3)  # noqa: E731
    used = sorted({place(i, j) for i in range(5) for j in range(i)})
    number = lambda i, j: used.index(place(i, j))  # noqa: E731
    total = lambda name, i: sum((p[name][number(i, j)] for j in range(i)), 0.0)  # noqa: E731
    scaled = lambda u: u / np.sqrt(1 + np.mean(u**2))  # noqa: E731
    u = [total("start", i) + np.zeros(width) for i in range(5)]
    for n in range(2):
        q, k, v = np.split(np.stack([scaled(a) @ p[f"content_{n}"] for a in u]), 3, axis=1)
        after = []
        for i in range(5):
            found = np.zeros(width)
            for h in range(heads):
                part = slice(2 * h, 2 * h + 2)
                exps = [
                    np.exp(
                        q[i, part] @ (k[j] + spin[sites[j]] * p[f"symbol_key_{n}"][0])[part] / np.sqrt(2)
                        + p[f"bias_{n}"][number(i, j), h]
                    )
                    for j in range(i)
                ]
                for j in range(i):
                    value = v[j] + spin[sites[j]] * p[f"symbol_value_{n}"][0]
                    found[part] += exps[j] / (1 + sum(exps)) * value[part]
            a = u[i] + (found @ p[f"out_{n}"]) * (1 + total(f"gate_{n}", i))
            hidden = np.tanh(scaled(a) @ p[f"up_{n}"] + p[f"up_bias_{n}"])
            after.append(a + (hidden * (1 + total(f"up_gate_{n}", i))) @ p[f"down_{n}"])
        u = after
    half = 0.5 * (np.stack(u) @ p["head"] + p["offset"])
    rows = jax.jit(net.apply)(params, x)
    np.testing.assert_allclose(rows, np.concatenate([-half, half], 1), rtol=1e-4, atol=1e-5)


def test_parameters_are_shared_by_translation():
    """The sites moved along with their order have the same rows; with pairs of their own they have none in common."""
    moved = lambda site: (site // 3 + 1) % 3 * 3 + (site + 2) % 3  # noqa: E731
    sites, everywhere = np.array([4, 0, 7, 2, 5]), np.arange(9)
    pairs = displacements(torus_points(3), period=3)
    x = jax.random.randint(jax.random.key(2), (9,), 0, 2)
    y = x.at[moved(everywhere)].set(x)
    net, there = (CausalTransformer(s, pairs, width=4, heads=1) for s in (sites, moved(sites)))
    params = randomize(jax.eval_shape(net.init, jax.random.key(0), x))
    rows, moved_rows = jax.jit(net.apply)(params, x), jax.jit(there.apply)(params, y)
    np.testing.assert_allclose(rows, moved_rows, rtol=1e-5, atol=1e-6)
    apart = jax.eval_shape(CausalTransformer(sites, width=4).init, jax.random.key(0), x)["params"]
    assert apart["bias_0"].shape == (10, 4)
    assert params["params"]["bias_0"].shape[0] < 9


def test_displacements_by_hand():
    line = displacements(np.arange(4.0)[:, None])
    assert len(np.unique(line)) == 7
    ring = displacements(0.1 * np.arange(4.0)[:, None], period=0.4)
    np.testing.assert_array_equal(ring, [[0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1], [1, 2, 3, 0]])
    with pytest.raises(ValueError, match="points"):
        displacements(np.zeros(3))


@pytest.mark.parametrize("kind", [MaskedMLP, CausalTransformer])
def test_starts_uniform_and_refuses(kind):
    x = jnp.asarray([1, 0, 2, 0, 1], jnp.int32)
    net = kind(np.arange(4), num_states=3)
    np.testing.assert_array_equal(jax.jit(lambda k: net.apply(net.init(k, x), x))(jax.random.key(0)), 0)
    refused = {"odd": {"num_states": 3, "odd": True}}
    if kind is CausalTransformer:
        refused |= {"heads": {"heads": 3}, "displacements": {"displacements": np.zeros((3, 3), int)}}
    for name, options in refused.items():
        with pytest.raises(ValueError, match=name):
            jax.eval_shape(kind(np.arange(4), **options).init, jax.random.key(0), x)
