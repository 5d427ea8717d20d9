"""The particle network against its formula in plain numpy, and what it must commute with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.networks import ParticleNet, ResidualMLP, VectorNet, time_features
from egmjax.networks._particles import LENGTH
from egmjax.paths import stationary_path
from egmjax.processes import FlowProcess
from egmjax.simulators import grid_sampler, time_grid
from egmjax.states import Categorical, Real
from egmjax.targets import mean_free_basis
from tests.networks.checks import randomize, state

NUM, KINDS = 5, 3
BOTH = pytest.mark.parametrize("kind", [ParticleNet, VectorNet])


def build(kind, dim, output=None, **kwargs):
    """A network of five particles with types, with random parameters, and a state with some types masked."""
    space = (Real(((NUM - 1) * dim,)), Categorical(NUM, KINDS))
    shape = (((NUM - 1) * dim,), (NUM, KINDS)) if output is None else output
    network = kind(space, shape, NUM, **{"width": 7, "scale": 1.3, **kwargs})
    x = state(space, 2)
    return network, randomize(network.init(jax.random.key(0), x, jnp.asarray(0.3))), x


def moved(y, order, turn):
    """Mean-free coordinates of the particles taken in `order` and turned."""
    basis = mean_free_basis(NUM, len(turn))
    x = (basis @ np.asarray(y)).reshape(NUM, -1)
    return jnp.asarray(basis.T @ (x[order] @ turn).ravel(), y.dtype)


def random_turn(rng, dim, reflects):
    """A rotation, or with `reflects` a rotation and a reflection."""
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    turn[0] *= np.sign(np.linalg.det(turn)) * (-1 if reflects else 1)
    return turn


@BOTH
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("reflects", [False, True])
def test_commutes_with_permutations_rotations_and_reflections(kind, dim, reflects, x64):
    network, params, (y, tau) = build(kind, dim)
    rng = np.random.default_rng(dim)
    order, turn = rng.permutation(NUM), random_turn(rng, dim, reflects)
    velocity, logits = network.apply(params, (y, tau), 0.4)
    other, permuted = network.apply(params, (moved(y, order, turn), tau[order]), 0.4)
    assert np.abs(velocity).max() > 1e-2
    np.testing.assert_allclose(other, moved(velocity, order, turn), rtol=0, atol=1e-12)
    np.testing.assert_allclose(permuted, logits[order], rtol=0, atol=1e-12)
    assert np.ptp(np.asarray(logits), axis=0).min() > 1e-3, "particles must differ"
    # permuting the types alone is no symmetry
    swapped, _ = network.apply(params, (y, tau[order]), 0.4)
    assert not np.allclose(swapped, velocity, atol=1e-3)


@BOTH
def test_a_scalar_does_not_change(kind, x64):
    network, params, (y, tau) = build(kind, 2, output=())
    rng = np.random.default_rng(0)
    order, turn = rng.permutation(NUM), random_turn(rng, 2, True)
    value = network.apply(params, (y, tau), 0.4)
    assert float(network.apply(params, (moved(y, order, turn), tau[order]), 0.4)) == pytest.approx(
        float(value)
    )
    assert float(network.apply(params, (1.1 * y, tau), 0.4)) != pytest.approx(float(value), abs=1e-4)


def test_perceptrons_of_pairs_against_the_formula(x64):
    """Loops over pairs in numpy, with positions whose centre is elsewhere: only differences enter."""
    network, params, (y, tau) = build(ParticleNet, 2, depth=1, num_radial=3, reach=2.0)
    layer = {name: {k: np.asarray(v) for k, v in p.items()} for name, p in params["params"].items()}
    basis = mean_free_basis(NUM, 2)
    x = (basis @ np.asarray(y)).reshape(NUM, 2) / 1.3 + 5.0
    silu = lambda a: a / (1 + np.exp(-a))  # noqa: E731
    dense = lambda i, a: a @ layer[f"Dense_{i}"]["kernel"] + layer[f"Dense_{i}"].get("bias", 0.0)  # noqa: E731

    def pair(first, h, i, j):
        r = np.sqrt(np.sum((x[i] - x[j]) ** 2) + 1e-6)
        radial = np.array([r, *np.exp(-0.5 * (r - np.array([0.0, 1.0, 2.0])) ** 2)])
        hidden = dense(first, h[i]) + dense(first + 1, h[j]) + dense(first + 2, radial)
        return silu(dense(first + 3, silu(hidden)))

    h = np.array(
        [dense(0, np.asarray(time_features(0.4))) + dense(1, np.eye(KINDS + 1)[k]) for k in np.asarray(tau)]
    )
    messages = np.array([[pair(3, silu(h), i, j) for j in range(NUM)] for i in range(NUM)])
    h = h + dense(2, messages.mean(axis=1))
    gain = np.array([[dense(7, pair(8, silu(h), i, j))[0] for j in range(NUM)] for i in range(NUM)])
    velocity = np.array([sum(gain[i, j] * (x[i] - x[j]) for j in range(NUM)) / NUM for i in range(NUM)])
    found, logits = network.apply(params, (y, tau), 0.4)
    np.testing.assert_allclose(found, basis.T @ velocity.ravel(), atol=1e-6)  # parameters are float32
    np.testing.assert_allclose(logits, dense(12, silu(h)), atol=1e-6)


def test_filters_and_vectors_against_the_formula(x64):
    """Loops over pairs in numpy, with positions whose centre is elsewhere: only differences enter."""
    network, params, (y, tau) = build(VectorNet, 2, depth=1, num_radial=3, reach=2.0)
    layer = {name: {k: np.asarray(v) for k, v in p.items()} for name, p in params["params"].items()}
    basis = mean_free_basis(NUM, 2)
    x = (basis @ np.asarray(y)).reshape(NUM, 2) / 1.3 + 5.0
    silu = lambda a: a / (1 + np.exp(-a))  # noqa: E731
    dense = lambda i, a: a @ layer[f"Dense_{i}"]["kernel"] + layer[f"Dense_{i}"].get("bias", 0.0)  # noqa: E731

    def normalized(a):
        shifted = (a - a.mean(axis=1, keepdims=True)) / np.sqrt(a.var(axis=1, keepdims=True) + 1e-6)
        return shifted * layer["LayerNorm_0"]["scale"] + layer["LayerNorm_0"]["bias"]

    pairs = [(i, j, x[i] - x[j]) for i in range(NUM) for j in range(NUM)]
    radial = {
        (i, j): np.array([1.0, *np.exp(-0.5 * (np.sqrt(d @ d + 1e-6) - np.array([0.0, 1.0, 2.0])) ** 2)])
        for i, j, d in pairs
    }

    def messages(sender, filters, h):
        sent = dense(sender, silu(h))
        found = np.zeros_like(sent)
        for i, j, _ in pairs:
            found[i] += dense(filters, radial[i, j]) * sent[j] / np.sqrt(NUM)
        return found

    def vectors(sender, filters, h):
        sent = dense(sender, silu(h))
        found = np.zeros((NUM, sent.shape[1], 2))
        for i, j, d in pairs:
            found[i] += np.outer(dense(filters, radial[i, j]) * sent[j], d) / np.sqrt(NUM)
        return found

    h = np.array(
        [dense(0, np.asarray(time_features(0.4))) + dense(1, np.eye(KINDS + 1)[k]) for k in np.asarray(tau)]
    )
    m, u = messages(3, 2, h), vectors(4, 5, h)
    lengths = np.sqrt(np.sum(u**2, axis=-1) + LENGTH**2)
    h = h + dense(9, silu(normalized(dense(6, h) + dense(7, m) + dense(8, lengths))))
    velocity = np.einsum("ic,icd->id", dense(10, silu(h)), u)
    velocity += np.einsum("ic,icd->id", dense(13, silu(h)), vectors(11, 12, h))
    found, logits = network.apply(params, (y, tau), 0.4)
    np.testing.assert_allclose(found, basis.T @ velocity.ravel(), atol=1e-6)  # parameters are float32
    np.testing.assert_allclose(logits, dense(14, silu(h)), atol=1e-6)


@BOTH
@pytest.mark.parametrize(
    ("name", "space", "shape", "num"),
    [
        ("space", Categorical(4, 2), (4, 2), 4),
        ("space", (Real((6,)), Categorical(3, 2)), ((6,), (3, 2)), 4),
        ("space", Real((3, 2)), (3, 2), 4),
        ("num_particles", Real((7,)), (7,), 4),
        ("num_particles", Real((7,)), (7,), 1),
        ("output_shape", Real((6,)), (6, 8), 4),
        ("output_shape", (Real((6,)), Categorical(4, 2)), (6,), 4),
    ],
)
def test_refuses(kind, name, space, shape, num):
    with pytest.raises(ValueError, match=f"^{name}: "):
        kind(space, shape, num).init(jax.random.key(0), state(space, 0), jnp.asarray(0.5))


@BOTH
@pytest.mark.slow
def test_weights_of_its_flow_do_not_change_with_the_whole_path(kind, x64):
    """Permuted and turned starts end at permuted and turned states, of the same log-weight forwards and backwards."""
    space = Real(((NUM - 1) * 2,))
    process = FlowProcess(stationary_path(space.shape, scale=1.3))
    sampler = grid_sampler(process, time_grid(4))
    rng = np.random.default_rng(3)
    order, turn = rng.permutation(NUM), random_turn(rng, 2, True)
    start = jnp.asarray(1.3 * rng.normal(size=space.shape))

    def both(network):
        params = randomize(network.init(jax.random.key(0), start, jnp.asarray(0.3)))
        predict = lambda x, t: 0.02 * network.apply(params, x, t)  # noqa: E731  small, so that steps are one to one

        @jax.jit
        def roll_out(x):
            found = sampler.sample(jax.random.key(0), predict, x, 0.0)
            back = sampler.log_weight(jax.random.key(1), predict, found.x)
            return found.x, jnp.stack([found.log_weight, back])

        return roll_out(start), roll_out(moved(start, order, turn))

    (end, log_weight), (other, same) = both(kind(space, space.shape, NUM, 7, scale=1.3))
    assert np.abs(end - start).max() > 1e-2
    assert np.abs(log_weight).min() > 1e-3
    np.testing.assert_allclose(other, moved(end, order, turn), rtol=0, atol=1e-10)
    np.testing.assert_allclose(same, log_weight, rtol=0, atol=1e-10)
    (_, log_weight), (_, changed) = both(ResidualMLP(space, space.shape, 7, 1))
    assert np.abs(changed - log_weight).min() > 1e-3, "a network of coordinates knows no particles"
