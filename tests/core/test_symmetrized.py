"""Densities averaged over permutations of sites: tables of all states of 3x3 tori in float64.

Statistical tolerance: 4 standard errors with fixed keys.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from egmjax.paths import MaskedPath, Ordered
from egmjax.processes import MaskedProcess
from egmjax.simulators import first_hitting_sampler, ordered_sampler, symmetrized
from egmjax.targets import Ising, Potts, SpinGlass, enumerate_states
from tests.core.checks import chi_square_score
from tests.core.registry import garbage

TARGET = Ising(3, beta=0.12, field=0.1)
STATES = enumerate_states(9, 2)
PLACE = 2 ** np.arange(8, -1, -1)  # of a state in the list
ENERGIES = np.asarray(jax.vmap(TARGET.energy)(jnp.asarray(STATES)), np.float64)
GROUP = TARGET.site_symmetries
LIST = GROUP[[0, 1, 12, 30, 41]]  # no group, and without the inverses of its members


def model():
    """A sampler in an order of the sites and a prediction without the symmetries of the target."""
    process = MaskedProcess(MaskedPath(Ordered.from_rank([3, 0, 6, 1, 8, 4, 2, 7, 5]), sites=9))
    predict = garbage(process, gain=0.4)
    return ordered_sampler(process), lambda x, t: predict(x, 0.0)


def log_density(sampler, predict):
    """`log q` of all states."""
    weights = jax.jit(jax.vmap(lambda x: sampler.log_weight(jax.random.key(3), predict, x)))
    return -np.asarray(weights(jnp.asarray(STATES)), np.float64)


def test_the_density_is_the_mixture_and_roll_outs_follow_it(x64):
    sampler, predict = model()
    averaged = symmetrized(sampler, LIST)
    assert (averaged.num_steps, averaged.is_reversal, averaged.has_density) == (9, False, True)
    plain, density = log_density(sampler, predict), log_density(averaged, predict)
    assert logsumexp(density) == pytest.approx(0, abs=1e-12)
    # written out: g carries the mass at x' to the state with x'[p_i] at site i
    expected = np.zeros(512)
    for p in LIST:
        np.add.at(expected, STATES[:, p] @ PLACE, np.exp(plain) / len(LIST))
    np.testing.assert_allclose(np.exp(density), expected, rtol=1e-10)

    keys = jax.random.split(jax.random.key(1), 20_000)
    rollouts = jax.jit(jax.vmap(lambda k: averaged.sample(k, predict)))(keys)
    index = np.asarray(rollouts.x) @ PLACE
    assert chi_square_score(index, np.exp(density)) < 4
    np.testing.assert_allclose(rollouts.log_weight, -density[index], rtol=1e-10)
    w = np.exp(-ENERGIES[index] - density[index] - TARGET.log_z)
    assert abs(w.mean() - 1) < 4 * w.std() / np.sqrt(len(w))
    # a seeded fault: the density at g x in place of g^-1 x
    wrong = log_density(symmetrized(sampler, np.argsort(LIST, axis=1)), predict)
    assert chi_square_score(index, np.exp(wrong)) > 8


def test_neither_ess_nor_elbo_falls(x64):
    """`ESS = 1 / sum p^2 / q` and `ELBO - log Z = -KL(q, p)` of the laws, for more and more of the group."""
    sampler, predict = model()
    log_p = -ENERGIES - TARGET.log_z

    def found(permutations):
        log_q = log_density(symmetrized(sampler, permutations), predict)
        return np.array([np.exp(-logsumexp(2 * log_p - log_q)), -np.exp(log_q) @ (log_q - log_p)])

    identity, some, whole = found(GROUP[:1]), found(LIST), found(GROUP)
    plain = log_density(sampler, predict)
    assert identity[0] == pytest.approx(np.exp(-logsumexp(2 * log_p - plain)), rel=1e-12)
    assert np.all(some > identity + 0.05)
    assert np.all(whole > some + 0.02)
    # and of permutations that are no symmetries the density may be worse
    rng = np.random.default_rng(0)
    assert found(rng.permuted(np.tile(np.arange(9), (8, 1)), axis=1))[0] < whole[0]


@pytest.mark.parametrize(
    "target",
    [Ising(3, 0.4, field=0.2), Ising(4, 0.4, -0.7), Potts(5, 3, 0.9)],
    ids=lambda t: type(t).__name__,
)
def test_declared_symmetries_leave_the_energy_alone(target):
    group, sites = target.site_symmetries, target.space.sites
    assert group.shape == (8 * sites, sites)
    assert len(np.unique(group, axis=0)) == len(group)
    np.testing.assert_array_equal(group[0], np.arange(sites))
    x = jax.random.randint(jax.random.key(0), (32, sites), 0, target.space.num_states)
    energies = jax.vmap(jax.vmap(target.energy))(x[:, group])
    np.testing.assert_array_equal(
        energies, np.broadcast_to(jax.vmap(target.energy)(x)[:, None], energies.shape)
    )
    # a seeded fault: two sites exchanged
    swapped = x[:, np.r_[1, 0, 2:sites]]
    assert np.any(jax.vmap(target.energy)(swapped) != energies[:, 0])


def test_bad_input():
    sampler, predict = model()
    assert SpinGlass.plus_minus(3, 1.0).site_symmetries is None
    with pytest.raises(ValueError, match=r"^sampler: "):
        symmetrized(first_hitting_sampler(MaskedProcess(MaskedPath(sites=9))), LIST)
    evidence = jnp.asarray([1, *[2] * 8], jnp.int32)
    given = MaskedPath(Ordered.from_rank(np.arange(9)), sites=9, evidence=evidence)
    with pytest.raises(ValueError, match=r"^sampler: "):
        symmetrized(ordered_sampler(MaskedProcess(given)), LIST)
    for wrong in (LIST[0], LIST[:0], np.zeros((2, 9), int), LIST.astype(float)):
        with pytest.raises(ValueError, match=r"^permutations: "):
            symmetrized(sampler, wrong)
    with pytest.raises(ValueError, match=r"^xt: "):
        symmetrized(sampler, LIST).sample(jax.random.key(0), predict, jnp.zeros(9, jnp.int32))
