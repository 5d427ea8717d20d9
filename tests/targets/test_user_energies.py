"""Targets from a user's function: what is accepted, what is refused, and how the refusal reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.states import Categorical, Real
from egmjax.targets import (
    Ising,
    check_energy,
    enumerate_states,
    enumerated_log_prob,
    enumerated_log_z,
    from_energy,
    from_log_density,
)

PLANE = Real((2,))
MIXED = (Real((2,)), Categorical(3, 2))


def half_square(x):
    return 0.5 * jnp.sum(x**2)


def test_accepted_energies():
    target = from_energy(half_square, PLANE)
    assert target.space == PLANE
    assert float(jax.jit(target.energy)(jnp.array([3.0, 4.0]))) == pytest.approx(12.5)
    assert target.log_z is None
    assert target.sample(jax.random.key(0), 3) is None
    mixed = from_energy(lambda x: half_square(x[0]) + jnp.sum(x[1]) * 0.1, MIXED)
    assert float(mixed.energy((jnp.zeros(2), jnp.ones(3, jnp.int32)))) == pytest.approx(0.3)
    from_energy(lambda x: jnp.where(x[0] > 0, half_square(x), jnp.inf), PLANE)

    def exclusive(x):  # neighbours exclude each other, which 673 of 65536 states obey
        return jnp.where(
            jnp.any(x * jnp.roll(x, 1)) | jnp.any(x * jnp.roll(x, 4)), jnp.inf, -jnp.sum(x, dtype=float)
        )

    from_energy(exclusive, Categorical(16, 2))
    same = from_energy(Ising(3, 0.4).energy, Categorical(9, 2))
    assert enumerated_log_z(same) == pytest.approx(Ising(3, 0.4).log_z, abs=1e-5)
    assert np.isfinite(jax.grad(target.energy)(jnp.ones(2))).all()


@pytest.mark.parametrize(
    ("energy_fn", "space", "message"),
    [
        (lambda x: x**2, PLANE, r"^energy_fn: must return a scalar for one state, got shape \(2,\)$"),
        (lambda x: (half_square(x),), PLANE, r"^energy_fn: must return one scalar array, got tuple$"),
        (lambda x: jnp.sum(x), Categorical(4, 3), r"^energy_fn: must return a floating number, got int\d\d$"),
        (
            lambda x: half_square(x) / 0.0 * 0.0,
            PLANE,
            r"^energy_fn: not finite at any of 16 reference states",
        ),
        (lambda x: half_square(x) + jnp.inf, PLANE, r"^energy_fn: not finite at any of 16 reference states"),
        (
            lambda x: jnp.dot(x, jnp.ones(3)),
            PLANE,
            r"^energy_fn: failed on one state of space=Real\(shape=\(2,\)\): ",
        ),
        (lambda x: x[0][0] * 1.0, PLANE, r"^energy_fn: failed on one state of space=Real\(shape=\(2,\)\): "),
        (lambda x: float(x[0]), PLANE, r"^energy_fn: failed on one state of space=Real\(shape=\(2,\)\): "),
        (None, PLANE, r"^energy_fn: expected a function of one state, got NoneType$"),
        (half_square, "plane", r"^space: expected Real\(shape\)"),
        (half_square, Real((0,)), r"^space: Real needs a shape of positive integers"),
    ],
)
def test_refused_energies(energy_fn, space, message):
    for build in (check_energy, from_energy):
        with pytest.raises(ValueError, match=message) as caught:
            build(energy_fn, space)
        assert "\n" not in str(caught.value)


def log_density(position):
    return -0.5 * jnp.sum(position["a"] ** 2) - 2.0 * position["b"][0]


POSITION = {"a": np.zeros((2, 3)), "b": (0.0,)}


def test_log_density_of_a_tree():
    target = from_log_density(log_density, POSITION)
    assert target.space == Real((7,))
    x = jnp.arange(7.0)
    position = target.unravel(x)
    assert position["a"].shape == (2, 3)
    assert position["b"][0].shape == ()
    assert float(jax.jit(target.energy)(x)) == pytest.approx(-float(log_density(position)))
    assert np.isfinite(jax.grad(target.energy)(x)).all()
    assert jax.vmap(target.unravel)(jnp.zeros((5, 7)))["a"].shape == (5, 2, 3)
    flat = from_log_density(lambda x: -half_square(x), np.zeros(3, np.float32))
    assert float(flat.energy(jnp.ones(3))) == pytest.approx(1.5)


def test_log_density_in_double_precision():
    with jax.enable_x64(True):
        target = from_log_density(log_density, POSITION)
        assert target.energy(jnp.zeros(7)).dtype == jnp.float64


@pytest.mark.parametrize(
    ("fn", "position", "message"),
    [
        (
            log_density,
            {"a": np.zeros(3, int), "b": (0.0,)},
            r"^example_position: expected a pytree of floating",
        ),
        (log_density, {}, r"^example_position: expected a pytree of floating arrays, got leaves \[\]$"),
        (log_density, {"a": "x", "b": (0.0,)}, r"^example_position: expected a pytree of floating arrays"),
        (log_density, np.zeros(0), r"^example_position: its arrays hold no elements$"),
        (log_density, {"a": 0.0}, r"^fn: failed on one state of space=Real\(shape=\(1,\)\): "),
        (lambda p: p["a"], POSITION, r"^fn: must return a scalar for one state, got shape \(2, 3\)$"),
        (lambda p: jnp.nan * p["a"][0, 0], POSITION, r"^fn: not finite at any of 16 reference states"),
        (3, POSITION, r"^fn: expected a function of one state, got int$"),
    ],
)
def test_refused_log_densities(fn, position, message):
    with pytest.raises(ValueError, match=message):
        from_log_density(fn, position)


def test_enumeration():
    states = enumerate_states(2, 3)
    assert states.dtype == np.int32
    np.testing.assert_array_equal(states[:4], [[0, 0], [0, 1], [0, 2], [1, 0]])
    assert len(np.unique(states, axis=0)) == 9
    target = from_energy(lambda x: jnp.sum(jnp.array([0.0, 1.0, 2.0])[x]), Categorical(2, 3))
    site = -np.logaddexp.reduce([0.0, -1.0, -2.0])
    want = [2 * site - x.sum() for x in states]
    np.testing.assert_allclose(enumerated_log_prob(target), want, atol=1e-6)
    assert enumerated_log_z(target) == pytest.approx(-2 * site, abs=1e-6)


def test_enumeration_refuses():
    with pytest.raises(ValueError, match=r"sites: 2\*\*25 states"):
        enumerated_log_prob(Ising(5, 0.4))
    with pytest.raises(ValueError, match="target: enumeration needs a Categorical space"):
        enumerated_log_prob(from_energy(half_square, PLANE))
