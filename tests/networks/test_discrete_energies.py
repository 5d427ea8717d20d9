"""Energies of symbols against sums over hidden units and against the Ising torus."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from egmjax.networks import PairEnergy, RestrictedBoltzmann
from egmjax.states import Categorical
from egmjax.targets import Ising, enumerate_states
from tests.networks.checks import randomize, state


def test_hidden_units_are_summed_out(x64):
    """`-log sum_h exp(a v + b h + h W v) + H log 2`, by enumeration of all eight hidden states; three symbols."""
    network, states = RestrictedBoltzmann(num_states=3, num_hidden=3), enumerate_states(2, 3)
    params = randomize(network.init(jax.random.key(0), jnp.asarray(states[0])), scale=1.0)
    weights = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    visible, inner = weights["Dense_0"]["kernel"][:, 0], weights["Dense_1"]
    symbols = np.eye(3)[states].reshape(9, 6)
    hidden = np.array(list(itertools.product((0, 1), repeat=3)))
    joint = (symbols @ visible)[:, None] + (symbols @ inner["kernel"] + inner["bias"]) @ hidden.T
    exact = -logsumexp(joint, axis=1) + 3 * np.log(2)
    found = jax.vmap(lambda x: network.apply(params, x))(jnp.asarray(states))
    np.testing.assert_allclose(found, exact, atol=1e-6)


def test_starts_near_zero_and_reads_masks_as_nothing():
    network, x = RestrictedBoltzmann(num_states=2, num_hidden=8), state(Categorical(16, 2), 0, "none")
    params = network.init(jax.random.key(0), x)
    assert 0 < abs(float(network.apply(params, x))) < 1.5
    masked = jnp.full(16, 2)
    params = randomize(params)
    bias = np.asarray(params["params"]["Dense_1"]["bias"], np.float64)
    assert float(network.apply(params, masked)) == pytest.approx(
        -np.sum(np.log((1 + np.exp(bias)) / 2)), abs=1e-4
    )


@pytest.mark.parametrize("fault", [0.0, 0.1])
def test_torus_contains_ising(fault):
    """With `J_ij = 2 beta J` and `h_i(s) = beta h s` energies are Ising's plus a constant; one bond off is seen."""
    target, network = Ising(3, beta=0.7, coupling=0.9, field=0.3), PairEnergy(3)
    states = jnp.asarray(enumerate_states(9, 2))
    fields = 0.7 * 0.3 * jnp.broadcast_to(jnp.asarray([-1.0, 1.0]), (9, 2))
    params = {"params": {"fields": fields, "bonds": jnp.full((2, 3, 3), 2 * 0.63).at[1, 2, 0].add(fault)}}
    gap = jax.vmap(lambda x: network.apply(params, x) - target.energy(x))(states)
    spread = float(np.ptp(np.asarray(gap)))
    assert (spread > 0.09) if fault else (spread < 1e-5)
