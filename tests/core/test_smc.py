"""Sequential Monte Carlo is unbiased for Z and for integrals, whatever prediction, twist and threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.estimators import psi_from_energy
from egmjax.paths import GaussianPath, MaskedPath, VarianceExploding
from egmjax.processes import DiffusionProcess, MaskedProcess
from egmjax.simulators import grid_sampler, smc_sampler, time_grid
from egmjax.targets import enumerate_states
from tests.core.checks import z_score
from tests.core.registry import garbage

pytestmark = pytest.mark.slow  # compiles a lot


def gaussian_case():
    """`N(.7, .5^2)` times e^.4 on the line: `(process, psi, exact [Z, Z E x])`."""
    path = GaussianPath(VarianceExploding(0.05, 3.0), mean=0.1, scale=1.2, shape=(1,))
    energy = lambda x: jnp.sum((x - 0.7) ** 2) / 0.5 + 0.5 * jnp.log(2 * jnp.pi * 0.25) - 0.4  # noqa: E731
    exact = np.exp(0.4) * np.array([1.0, 0.7])
    return DiffusionProcess(path), energy, exact, lambda x: x[0]


def masked_case():
    """A ring of four spins."""
    energy = lambda x: -0.4 * jnp.sum((2.0 * x - 1.0) * (2.0 * jnp.roll(x, 1) - 1.0))  # noqa: E731
    states = enumerate_states(4, 2)
    weight = np.exp(-np.asarray(jax.vmap(energy)(states), np.float64))
    up = np.asarray(states[:, 0] == states[:, 1], float)
    exact = np.array([weight.sum(), weight @ up])
    return MaskedProcess(MaskedPath(sites=4)), energy, exact, lambda x: 1.0 * (x[0] == x[1])


CASES = {"gaussian": gaussian_case, "masked": masked_case}


def crude_twist(process, energy):
    """Right at `t = 1`, some function of the state before."""
    exact = psi_from_energy(energy, process.path)

    def psi(x, t):
        bumps = t * jnp.sum(jnp.sin(3.0 * x.astype(float)))
        return jnp.where(t >= 1, exact(process.path.as_data(x), 1.0), bumps)

    return psi


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("threshold", [0.0, 0.9])
def test_weights_are_unbiased(name, threshold):
    """400 runs of 24 particles, a spoiled prediction and a crude twist: Z and Z E[f] within 5 standard errors."""
    process, energy, exact, f = CASES[name]()
    smc = smc_sampler(process, time_grid(4), num_particles=24, threshold=threshold)
    twist, predict = crude_twist(process, energy), garbage(process, gain=0.3)

    @jax.jit
    @jax.vmap
    def run(key):
        particles = smc.sample(key, predict, twist)
        w = jnp.exp(particles.log_weight)
        return jnp.stack([jnp.mean(w), jnp.mean(w * jax.vmap(f)(particles.x))]), particles.num_resampled

    estimates, resampled = run(jax.random.split(jax.random.key(3), 400))
    assert z_score(estimates, exact) < 5
    assert (np.mean(np.asarray(resampled)) > 1) == (threshold > 0)
    # the fault of leaving the twist of the last but one time in the weights
    assert z_score(np.asarray(estimates) * np.exp(0.2), exact) > 5


def test_without_resampling_it_is_a_batch_of_roll_outs():
    """The twist telescopes away: log-weights have the moments of `grid_sampler`'s, which never sees it."""
    process, energy, _, _ = gaussian_case()
    predict, exact = garbage(process, gain=0.3), psi_from_energy(energy, process.path)
    smc = smc_sampler(process, time_grid(4), num_particles=4000, threshold=0.0)
    particles = jax.jit(lambda k: smc.sample(k, predict, crude_twist(process, energy)))(jax.random.key(0))
    sampler = grid_sampler(process, time_grid(4))
    rollouts = jax.jit(jax.vmap(lambda k: sampler.sample(k, predict)))(
        jax.random.split(jax.random.key(1), 4000)
    )
    log_w = jax.vmap(lambda x: exact(x, 1.0))(rollouts.x) + rollouts.log_weight
    for power in (1, 2):
        a, b = (np.asarray(v, np.float64) ** power for v in (particles.log_weight, log_w))
        assert abs(a.mean() - b.mean()) < 5 * np.sqrt((a.var() + b.var()) / 4000)
    assert particles.ess.shape == (4,)
    assert particles.num_resampled == 0


def test_moves_and_dead_particles():
    """Moves leave the intermediate targets as they are; particles of infinite energy die and are counted as zero."""
    process, energy, exact, _ = gaussian_case()
    twist = crude_twist(process, lambda x: jnp.where(x[0] > 0.7, jnp.inf, energy(x)))

    def flip(key, x, log_density_fn):  # Metropolis with a symmetric proposal
        key_move, key_accept = jax.random.split(key)
        y = x + 0.5 * jax.random.normal(key_move, x.shape)
        accept = jnp.log(jax.random.uniform(key_accept)) < log_density_fn(y) - log_density_fn(x)
        return jnp.where(accept, y, x)

    smc = smc_sampler(process, time_grid(4), num_particles=24, threshold=0.9, move_fn=flip, keep_last=1)
    run = jax.jit(jax.vmap(lambda k: smc.sample(k, garbage(process, gain=0.3), twist)))
    found = run(jax.random.split(jax.random.key(3), 400))
    w = np.exp(np.asarray(found.log_weight, np.float64))
    assert z_score(w.mean(axis=1), 0.5 * exact[0]) < 5  # half of the mass is left
    assert np.all(w[np.asarray(found.x[..., 0]) > 0.7] == 0) or np.any(w == 0)
    assert np.all(np.asarray(found.num_resampled) <= 3)


def test_bad_input():
    process = gaussian_case()[0]
    for kwargs in (
        {"times": [0.1, 1.0]},
        {"times": [0.0, 1.5]},
        {"num_particles": 0},
        {"threshold": 1.5},
        {"keep_last": -1},
    ):
        arguments = {"times": time_grid(2), "num_particles": 8} | kwargs
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            smc_sampler(process, **arguments)
