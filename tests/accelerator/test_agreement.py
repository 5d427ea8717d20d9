"""What weights are made of agrees between an accelerator and the CPU; networks agree to what they are rounded to.

Where jax has no accelerator these tests take the CPU for one that rounds as a TPU does: the operands of float32
products to bfloat16, unless a product asks for more. Tolerances are those of float32 arithmetic; the last test shows
that they see the rounding of a single product.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.estimators import psi_from_energy
from egmjax.networks import CausalTransformer, ResidualMLP
from egmjax.paths import MaskedPath, Ordered
from egmjax.processes import DiffusionProcess, FlowProcess, MaskedProcess, sitewise
from egmjax.proposals import reference_posterior
from egmjax.simulators import grid_sampler, ordered_sampler, time_grid
from egmjax.states import Real
from egmjax.training import log_variance_objective
from tests.core.products import as_on_an_accelerator
from tests.core.registry import PROCESSES, SAMPLERS, endpoint, gaussian_path, run_snis
from tests.core.test_precision import TARGETS, without_products
from tests.networks.checks import randomize

pytestmark = [pytest.mark.accelerator, pytest.mark.slow]
KEY = jax.random.key(0)
TOLERANCE = 2e-5  # of the largest number of an array


def on_both(fn, *args):
    """`fn(*args)` by the CPU, and by the accelerator or what stands for one."""
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        here = jax.device_get(jax.jit(fn)(*jax.device_put(args, cpu)))
    if jax.default_backend() == "cpu":
        there = jax.jit(as_on_an_accelerator(fn))(*args)
    else:
        there = jax.jit(fn)(*jax.device_put(args, jax.devices()[0]))
    return here, jax.device_get(there)


def distance(fn, *args):
    """The largest difference, as a share of the largest number of its array."""
    here, there = on_both(fn, *args)
    assert jax.tree.structure(here) == jax.tree.structure(there)
    return max(
        float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(a))))
        for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there))
        if np.issubdtype(a.dtype, np.floating)
    )


def network_of(process, **options):
    """A small network of large parameters, and its predictions."""
    net = ResidualMLP(process.path.space, process.prediction_shape(), 16, 2, **options)
    x = endpoint(process.path.space)
    params = randomize(jax.eval_shape(net.init, KEY, x, jnp.zeros(())), scale=0.3)
    return net, params


@pytest.mark.parametrize("name", TARGETS)
def test_energies(name):
    target = TARGETS[name]()
    x = endpoint(target.space)
    assert distance(target.energy, x) < TOLERANCE


@pytest.mark.parametrize(
    "name", ["grid_product", "grid_diffusion", "grid_gaussian_jump", "grid_rates_coupling"]
)
def test_log_weights_of_given_states(name):
    process, sampler = SAMPLERS[name]()
    predict, x1 = without_products(process), endpoint(process.path.space)
    assert distance(lambda key, x: sampler.log_weight(key, predict, x), KEY, x1) < 10 * TOLERANCE


def test_flows_with_their_network():
    """Roll-out, log-determinant and inverse."""
    process = FlowProcess(gaussian_path("condot", (3,)))
    sampler = grid_sampler(process, time_grid(4))
    net, params = network_of(process)
    predict = lambda p: lambda x, t: net.apply(p, x, t)  # noqa: E731
    assert distance(lambda key, p: sampler.sample(key, predict(p))[:2], KEY, params) < 10 * TOLERANCE
    x1 = jnp.array([0.3, -0.8, 1.1])
    assert distance(lambda key, p: sampler.log_weight(key, predict(p), x1), KEY, params) < 10 * TOLERANCE


def test_densities_of_a_fixed_order():
    """And a roll-out's weight is the density of its state, by the other program."""
    path = MaskedPath(Ordered.from_rank(np.arange(9)), sites=9)
    net = CausalTransformer(np.arange(9), width=8, depth=2)
    x = jnp.asarray(np.arange(9) % 2, jnp.int32)
    params = randomize(jax.eval_shape(net.init, KEY, x), scale=0.3)
    bound, sampler = sitewise(path, net.apply, net.decode).bind, ordered_sampler(MaskedProcess(path))
    assert distance(lambda p: sampler.log_weight(KEY, bound(p), x), params) < TOLERANCE

    def both_programs(key, p):
        rollout = sampler.sample(key, bound(p))
        return rollout.log_weight - sampler.log_weight(key, bound(p), rollout.x)

    here, there = on_both(
        lambda p: jax.vmap(lambda k: both_programs(k, p))(jax.random.split(KEY, 32)), params
    )
    assert np.abs(here).max() < 1e-5
    assert np.abs(there).max() < 1e-5


@pytest.mark.parametrize("name", ["masked_rate", "diffusion", "product"])
def test_estimates(name):
    process = PROCESSES[name]()
    proposal = reference_posterior(process.path)
    xt = jax.jit(lambda x: process.path.sample(KEY, x, 0.5))(endpoint(process.path.space))
    estimate = lambda key, xt: run_snis(key, xt, 0.5, 1.0, process, proposal)  # noqa: E731
    assert distance(estimate, KEY, xt) < 10 * TOLERANCE


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_a_gradient_through_a_network_at_the_default(dtype):
    """Training pays for no precision: it agrees to some bits of bfloat16, and no more."""
    process = DiffusionProcess(gaussian_path("condot", (3,)))
    sampler = grid_sampler(process, time_grid(4))
    net, params = network_of(process, dtype=dtype)
    psi = psi_from_energy(lambda x: jnp.sum(x**4), process.path)
    objective = log_variance_objective(sampler, net.apply, psi)
    x1 = jax.random.normal(KEY, (8, 3))

    def loss(p):
        keys = jax.random.split(KEY, 8)
        return objective.loss(p, (keys, x1, jax.vmap(lambda x: psi(x, 1.0))(x1)))

    there = distance(lambda p: (loss(p), jax.grad(loss)(p)), params)
    assert there < 0.1
    assert dtype is not None or jax.default_backend() == "gpu" or there > 1e-4


@pytest.mark.skipif(
    jax.default_backend() == "gpu", reason="whether a GPU rounds by default depends on the GPU"
)
def test_one_product_at_the_default_is_seen():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), float)
    energy = lambda x: x @ matrix @ x  # noqa: E731
    x = endpoint(Real((4,)))
    assert distance(energy, x) > 10 * TOLERANCE
    assert distance(psi_from_energy(energy, gaussian_path("condot", (4,))), x) < TOLERANCE
