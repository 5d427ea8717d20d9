"""What learns from energies of particles: noise aligned with states, and chains beside the training."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist

from egmjax.estimators import psi_from_energy
from egmjax.mcmc import hamiltonian_chain
from egmjax.paths import Linear, MaskedPath, stationary_path
from egmjax.targets import DW4, mean_free_basis
from egmjax.training import aligned_coupling, chain_source, replay_buffer

SIGMAS = 5.0


def positions(y, num=4):
    return (np.asarray(y, np.float64) @ mean_free_basis(num, y.shape[1] // (num - 1)).T).reshape(
        len(y), num, -1
    )


def nearest(x0, x1):
    """The least squared distance over all permutations, rotations and reflections."""
    norms = np.sum(x0**2) + np.sum(x1**2)
    singular = [
        np.linalg.svd(x0[list(p)].T @ x1, compute_uv=False).sum() for p in itertools.permutations(range(4))
    ]
    return norms - 2 * max(singular)


def test_noise_is_permuted_turned_and_mirrored_towards_each_state():
    path = stationary_path((6,), scale=2.1)
    x1 = 2.1 * jax.random.normal(jax.random.key(0), (200, 6))
    x0 = jax.jit(aligned_coupling(path, 4))(jax.random.key(1), x1)
    free = jax.vmap(path.sample_prior)(jax.random.split(jax.random.key(1), 200))
    a, b, c = positions(x0), positions(x1), positions(free)
    for moved, drawn in zip(a, c):
        np.testing.assert_allclose(np.sort(pdist(moved)), np.sort(pdist(drawn)), rtol=1e-5)
    found, before = (np.sum((x - b) ** 2, axis=(1, 2)) for x in (a, c))
    best = np.array([nearest(x, y) for x, y in zip(c, b)])
    assert np.all(found >= best - 1e-3)
    assert np.mean(found < best + 1e-3) > 0.25, "often the best of 24 permutations"
    assert np.mean(found - best) < 0.1 * np.mean(before - best)


def test_the_marginal_of_the_noise_stays_where_states_have_the_symmetries():
    path = stationary_path((6,), scale=1.0)
    num = 4_000
    x1 = 2.0 * jax.random.normal(jax.random.key(0), (num, 6))
    x0 = np.asarray(jax.jit(aligned_coupling(path, 4))(jax.random.key(1), x1), np.float64)
    assert np.mean(np.sum(x0 * np.asarray(x1), axis=1)) > 6, "aligned"
    assert np.abs(x0.mean(axis=0)).max() < SIGMAS / np.sqrt(num)
    assert np.abs(x0.T @ x0 / num - np.eye(6)).max() < SIGMAS * np.sqrt(2 / num)
    assert np.abs((x0**4).mean(axis=0) - 3).max() < SIGMAS * np.sqrt(96 / num)


def test_states_that_are_not_finite_are_left_alone():
    path = stationary_path((6,), scale=1.0)
    x1 = jnp.ones((3, 6)).at[1, 2].set(jnp.nan)
    x0 = aligned_coupling(path, 4)(jax.random.key(1), x1)
    free = jax.vmap(path.sample_prior)(jax.random.split(jax.random.key(1), 3))
    np.testing.assert_array_equal(x0[1], free[1])
    assert np.all(np.isfinite(x0))
    assert not np.allclose(x0[0], free[0])


@pytest.mark.parametrize("path", [stationary_path((7,)), stationary_path((3, 2)), MaskedPath(Linear(), 6, 2)])
def test_aligned_refuses(path):
    with pytest.raises(ValueError, match=r"^num_particles: "):
        aligned_coupling(path, 4)


def chains(num_chains=64, num_trajectories=10, step_size=0.1, capacity=None, mesh=None):
    target, path = DW4(), stationary_path((6,), scale=2.1)
    buffer = replay_buffer(4 * num_chains if capacity is None else capacity, weighted=False)
    source = chain_source(
        path,
        buffer,
        psi_from_energy(target.energy, path),
        hamiltonian_chain(lambda x: -target.energy(x), step_size=step_size),
        num_chains=num_chains,
        num_trajectories=num_trajectories,
    )
    return target, source, jax.jit(lambda key, state: source.renew(key, state, None, jnp.ones(())))


@pytest.mark.slow
def test_chains_follow_the_energy_and_go_on():
    target, source, renew = chains()
    state, energies = source.init(), []
    for n in range(24):
        state, metrics = renew(jax.random.fold_in(jax.random.key(2), n), state)
        energies.append(float(metrics["mean_energy"]))
        assert 0.6 < metrics["acceptance"] < 1
    error = target.energy_std / np.sqrt(64 * 24 / 3)  # successive states of a chain have something in common
    assert abs(np.mean(energies) - target.mean_energy) < SIGMAS * error
    drawn = source.draw(jax.random.key(3), state, 256, jnp.ones(()))
    assert {tuple(row) for row in np.asarray(drawn)} == {tuple(row) for row in np.asarray(state.x)}


def test_chains_start_once():
    """With steps of almost no length states stay where the one before left them, and the oldest are overwritten."""
    _, source, renew = chains(num_chains=8, num_trajectories=1, step_size=1e-6, capacity=24)
    state = source.init()
    for n in range(4):
        state, _ = renew(jax.random.key(n), state)
    rows = np.asarray(state.x).reshape(3, 8, 6)
    assert int(state.position) == 8
    assert np.ptp(rows, axis=0).max() < 1e-3
    assert np.ptp(rows[0], axis=0).min() > 0.1


def test_chains_refuse():
    with pytest.raises(ValueError, match=r"^num_chains: 8 do not fit into a buffer of capacity 4$"):
        chains(num_chains=8, capacity=4)[1].init()
    for name in ("num_chains", "num_trajectories"):
        with pytest.raises(ValueError, match=f"^{name}: at least 1, got 0$"):
            chains(**{name: 0, "capacity": 4})
    with pytest.raises(ValueError, match=r"^step_size: "):
        hamiltonian_chain(lambda x: -jnp.sum(x**2), step_size=0.0)
    with pytest.raises(ValueError, match=r"^num_leapfrog: "):
        hamiltonian_chain(lambda x: -jnp.sum(x**2), step_size=0.1, num_leapfrog=0)


def test_gradients_of_chains_are_counted():
    """A callback for each, start and trajectories apart."""
    seen = []

    def log_density(x):
        @jax.custom_jvp
        def counted(x):
            return -0.5 * jnp.sum(x**2)

        @counted.defjvp
        def _(primals, tangents):
            jax.debug.callback(lambda: seen.append(1))
            return counted(*primals), -jnp.sum(primals[0] * tangents[0])

        return counted(x)

    chain = hamiltonian_chain(log_density, step_size=0.1, num_leapfrog=3)
    jax.block_until_ready(jax.jit(lambda k, x: chain.advance(k, x, 7))(jax.random.key(0), jnp.ones(2)))
    jax.effects_barrier()
    assert 7 * chain.num_advance - 7 <= len(seen) <= 7 * chain.num_advance + 1
