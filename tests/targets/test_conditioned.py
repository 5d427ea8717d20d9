"""Targets with some coordinates given, against enumeration and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import norm

from egmjax.states import Categorical, Real, example_state
from egmjax.targets import (
    GaussianBernoulliRBM,
    GaussianMixture,
    Ising,
    JointMoG,
    conditioned,
    enumerate_states,
    enumerated_log_prob,
    enumerated_log_z,
    from_energy,
)

pytestmark = pytest.mark.slow  # compiles a lot

ISING = Ising(length=3, beta=0.35, field=0.2)
SPINS = np.array([2, 0, 2, 1, 1, 2, 2, 2, 0])


def completions():
    """All states that agree with `SPINS` and their energies, float64."""
    states = enumerate_states(9, 2)
    states = states[np.all((SPINS == 2) | (states == SPINS), axis=1)]
    return states, np.asarray(jax.vmap(ISING.energy)(jnp.asarray(states)), np.float64)


def test_symbols_by_enumeration(x64):
    target = conditioned(ISING, SPINS)
    states, energies = completions()
    assert target.space == Categorical(5, 2)
    np.testing.assert_allclose(enumerated_log_z(target), logsumexp(-energies), atol=1e-12)
    np.testing.assert_allclose(target.log_z, logsumexp(-energies), atol=1e-11)
    merged = jax.vmap(target.merge)(jnp.asarray(enumerate_states(5, 2)))
    np.testing.assert_array_equal(np.asarray(merged), states)
    np.testing.assert_array_equal(jax.vmap(target.split)(merged), enumerate_states(5, 2))
    # the conditional law is the joint one, renormalised
    full = dict(zip(map(tuple, enumerate_states(9, 2)), enumerated_log_prob(ISING)))
    joint = np.array([full[tuple(s)] for s in states])
    np.testing.assert_allclose(enumerated_log_prob(target), joint - logsumexp(joint), atol=1e-12)


def test_site_energies_and_observables_are_those_of_the_whole(precision):
    target = conditioned(ISING, SPINS)
    y = jnp.array([1, 0, 0, 1, 1], jnp.int32)
    full = target.merge(y)
    free = np.flatnonzero(SPINS == 2)
    np.testing.assert_allclose(target.site_energies(y), ISING.site_energies(full)[free], rtol=1e-6)
    changed = [[float(target.energy(y.at[i].set(s))) for s in range(2)] for i in range(5)]
    np.testing.assert_allclose(
        np.diff(target.site_energies(y), axis=1), np.diff(changed, axis=1), rtol=1e-4, atol=1e-5
    )
    assert target.observables["magnetization"](y) == ISING.observables["magnetization"](full)
    assert target.energy(y).dtype == jnp.dtype(precision)


def test_exact_draws_on_a_torus():
    target, num = conditioned(ISING, SPINS), 4000
    x = np.asarray(target.sample(jax.random.key(0), num))
    assert x.shape == (num, 5)
    probs = np.exp(enumerated_log_prob(target))
    counts = np.bincount(x @ 2 ** np.arange(4, -1, -1), minlength=32)
    chi_square = ((counts - num * probs) ** 2 / (num * probs)).sum()
    assert chi_square < 31 + 4 * np.sqrt(62)


def test_real_coordinates_by_closed_form_and_quadrature(x64):
    """A mixture of isotropic Gaussians given one coordinate is one again, with other weights."""
    base = GaussianMixture.three_modes()
    target = conditioned(base, np.array([np.nan, 1.5]))
    assert target.space == Real((1,))
    means, scales = np.asarray(base.means), np.asarray(base.scales)
    want = logsumexp(
        np.asarray(base.log_weights) + norm.logpdf(1.5, means[:, 1], scales) + np.log(2 * np.pi * scales**2)
    )
    z = quad(lambda y: np.exp(-float(target.energy(jnp.array([y])))), -12, 12, points=[-4, 0, 4])[0]
    np.testing.assert_allclose(np.log(z), want, atol=1e-9)
    assert target.log_z is None
    assert target.sample(jax.random.key(0), 3) is None


def test_mixed_states(x64):
    base = GaussianBernoulliRBM.six_modes()
    v, h = np.array([4.0, -1.0]), np.array([1, 0, 1])
    hidden = conditioned(base, (v, None))  # a single component left is not a tuple
    assert hidden.space == Categorical(3, 2)
    # p(h | v) has independent units: log Z by the product
    w = np.asarray(base.weights)
    log_z = -0.5 * v @ v + np.sum(np.logaddexp(0, np.asarray(base.hidden_bias) + v @ w))
    np.testing.assert_allclose(enumerated_log_z(hidden), log_z, atol=1e-12)

    partly = conditioned(base, (np.array([4.0, np.nan]), np.array([1, 2, 2])))
    assert partly.space == (Real((1,)), Categorical(2, 2))
    y = (jnp.array([-1.0]), jnp.array([0, 1], jnp.int32))
    np.testing.assert_allclose(partly.energy(y), base.energy((jnp.asarray(v), jnp.asarray(h))), atol=1e-12)
    rows = base.site_energies((jnp.asarray(v), jnp.asarray(h, jnp.int32)))[1:]
    np.testing.assert_allclose(partly.site_energies(y), rows, atol=1e-12)
    again = partly.split(partly.merge(y))
    np.testing.assert_array_equal(again[0], y[0])
    np.testing.assert_array_equal(again[1], y[1])

    visible = conditioned(base, (None, h))
    assert visible.space == Real((2,))
    with pytest.raises(ValueError, match="categorical"):
        visible.site_energies(jnp.zeros(2))


def test_values_may_be_swept_and_matrices_have_coordinates():
    """One trace for all values; a coordinate of an array-valued state is one of its entries."""
    base = from_energy(lambda x: jnp.sum(x**2 * jnp.array([[1.0, 2.0], [3.0, 4.0]])), Real((2, 2)))
    target = conditioned(base, np.array([[1.0, np.nan], [np.nan, 2.0]]))
    assert float(target.energy(jnp.array([1.0, -1.0]))) == 1 + 2 + 3 + 16
    assert target.merge(jnp.array([5.0, 6.0])).tolist() == [[1.0, 5.0], [6.0, 2.0]]
    traces = []

    @jax.jit
    def energy(target, y):
        traces.append(1)
        return target.energy(y)

    for scale in (1.0, 2.0):
        other = conditioned(base, scale * np.array([[1.0, np.nan], [np.nan, 2.0]]))
        assert float(energy(other, jnp.zeros(2))) == scale**2 * 17
    assert len(traces) == 1


def test_nothing_exact_where_too_much_is_free():
    evidence = np.full(14 * 14, 2)
    evidence[0] = 1
    target = conditioned(Ising(length=14, beta=0.3), evidence)
    assert target.log_z is None
    assert target.sample(jax.random.key(0), 2) is None
    assert jnp.isfinite(target.energy(example_state(target.space)))


def test_bad_evidence():
    for evidence in (np.zeros(9), np.zeros(8, int), np.full(9, 3)):
        with pytest.raises(ValueError, match="evidence: expected"):
            conditioned(ISING, evidence)
    with pytest.raises(ValueError, match="evidence: leaves nothing free"):
        conditioned(ISING, np.zeros(9, int))
    pair = JointMoG(num_pairs=2)
    for evidence in (np.zeros(2), (None,), (np.zeros(2, int), None), (None, np.zeros(2))):
        with pytest.raises(ValueError, match="evidence: expected"):
            conditioned(pair, evidence)
    with pytest.raises(ValueError, match="evidence: a given coordinate must be finite"):
        conditioned(pair, (np.array([np.inf, np.nan]), None))


# -- seeded fault ----------------------------------------------------------------------------------------


def test_swapped_symbols_are_detected():
    """Given symbols read the wrong way round give another sum."""
    _, energies = completions()
    inverted = conditioned(ISING, np.where(SPINS < 2, 1 - SPINS, 2))
    assert abs(enumerated_log_z(conditioned(ISING, SPINS)) - logsumexp(-energies)) < 1e-4
    assert abs(enumerated_log_z(inverted) - logsumexp(-energies)) > 1e-2
