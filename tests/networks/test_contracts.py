"""Every network of the registry keeps the contract of a network: `apply(params, x, t)` for one state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.networks import head_for, state_features, time_features
from egmjax.states import Categorical, Real
from tests.networks.checks import randomize, shapes, state
from tests.networks.registry import LAYERS, NETWORKS, SPACES

TIMES = (0.0, 0.37, 1.0)


@pytest.mark.parametrize("name", NETWORKS)
def test_contract(name):
    check(name, "float32")


@pytest.mark.parametrize(
    "name", ["mlp_product", "mlp_scalar_real", "lattice_radius", "lattice_odd_full", "particles_with_types"]
)
def test_contract_in_double_precision(name, x64):
    check(name, "float64")


def check(name, precision):
    """Shapes, types and zeros at initialisation; jit == eager, vmap == loop; one trace; finite gradients."""
    network, space, shape = NETWORKS[name]()
    xs = [state(space, i, masked) for i, masked in enumerate(("some", "all", "none"))]
    ts = jnp.asarray(TIMES, dtype=float)
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *xs)
    start = jax.jit(network.init)(jax.random.key(0), xs[0], ts[1])
    params = randomize(start)
    traces = []

    @jax.jit
    def apply(params, x, t):
        traces.append(1)
        return network.apply(params, x, t)

    for x, t in zip(xs, ts):
        out = apply(start, x, t)
        assert shapes(out) == shape
        for leaf in jax.tree.leaves(out):
            assert str(leaf.dtype) == precision
            assert not np.any(leaf), "zero at initialisation"
    looped = [apply(params, x, t) for x, t in zip(xs, ts)]
    assert len(traces) == 1

    eager = network.apply(params, xs[0], ts[0])
    batched = jax.jit(jax.vmap(network.apply, (None, 0, 0)))(params, stacked, ts)
    tolerance = 1e-5 if precision == "float32" else 1e-6  # parameters are float32 in either
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(looped[0])):
        assert np.any(np.abs(a) > 1e-3), "random parameters must reach the output"
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    for i in range(len(xs)):
        for b, c in zip(jax.tree.leaves(looped[i]), jax.tree.leaves(batched)):
            assert np.all(np.isfinite(b))
            np.testing.assert_allclose(b, c[i], rtol=tolerance, atol=tolerance)

    def loss(params, x, t):
        return sum(jnp.sum((leaf - 1) ** 2) for leaf in jax.tree.leaves(network.apply(params, x, t)))

    gradient_fn = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))
    for point in (start, params):
        gradient = gradient_fn(point, stacked, ts)
        assert shapes(gradient) == jax.tree.map(lambda a: (3, *a.shape), params)
        for leaf in jax.tree.leaves(gradient):
            assert np.all(np.isfinite(leaf))
    for leaf in jax.tree.leaves(gradient):
        assert np.any(leaf), "every parameter must matter"


@pytest.mark.parametrize("name", ["mlp_product", "lattice_odd_radius"])
def test_initialisation_is_a_function_of_the_key(name):
    network, space, _ = NETWORKS[name]()
    jitted = jax.jit(network.init)
    init = lambda seed: jax.tree.leaves(jitted(jax.random.key(seed), state(space, 0), jnp.asarray(0.3)))  # noqa: E731
    first, again, other = init(0), init(0), init(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other))


def test_flows_can_differentiate_in_the_state():
    network, space, _ = NETWORKS["mlp_product"]()
    x = state(space, 3)
    params = randomize(network.init(jax.random.key(0), x, jnp.asarray(0.3)))
    jacobian = jax.jacfwd(lambda v: network.apply(params, (v, x[1]), jnp.asarray(0.5))[0])(x[0])
    assert jacobian.shape == (3, 3)
    assert np.all(np.isfinite(jacobian))
    assert np.linalg.matrix_rank(np.asarray(jacobian)) == 3


def test_time_is_used_or_not_as_asked():
    for name, depends in (("mlp_categorical", True), ("mlp_categorical_without_time", False)):
        network, space, _ = NETWORKS[name]()
        x = state(space, 0)
        params = randomize(network.init(jax.random.key(0), x, jnp.asarray(0.3)))
        a, b = (network.apply(params, x, jnp.asarray(t)) for t in (0.1, 0.9))
        assert np.allclose(a, b) != depends


@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_heads(name):
    layer, features, shape = LAYERS[name]()
    h = state(Real(features), 0)
    params = layer.init(jax.random.key(0), h)
    out = layer.apply(params, h)
    assert shapes(out) == shape
    if "head" in name:
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(out))
    batch = jax.vmap(layer.apply, (None, 0))(randomize(params), jnp.stack([h, 2.0 * h]))
    single = jax.jit(layer.apply)(randomize(params), 2.0 * h)
    for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(single)):
        np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-5)


def test_an_array_head_is_an_affine_map_in_row_major_order():
    head = head_for((2, 3))
    h = jnp.asarray([1.0, -2.0])
    params = randomize(head.init(jax.random.key(0), h))
    kernel, bias = (np.asarray(params["params"]["Dense_0"][k]) for k in ("kernel", "bias"))
    np.testing.assert_allclose(
        head.apply(params, h), (np.asarray(h) @ kernel + bias).reshape(2, 3), rtol=1e-6
    )


@pytest.mark.parametrize("name", SPACES)
def test_state_features_tell_states_apart(name):
    space = SPACES[name]
    seen = [np.asarray(state_features(space, state(space, i, m))) for i in range(2) for m in ("some", "none")]
    assert len({f.shape for f in seen}) == 1
    assert seen[0].ndim == 1
    assert all(not np.array_equal(a, b) for i, a in enumerate(seen) for b in seen[:i]) or name == "real"


def test_state_features_by_hand():
    space = (Real((2,)), Categorical(2, 2))
    x = (jnp.asarray([3.0, -6.0]), jnp.asarray([1, 2], dtype=jnp.int32))  # 2 is the mask
    np.testing.assert_array_equal(state_features(space, x, scale=3.0), [1, -2, 0, 1, 0, 0, 0, 1])


def test_time_features_by_hand():
    t = 0.3
    angles = np.pi * t * np.sqrt(2.0) ** np.arange(4)
    expected = np.concatenate([np.sin(angles), np.cos(angles)])
    np.testing.assert_allclose(time_features(jnp.asarray(t), 8), expected, atol=1e-6)
    assert time_features(0, 8).shape == (8,)
