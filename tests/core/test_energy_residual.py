"""What the gradient of an energy says of a residual: exact for a single mode, Tweedie's formula near `t=1`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.estimators import psi_from_energy
from egmjax.paths import GaussianPath, VariancePreserving, stationary_path
from egmjax.processes import DiffusionProcess, energy_residual
from egmjax.simulators import grid_sampler, time_grid

MEAN, WIDTH, LOG_Z = np.array([2.1, -0.7]), np.array([0.05, 0.4]), 1.3


def mode(x):
    """A Gaussian of mass `exp(LOG_Z)`."""
    return 0.5 * jnp.sum(jnp.square((x - MEAN) / WIDTH) + jnp.log(2 * jnp.pi * WIDTH**2)) - LOG_Z


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_a_single_mode_is_sampled_exactly(noise, x64):
    """With `detail` in residual and kernels every weight is `Z`, in three steps, at any noise."""
    path = stationary_path((2,), scale=1.5)
    detail = jnp.asarray(WIDTH / 1.5)
    psi_fn = psi_from_energy(mode, path)
    sampler = grid_sampler(DiffusionProcess(path, noise, detail), time_grid(3))
    predict_fn = energy_residual(path, psi_fn, detail=detail)
    rollout = jax.vmap(lambda k: sampler.sample(k, predict_fn))(jax.random.split(jax.random.key(0), 500))
    log_weight = rollout.log_weight + jax.vmap(lambda x: psi_fn(x, 1.0))(rollout.x)
    np.testing.assert_allclose(log_weight, LOG_Z, atol=1e-7)
    assert np.all(np.abs(np.mean(rollout.x, axis=0) - MEAN) < 4 * WIDTH / np.sqrt(500))
    assert np.all(np.abs(np.std(rollout.x, axis=0) / WIDTH - 1) < 4 / np.sqrt(1000))


def test_near_the_end_it_is_tweedies_formula(x64):
    """For an energy of no particular form: `eta / c` tends to the gradient of `psi` at the endpoint."""
    path = GaussianPath(VariancePreserving(), mean=0.2, scale=1.4, shape=(2,))
    psi_fn = psi_from_energy(lambda x: jnp.sum(x**4) - jnp.sin(3 * x[0]) * x[1], path)
    x, t = jnp.array([0.4, -0.3]), 1.0 - 1e-6
    gradient = jax.grad(lambda y: psi_fn(y, 1.0))(x)
    scale = path.endpoint_belief(x, t).scale
    for detail in (1.0, 0.2):
        found = energy_residual(path, psi_fn, detail=detail)(x, t) / scale
        np.testing.assert_allclose(found, gradient, rtol=1e-3)


def test_what_is_not_finite_says_nothing():
    path = stationary_path((2,))
    psi_fn = psi_from_energy(lambda x: jnp.where(x[0] > 0, jnp.nan, 1.0) * jnp.sum(x**2), path)
    residual = energy_residual(path, psi_fn)
    assert np.all(np.isfinite(residual(jnp.array([1.0, 1.0]), 0.5)))
    assert np.any(residual(jnp.array([-1.0, 1.0]), 0.5))
