"""Log-variance along flows and diffusions between Gaussians, where all is linear and known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.estimators import psi_from_energy
from egmjax.networks import ResidualMLP
from egmjax.paths import stationary_path
from egmjax.processes import DiffusionProcess, FlowProcess
from egmjax.simulators import grid_sampler, time_grid
from egmjax.training import Context, log_variance_objective

PATH = stationary_path((1,))
NUM_STEPS = 3
ANGLE = PATH.angle(jnp.asarray(time_grid(NUM_STEPS)))
COS, SIN = np.asarray(ANGLE.cos, np.float64), np.asarray(ANGLE.sin, np.float64)
MEAN, STD = 0.7, 0.6  # of the target
SHIFT = 0.4  # of the sampler


def predict(params, x, t):
    """The residual is affine in the state, with numbers of its own at each step: `params [NUM_STEPS, 2]`."""
    slope = params[jnp.clip(jnp.round(t * NUM_STEPS).astype(int), 0, NUM_STEPS - 1)]
    return slope[0] + slope[1] * x


def objective_of(process, predict, mean, std, **settings):
    psi_fn = psi_from_energy(lambda x: 0.5 * jnp.sum(((x - mean) / std) ** 2), process.path)
    sampler = grid_sampler(process, time_grid(NUM_STEPS))
    return sampler, log_variance_objective(sampler, predict, psi_fn, **settings)


def examples_of(objective, x1):
    context = Context(None, jnp.ones(()), jnp.int32(0))
    return objective.examples(jax.random.key(1), context, x1, jnp.zeros(len(x1)))[0]


def shifted():
    """Parameters of the exact sampler of `N(SHIFT, 1)`: its residual is the shift, in units of the belief."""
    return jnp.stack([SHIFT * jnp.asarray(COS[:-1]), jnp.zeros(NUM_STEPS)], axis=1).astype(float)


def divergence_of_diffusion(params):
    """KL of the chain from the backward chain of the target: linear maps and Gaussian noise."""
    total, mean, var = 0.0, 0.0, 1.0
    for n in range(NUM_STEPS):
        noising = SIN[n] / SIN[n + 1]  # z_t = noising z_s + noise, with the path's own noise
        left = 1.0 - noising**2
        # mean of z_s between z_t and an endpoint, by precisions; at the last step it is the endpoint
        far = COS[n + 1] ** 2
        gain = COS[n] * SIN[n + 1] * left / (noising**2 * far + left)
        slope, shift = noising + gain * params[n, 1], gain * params[n, 0]
        later_mean, later_var = slope * mean + shift, slope**2 * var + left
        # E log k - E log b, both of variance `left`; z_t - noising z_s is Gaussian
        back_mean = mean - noising * later_mean
        back_var = (1.0 - noising * slope) ** 2 * var + noising**2 * left
        total += 0.5 * (back_mean**2 + back_var) / left - 0.5
        mean, var = later_mean, later_var
    return total + 0.5 * ((mean - MEAN) ** 2 + var) / STD**2


def divergence_of_flow(params):
    """KL of the Gaussian that a chain of Euler steps makes of the prior."""
    theta = np.asarray(ANGLE.theta, np.float64)
    mean, std = 0.0, 1.0
    for n in range(NUM_STEPS):
        turn = theta[n + 1] - theta[n]
        mean, std = mean + turn * (params[n, 0] + params[n, 1] * mean), std * (1.0 + turn * params[n, 1])
    return -np.log(std) + 0.5 * ((mean - MEAN) ** 2 + std**2) / STD**2


def central_differences(fn, params, step=1e-4):
    found = np.zeros_like(params)
    for place in np.ndindex(params.shape):
        moved = np.zeros_like(params)
        moved[place] = step
        found[place] = (fn(params + moved) - fn(params - moved)) / (2 * step)
    return found


CASES = {
    "flow": (FlowProcess(PATH, stepper="euler"), divergence_of_flow),
    "diffusion": (DiffusionProcess(PATH), divergence_of_diffusion),
}


@pytest.mark.parametrize("kind", CASES)
def test_log_variance_of_own_samples_is_the_reverse_divergence(kind):
    """Its gradient in every parameter, where the backward chain from own samples retraces own paths."""
    process, divergence = CASES[kind]
    num_groups, size = 20, 2000
    sampler, objective = objective_of(process, predict, MEAN, STD, num_groups=num_groups)
    params = shifted()
    if kind == "flow":  # whose inverse is its path: any parameters will do
        params = params.at[:, 1].set(jnp.asarray([0.2, -0.3, 0.1]))

    @jax.jit
    def gradients(params, key):
        keys = jax.random.split(key, num_groups * size)
        x1 = jax.vmap(lambda k: sampler.sample(k, lambda x, t: predict(params, x, t)).x)(keys)
        return jax.vmap(lambda e: jax.grad(objective.loss)(params, e))(examples_of(objective, x1))

    found = np.asarray(gradients(params, jax.random.key(3)), np.float64)
    error = found.std(axis=0, ddof=1) / np.sqrt(num_groups)
    want = central_differences(divergence, np.asarray(params, np.float64))
    assert np.abs(want).max() > 20 * error.max()
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - want), 5 * error)


@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
def test_exact_diffusions_have_no_variance(noise):
    """A shifted reference needs the same residual at all states, and is then exact in steps of any length."""
    process = DiffusionProcess(PATH, noise)
    _, objective = objective_of(process, predict, SHIFT, 1.0)
    x1 = 2.0 * jax.random.normal(jax.random.key(0), (64, 1))
    value = jax.jit(lambda p: jnp.mean(jax.vmap(lambda e: objective.loss(p, e))(examples_of(objective, x1))))
    assert value(shifted()) < 1e-9
    assert value(0.5 * shifted()) > 1e-3


def test_memory_does_not_hold_the_network_of_every_step():
    """What the gradient keeps of a step is its state; a network of width 64 would leave hundreds of numbers."""
    num_steps = 20
    process = DiffusionProcess(PATH)
    network = ResidualMLP(PATH.space, (1,), width=64, depth=1)
    sampler = grid_sampler(process, time_grid(num_steps))
    params = network.init(jax.random.key(0), jnp.zeros(1), jnp.zeros(()))

    def log_weight(params):
        return sampler.log_weight(jax.random.key(0), lambda x, t: network.apply(params, x, t), jnp.ones(1))

    kept = jax.eval_shape(lambda p: jax.vjp(log_weight, p)[1], params)
    sizes = [a.size for a in jax.tree.leaves(kept) if a.shape[:1] == (num_steps,)]
    assert 0 < sum(sizes) < 20 * num_steps
