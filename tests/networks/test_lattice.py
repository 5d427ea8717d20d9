"""Lattice layers are periodic convolutions, lattice networks commute with translations, odd ones with the flip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.networks import LatticeDense, LatticeNet
from egmjax.states import Categorical
from tests.networks.checks import randomize, state


def shift(field, down, right, length):
    """The field `[sites, ...]` moved by whole sites on the torus."""
    grid = np.asarray(field).reshape(length, length, *field.shape[1:])
    return np.roll(grid, (down, right), axis=(0, 1)).reshape(field.shape)


def periodic_convolution(x, kernel, reach, length):
    """`y_j = sum_d W_d x_(j+d)` in float64 loops; `kernel [offsets, channels, features]` in row-major order of `d`."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    y = np.zeros((length**2, kernel.shape[-1]))
    for i in range(length):
        for j in range(length):
            for n, (a, b) in enumerate((a, b) for a in reach for b in reach):
                y[i * length + j] += x[(i + a) % length * length + (j + b) % length] @ kernel[n]
    return y


def dense(length, radius, channels=2, features=3):
    layer = LatticeDense(length, features, radius)
    rng = np.random.default_rng(length)
    x = jnp.asarray(rng.normal(size=(length**2, channels)), dtype=float)
    params = randomize(layer.init(jax.random.key(0), x), seed=1)
    return layer, params, x


@pytest.mark.parametrize(("length", "radius"), [(4, 1), (5, 1), (6, 2), (5, 0)])
def test_a_finite_radius_is_a_convolution(length, radius):
    layer, params, x = dense(length, radius)
    kernel, bias = params["params"]["kernel"], np.asarray(params["params"]["bias"])
    assert kernel.shape == ((2 * radius + 1) ** 2 * 2, 3)
    expected = periodic_convolution(x, kernel.reshape(-1, 2, 3), range(-radius, radius + 1), length)
    np.testing.assert_allclose(layer.apply(params, x), expected + bias[None, :], atol=1e-5)


@pytest.mark.parametrize(("length", "radius"), [(3, None), (4, None), (3, 1), (5, 2), (4, 2), (4, 7)])
def test_a_full_layer_is_the_circulant_of_its_kernel(length, radius):
    """`y_j = sum_i W[j - i] x_i`; a radius that covers the torus is the same layer as none."""
    layer, params, x = dense(length, radius)
    kernel, bias = params["params"]["kernel"], np.asarray(params["params"]["bias"])
    assert kernel.shape == (length**2 * 2, 3)
    # j - i = d mod L, that is i = j - d
    expected = periodic_convolution(x, kernel.reshape(-1, 2, 3), range(0, -length, -1), length)
    np.testing.assert_allclose(layer.apply(params, x), expected + bias[None, :], atol=2e-5)
    np.testing.assert_array_equal(layer.apply(params, x), LatticeDense(length, 3).apply(params, x))


