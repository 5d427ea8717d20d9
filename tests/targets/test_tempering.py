"""Parallel tempering against enumerated laws at every scale, where a single chain does not get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.mcmc import parallel_tempering, refreshing_moves
from egmjax.states import Categorical
from tests.core.checks import chi_square_score

SCALES = (1.0, 0.6, 0.3)
SPACE = Categorical(6, 2)
STATES = (np.arange(64)[:, None] >> np.arange(6)) & 1
NUM_CHAINS = 3_000


def energy(x):
    """A ring of six strongly coupled spins in a weak field: two modes far apart."""
    s = 2.0 * x - 1.0
    return -1.3 * jnp.sum(s * jnp.roll(s, 1)) - 0.1 * jnp.sum(s)


SWEEP = refreshing_moves(SPACE, num_steps=1)


def sweep(key, x, b):
    return SWEEP(key, x, lambda y: -b * energy(y))


def law(b):
    p = np.exp(-b * np.asarray(jax.vmap(energy)(jnp.asarray(STATES)), np.float64))
    return p / p.sum()


def run(kernel, num_steps=60):
    def chain(key):
        state = kernel.init(jnp.zeros(6, jnp.int32))
        return jax.lax.scan(lambda s, k: kernel.step(k, s), state, jax.random.split(key, num_steps))

    state, info = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), NUM_CHAINS))
    return np.asarray(state.position) @ (2 ** np.arange(6)), np.asarray(info.acceptance)


def test_every_scale_has_its_law_from_one_mode():
    index, acceptance = run(parallel_tempering(energy, sweep, SCALES))
    for r, b in enumerate(SCALES):
        assert abs(chi_square_score(index[:, r], law(b))) < 4
    # a pair has its turn every other step, and exchanges with the probability that the enumerated laws say
    assert np.isnan(acceptance[:, 0::2, 1]).all()
    assert np.isnan(acceptance[:, 1::2, 0]).all()
    energies = np.asarray(jax.vmap(energy)(jnp.asarray(STATES)), np.float64)
    rate = np.minimum(1.0, np.exp(0.4 * np.subtract.outer(energies, energies)))
    exact = law(1.0) @ rate @ law(0.6)
    measured = acceptance[:, -2, 0]
    assert abs(measured.mean() - exact) < 4 * measured.std() / np.sqrt(NUM_CHAINS)


def test_exchange_with_the_sign_turned_is_another_law():
    """Seeded fault: ratios of the opposite sign, which is the exchange of a kernel for `exp(b E)`."""
    index, _ = run(parallel_tempering(lambda x: -energy(x), sweep, SCALES))
    assert abs(chi_square_score(index[:, 0], law(1.0))) > 20


def test_what_is_refused():
    for scales in ([1.0], [0.5, 1.0], [1.0, 0.0], 1.0):
        with pytest.raises(ValueError, match=r"^scales: "):
            parallel_tempering(energy, sweep, scales)
