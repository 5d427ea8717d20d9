"""What weights are made of is at the highest precision of products, which accelerators do not have by default.

Read off the traces, so that a machine without an accelerator can tell.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax import ebm
from egmjax.estimators import psi_from_energy
from egmjax.networks import CausalTransformer, MaskedMLP, OrderAgnosticMLPs, OrderedMLPs, ResidualMLP
from egmjax.paths import MaskedPath, Ordered
from egmjax.processes import MaskedProcess, rowwise, sitewise
from egmjax.proposals import reference_posterior
from egmjax.simulators import (
    first_hitting_sampler,
    flow_ode,
    grid_sampler,
    ordered_sampler,
    symmetrized,
    time_grid,
)
from egmjax.states import Real
from egmjax.targets import (
    DW4,
    LJ13,
    Funnel,
    GaussianBernoulliRBM,
    GaussianMixture,
    Ising,
    JointDW4,
    JointMoG,
    ManyWell,
    Potts,
    SpinGlass,
    from_energy,
    from_log_density,
    integrated,
    summed,
)
from tests.core.products import is_highest, products
from tests.core.registry import PROCESSES, PROPOSALS, SAMPLERS, endpoint, garbage, gaussian_path, run_snis
from tests.networks.checks import randomize

KEY = jax.random.key(0)
MATRIX = np.array([[2.0, 0.3], [0.3, 1.0]])
TARGETS = {
    "ising": lambda: Ising(3, 0.4),
    "potts": lambda: Potts(3, 3, 0.8),
    "spin_glass": lambda: SpinGlass.plus_minus(4, 0.8, seed=0),
    "mixture": GaussianMixture.gmm25,
    "funnel": lambda: Funnel(4),
    "many_well": lambda: ManyWell(2),
    "dw4": DW4,
    "lj13": lambda: LJ13(1.0),
    "gb_rbm": GaussianBernoulliRBM.six_modes,
    "joint_mog": JointMoG,
    "joint_dw4": JointDW4,
    "integrated": lambda: integrated(ManyWell(2)),
    "summed": lambda: summed(GaussianBernoulliRBM.six_modes()),
    "user_energy": lambda: from_energy(lambda x: 0.5 * x @ MATRIX @ x, Real((2,))),
    "user_log_density": lambda: from_log_density(lambda x: -0.5 * x @ MATRIX @ x, jnp.zeros(2)),
}
HAVE_PRODUCTS = {
    "dw4",
    "lj13",
    "gb_rbm",
    "joint_dw4",
    "summed",
    "user_energy",
    "user_log_density",
}


def check(fn, *args, some=False):
    """All products of `fn(*args)` are at the highest precision, and there are some if so said."""
    found = products(fn, *args)
    wrong = [eqn for eqn in found if not is_highest(eqn)]
    assert not wrong, wrong[0].source_info.traceback
    assert found or not some


def without_products(process):
    """A prediction whose own arithmetic is not in the trace of the products."""

    def predict(xt, t):
        features = sum(jnp.sum(jnp.sin(leaf.astype(float))) for leaf in jax.tree.leaves(xt))

        def output(shape):
            if shape and isinstance(shape[0], tuple):
                return tuple(map(output, shape))
            return jnp.sin(features + t + jnp.arange(np.prod(shape, dtype=int)).reshape(shape))

        return output(process.prediction_shape())

    return predict


def test_the_check_can_fail():
    with pytest.raises(AssertionError):
        check(lambda x: jax.lax.scan(lambda a, _: (MATRIX @ a, None), x, length=2), jnp.ones(2))
    with pytest.raises(AssertionError):
        check(lambda x: x + 1.0, jnp.ones(2), some=True)


@pytest.mark.parametrize("name", TARGETS)
def test_energies_and_their_gradients(name):
    target = TARGETS[name]()
    x = endpoint(target.space)
    check(target.energy, x, some=name in HAVE_PRODUCTS)
    if jax.tree.structure(x) == jax.tree.structure(0) and x.dtype == float:
        check(jax.grad(target.energy), x)
    if hasattr(target, "complete"):
        check(target.complete, KEY, x)


def test_psi_of_any_energy():
    psi = psi_from_energy(lambda x: x @ MATRIX @ x, gaussian_path("condot"))
    check(jax.grad(psi), jnp.ones(2), some=True)


@pytest.mark.parametrize("name", SAMPLERS)
def test_roll_outs_and_log_weights_beside_the_network(name):
    process, sampler = SAMPLERS[name]()
    predict, x1 = without_products(process), endpoint(process.path.space)
    check(lambda key: sampler.sample(key, predict), KEY)
    check(lambda key, x: sampler.log_weight(key, predict, x), KEY, x1)


@pytest.mark.parametrize("name", PROPOSALS)
def test_estimates(name, monkeypatch):
    monkeypatch.setattr("tests.core.registry.garbage", without_products)
    build, process_name = PROPOSALS[name]
    process = PROCESSES[process_name]()
    xt = process.path.sample(KEY, endpoint(process.path.space), 0.5)
    check(lambda key: run_snis(key, xt, 0.5, 1.0, process, build(process)), KEY)


@pytest.mark.parametrize("name", ["flow_heun", "flow_euler"])
def test_flows_with_their_network(name):
    """Map, determinant, inverse and the solution of the ODE."""
    process = PROCESSES[name]()
    sampler, predict, x1 = grid_sampler(process, time_grid(3)), garbage(process), endpoint(process.path.space)
    check(lambda key: sampler.sample(key, predict), KEY, some=True)
    check(lambda key, x: sampler.log_weight(key, predict, x), KEY, x1, some=True)
    solver = flow_ode(process, times=np.linspace(0, 1, 4))
    check(lambda key, x: solver.log_prob(key, predict, x), KEY, x1, some=True)


@pytest.mark.parametrize("kind", [OrderedMLPs, MaskedMLP, CausalTransformer])
def test_fixed_orders_with_their_network(kind):
    """Roll-outs and densities, those averaged over permutations too."""
    path = MaskedPath(Ordered.from_rank(np.arange(6)), sites=6)
    network = kind(np.arange(6), width=4, depth=2)
    params = randomize(jax.eval_shape(network.init, KEY, jnp.zeros(6, jnp.int32)))
    predict = sitewise(path, network.apply, network.decode).bind(params)
    sampler = ordered_sampler(MaskedProcess(path))
    averaged = symmetrized(sampler, [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]])
    for one in (sampler, averaged):
        check(lambda key, s=one: s.sample(key, predict), KEY, some=True)
        check(lambda key, x, s=one: s.log_weight(key, predict, x), KEY, jnp.zeros(6, jnp.int32), some=True)


def test_any_order_by_rows():
    """A row drawn and a row weighed are two programs here too."""
    network = OrderAgnosticMLPs(6, width=4, depth=2)
    params = randomize(jax.eval_shape(network.init, KEY, jnp.zeros(6, jnp.int32)))
    predict = rowwise(
        network.apply,
        lambda p, x, i: network.apply(p, x, i, method="row"),
        lambda p, contexts: network.apply(p, contexts, method="each"),
    ).bind(params)
    sampler = first_hitting_sampler(MaskedProcess(MaskedPath(sites=6)), sites_per_step=2)
    check(lambda key: sampler.sample(key, predict), KEY, some=True)
    check(lambda key, x: sampler.log_weight(key, predict, x), KEY, jnp.zeros(6, jnp.int32), some=True)


def test_exact_chains_with_their_network():
    """The path of a proposed state is weighed by one program and that of the state held by another."""
    process = PROCESSES["masked_rate"]()
    network = ResidualMLP(process.path.space, process.prediction_shape(), 4, 1)
    x = endpoint(process.path.space)
    params = randomize(jax.eval_shape(network.init, KEY, x, jnp.zeros(())))
    predict = lambda xt, t: network.apply(params, xt, t)  # noqa: E731
    proposal = ebm.rollout_proposal(first_hitting_sampler(process), process.path, predict)
    check(proposal.sample, KEY, some=True)
    check(proposal.log_ratio, KEY, x, some=True)


def test_normalising_flows():
    pytest.importorskip("distrax")
    flow = ebm.real_nvp(np.zeros(3), np.ones(3), num_layers=2, width=4)
    params = jax.eval_shape(flow.init, KEY)
    check(flow.sample_and_log_prob, params, KEY, some=True)
    check(flow.log_prob, params, jnp.zeros(3), some=True)


def test_a_network_alone_is_at_the_default():
    """Where nothing depends on it precision is not paid for: a diffusion's roll-outs, and the loss of any process."""
    process = PROCESSES["flow_heun"]()
    predict = garbage(process)

    def loss(x):
        return process.divergence(jnp.zeros(2), predict(x, 0.5), x, 0.5)

    assert not any(map(is_highest, products(loss, jnp.ones(2))))
    diffusion = PROCESSES["diffusion"]()
    sampler = grid_sampler(diffusion, time_grid(2))
    found = products(lambda key: sampler.sample(key, garbage(diffusion)), KEY)
    assert found
    assert not any(map(is_highest, found))


def test_reference_proposals_have_no_products():
    """So nothing of them can be rounded."""
    path = PROCESSES["product"]().path
    xt = path.sample(KEY, endpoint(path.space), 0.5)
    assert not products(lambda key: reference_posterior(path).propose(key, xt, 0.5, 1.0, 3), KEY)