def test_a_radius_one_kernel_embedded_in_a_full_one_gives_the_same_map():
    length = 5
    narrow, params, x = dense(length, 1)
    small = np.asarray(params["params"]["kernel"]).reshape(3, 3, 2, 3)
    full = np.zeros((length, length, 2, 3), np.float32)
    for a in (-1, 0, 1):
        for b in (-1, 0, 1):
            full[-a % length, -b % length] = small[a + 1, b + 1]
    wide = {"params": {"kernel": jnp.asarray(full.reshape(-1, 3)), "bias": params["params"]["bias"]}}
    np.testing.assert_allclose(
        narrow.apply(params, x), LatticeDense(length, 3).apply(wide, x), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("radius", [-1, -3])
def test_a_negative_radius_is_refused(radius):
    with pytest.raises(ValueError, match="radius"):
        dense(4, radius)


NETS = {
    "full": {"length": 3},
    "radius": {"length": 5, "radius": 1, "depth": 3},
    "three_states": {"length": 4, "num_states": 3},
    "odd_full": {"length": 3, "odd": True},
    "odd_radius": {"length": 5, "radius": 1, "odd": True, "depth": 3},
}


def net(name):
    network = LatticeNet(width=8, **NETS[name])
    space = Categorical(network.length**2, network.num_states)
    x = state(space, 5)
    return network, space, randomize(network.init(jax.random.key(0), x, jnp.asarray(0.0)))


@pytest.mark.parametrize("name", NETS)
def test_networks_commute_with_every_translation(name):
    network, space, params = net(name)
    length = network.length
    x = state(space, 7)
    apply = jax.jit(lambda x: network.apply(params, x, jnp.asarray(0.4)))
    out = apply(x)
    assert np.std(np.asarray(out), axis=0).max() > 1e-2, "the output must depend on the site"
    for down in range(length):
        for right in range(length):
            moved = apply(jnp.asarray(shift(x, down, right, length)))
            np.testing.assert_allclose(moved, shift(out, down, right, length), atol=1e-5)


@pytest.mark.parametrize("name", ["odd_full", "odd_radius"])
def test_odd_networks_change_sign_under_the_flip(name):
    network, space, params = net(name)
    for seed in range(4):
        x = state(space, seed)
        flipped = jnp.where(x < 2, 1 - x, x)
        a, b = (np.asarray(network.apply(params, s, jnp.asarray(0.4))) for s in (x, flipped))
        assert np.abs(a[:, 1] - a[:, 0]).max() > 1e-2
        np.testing.assert_allclose(a[:, 1] - a[:, 0], -(b[:, 1] - b[:, 0]), atol=1e-6)
        np.testing.assert_allclose(a, b[:, ::-1], atol=1e-6)  # the probabilities swap
    blank = state(space, 0, "all")
    np.testing.assert_array_equal(network.apply(params, blank, jnp.asarray(0.0)), 0.0)


def test_plain_networks_are_not_odd():
    network, space, params = net("full")
    x = state(space, 1)
    a, b = (np.asarray(network.apply(params, s, jnp.asarray(0.4))) for s in (x, jnp.where(x < 2, 1 - x, x)))
    assert np.abs(a - b[:, ::-1]).max() > 1e-2


def test_odd_needs_two_states():
    network = LatticeNet(3, num_states=3, odd=True)
    with pytest.raises(ValueError, match="odd"):
        network.init(jax.random.key(0), state(Categorical(9, 3), 0), jnp.asarray(0.0))


@pytest.mark.parametrize("name", ["full", "odd_full"])
def test_a_known_site_is_told_from_a_mask(name):
    """Which sites are known matters even where the spins seen add up to the same field."""
    network, space, params = net(name)
    x = np.asarray(state(space, 2, "none")).copy()
    hidden = x.copy()
    hidden[4] = 2
    a, b = (np.asarray(network.apply(params, jnp.asarray(s), jnp.asarray(0.0))) for s in (x, hidden))
    assert np.abs(a - b).max() > 1e-3


def test_the_lattice_network_does_not_see_time():
    network, space, params = net("full")
    x = state(space, 2)
    np.testing.assert_array_equal(
        network.apply(params, x, jnp.asarray(0.1)), network.apply(params, x, jnp.asarray(0.9))
    )


@pytest.mark.parametrize("name", ["full", "odd_full"])
def test_a_condition_changes_the_answer_and_none_of_the_symmetries(name):
    """With a condition the map differs from one value to the next, and still commutes with translations and flips."""
    network = LatticeNet(3, width=6, **({"odd": True} if name == "odd_full" else {}))
    x, t = jnp.array([0, 1, 2, 2, 1, 0, 2, 1, 1], jnp.int32), jnp.zeros(())
    params = network.init(jax.random.key(0), x, t, jnp.zeros((2,)))
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    params = structure.unflatten([jnp.asarray(rng.normal(size=a.shape), a.dtype) for a in leaves])

    def apply(x, condition):
        return network.apply(params, x, t, jnp.asarray(condition))

    low, high = apply(x, [-1.0, 0.3]), apply(x, [1.0, 0.3])
    assert float(jnp.max(jnp.abs(low - high))) > 1e-2
    shifted = jnp.roll(x.reshape(3, 3), 1, axis=0).reshape(-1)
    want = jnp.roll(high.reshape(3, 3, 2), 1, axis=0).reshape(9, 2)
    np.testing.assert_allclose(apply(shifted, [1.0, 0.3]), want, atol=1e-5)
    if name == "odd_full":
        flipped = jnp.where(x == 2, 2, 1 - x)
        np.testing.assert_allclose(apply(flipped, [1.0, 0.3]), high[:, ::-1], atol=1e-6)
