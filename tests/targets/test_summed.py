"""Symbols summed out, against sums over all states and the laws of the whole.

Statistical tests allow four standard errors of a fixed-seed draw.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from egmjax.states import Categorical, Real
from egmjax.targets import (
    GaussianBernoulliRBM,
    Ising,
    JointDW4,
    JointMoG,
    enumerate_states,
    from_energy,
    mean_free_basis,
    summed,
)

SIGMAS = 4.0


def chain_energy(x):
    """Symbols between two real components, so that neither end of the tuple is special."""
    a, d, b = x
    return 0.5 * jnp.sum(a**2) + 0.5 * (b[0] - d[0]) ** 2 + a[0] * d[1] * b[0]


CHAIN = from_energy(chain_energy, (Real((2,)), Categorical(2, 3), Real((1,))))


def test_energy_is_the_sum_over_states(x64):
    """In numpy, each state apart."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=2), rng.normal(size=1)
    every = [(d, e) for d in range(3) for e in range(3)]
    energies = [0.5 * np.sum(a**2) + 0.5 * (b[0] - d) ** 2 + a[0] * e * b[0] for d, e in every]
    target = summed(CHAIN)
    assert target.space == (Real((2,)), Real((1,)))
    assert target.num_energies == 9
    assert float(target.energy((jnp.asarray(a), jnp.asarray(b)))) == pytest.approx(
        -logsumexp(np.negative(energies))
    )


def test_symbols_come_back_by_their_law(x64):
    target = summed(CHAIN)
    x = (jnp.array([0.4, -1.0]), jnp.array([0.9]))
    num = 20_000
    full = jax.vmap(target.complete, (0, None))(jax.random.split(jax.random.key(0), num), x)
    np.testing.assert_array_equal(full[0], np.tile(x[0], (num, 1)))
    np.testing.assert_array_equal(full[2], np.tile(x[1], (num, 1)))
    energies = [float(chain_energy((x[0], jnp.asarray(d), x[1]))) for d in enumerate_states(2, 3)]
    law = np.exp(-np.array(energies) - logsumexp(np.negative(energies)))
    frequencies = np.bincount(np.asarray(full[1] @ jnp.array([3, 1])), minlength=9) / num
    assert np.all(np.abs(frequencies - law) < SIGMAS * np.sqrt(law * (1 - law) / num))
    assert law.max() > 2 * law.min()
    again = jax.vmap(target.split)(full)
    np.testing.assert_array_equal(again[1], full[2])


def test_pairs_are_a_mixture_of_two_gaussians():
    """JointMoG with its signs summed out, in closed form."""
    target, y = summed(JointMoG(3, 0.5)), jnp.array([0.2, -1.1, 0.7])
    pairs = np.logaddexp(-((np.asarray(y) - 1) ** 2) / 0.5, -((np.asarray(y) + 1) ** 2) / 0.5)
    assert target.space == Real((3,))
    assert float(target.energy(y)) == pytest.approx(-pairs.sum(), rel=1e-5)
    assert target.log_z == JointMoG(3, 0.5).log_z


def test_particles_stay_particles():
    """Types summed out, four particles are all alike; draws are those of the base."""
    target = summed(JointDW4())
    assert target.num_particles == 4
    y = target.sample(jax.random.key(0), 3)
    np.testing.assert_array_equal(y, JointDW4().sample(jax.random.key(0), 3)[0])
    swapped = np.asarray(target.base.positions(y[0]))[[3, 1, 0, 2]]
    other = jnp.asarray(mean_free_basis(4, 2).T @ swapped.ravel(), y.dtype)
    assert float(target.energy(other)) == pytest.approx(float(target.energy(y[0])), abs=1e-4)


@pytest.mark.parametrize(
    "target",
    [Ising(3, 0.4), summed(GaussianBernoulliRBM.six_modes()), JointMoG(13)],
    ids=["symbols alone", "reals alone", "too many"],
)
def test_refuses(target):
    with pytest.raises(ValueError, match=r"^target: "):
        summed(target)
