"""Small trainers, one for each kind of process, and the checks that tests of training share."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from egmjax import ebm
from egmjax.estimators import psi_from_energy
from egmjax.mcmc import hamiltonian_chain
from egmjax.networks import LatticeNet, ResidualMLP, VectorNet
from egmjax.paths import Linear, MaskedPath, stationary_path
from egmjax.processes import FlowProcess, MaskedProcess, ProductProcess
from egmjax.proposals import defensive_mixture, reference_posterior
from egmjax.simulators import first_hitting_sampler, grid_sampler, time_grid
from egmjax.states import Real
from egmjax.targets import DW4, GaussianBernoulliRBM, GaussianMixture, Ising
from egmjax.training import (
    aligned_coupling,
    chain_source,
    data_source,
    linear_temper,
    make_trainer,
    replay_buffer,
    rollout_source,
    snis_objective,
    weighted_objective,
)

KINDS = ("masked", "flow", "product")


class Case(NamedTuple):
    """A trainer with everything it was made of. `init(seed)` is its state at iteration 0."""

    trainer: object
    init: object
    process: object
    sampler: object
    psi_fn: object
    apply_fn: object


def target_of(kind):
    return {
        "masked": lambda: Ising(length=3, beta=0.2),
        "flow": GaussianMixture.three_modes,
        "product": GaussianBernoulliRBM.six_modes,
    }[kind]()


def parts(kind, *, width=8, num_steps=6, scale=3.0):
    """Process, sampler and network."""
    if kind == "masked":
        process = MaskedProcess(MaskedPath(Linear(), sites=9, num_states=2))
        return process, first_hitting_sampler(process), LatticeNet(3, width=width, odd=True)
    flow = FlowProcess(stationary_path((2,), scale=scale))
    process = flow
    if kind == "product":
        process = ProductProcess((flow, MaskedProcess(MaskedPath(Linear(), sites=3, num_states=2))))
    network = ResidualMLP(process.path.space, process.prediction_shape(), width=width, depth=1, scale=scale)
    return process, grid_sampler(process, time_grid(num_steps)), network


def small(kind):
    """Two steps of the sampler: for tests of what does not depend on it."""
    return parts(kind, num_steps=2)


def make(
    kind,
    *,
    energy_fn=None,
    objective=None,
    num_rollouts=32,
    batch_size=16,
    updates=2,
    capacity=64,
    num_proposals=8,
    learning_rate=2e-3,
    build=parts,
    weight_fn=jnp.ones_like,
    refresh=None,
    mesh=None,
    data=None,
    **kwargs,
):
    """A trainer of `kind`; the objective defaults to weighted for spins and to snis elsewhere.

    `data`, states of the process, take the place of roll-outs.
    """
    process, sampler, network = build(kind)
    energy_fn = energy_fn or target_of(kind).energy
    psi_fn = psi_from_energy(energy_fn, process.path)
    objective = objective or ("weighted" if kind == "masked" else "snis")
    chosen = (
        weighted_objective(process, network.apply, weight_fn=weight_fn)
        if objective == "weighted"
        else snis_objective(
            process,
            network.apply,
            reference_posterior(process.path),
            psi_fn,
            num_proposals=num_proposals,
            chunk_size=64,
            weight_fn=weight_fn,
            mesh=mesh,
        )
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))
    source = rollout_source(
        process,
        sampler,
        replay_buffer(capacity, weighted=chosen.weighted),
        psi_fn,
        network.apply,
        num_rollouts=num_rollouts,
        refresh=refresh,
        mesh=mesh,
    )
    if data is not None:
        source = data_source(data, process.path.space)
    trainer = make_trainer(
        source,
        chosen,
        optimizer,
        batch_size=batch_size,
        updates_per_iteration=updates,
        mesh=mesh,
        **{"temper_fn": linear_temper(0.5, 4), **kwargs},
    )

    jitted_init = jax.jit(network.init)

    def init(seed=0):
        key_network, key_train = jax.random.split(jax.random.key(seed))
        params = jitted_init(key_network, process.path.sample_prior(key_network), jnp.zeros(()))
        return trainer.init(key_train, params)

    return Case(trainer, init, process, sampler, psi_fn, network.apply)


def make_cluster(mesh=None, num_chains=32):
    """Particles that learn from chains of their energy, along noise aligned with them."""
    target, process = DW4(), FlowProcess(stationary_path((6,), scale=2.1))
    psi_fn = psi_from_energy(target.energy, process.path)
    network = VectorNet(process.path.space, (6,), 4, width=8, depth=1, scale=2.1, num_radial=8)
    source = chain_source(
        process.path,
        replay_buffer(2 * num_chains, weighted=False),
        psi_fn,
        hamiltonian_chain(lambda x: -target.energy(x), step_size=0.1, num_leapfrog=4),
        num_chains=num_chains,
        num_trajectories=2,
        mesh=mesh,
    )
    objective = weighted_objective(process, network.apply, coupling=aligned_coupling(process.path, 4))
    trainer = make_trainer(
        source, objective, optax.contrib.muon(2e-3), batch_size=16, updates_per_iteration=2, mesh=mesh
    )

    def init():
        params = network.init(jax.random.key(1), jnp.ones(6), jnp.zeros(()))
        return trainer.init(jax.random.key(0), params)

    return trainer, init


def make_likelihood(mesh=None):
    """An energy on R^2 by maximum likelihood, its chains moved by a flow that is fitted to them."""
    space, zero = Real((2,)), jnp.zeros(())
    side = np.random.default_rng(0).integers(0, 2, (200, 1)) * 4.0 - 2.0
    data = side + np.random.default_rng(1).normal(size=(200, 2)) * [1.0, 0.5]
    mean, scale = ebm.moments(data)
    base, flow = ebm.gaussian_flow(mean, scale), ebm.real_nvp(mean, scale, num_layers=2, width=8)
    network = ResidualMLP(space, (), width=8, depth=1, use_time=False)
    model = ebm.tilted_energy(lambda p, z: network.apply(p, z, zero), base, units=(mean, scale))

    def proposal(params):
        densities = ebm.flow_density(flow, params["sampler"]), ebm.flow_density(base, ())
        return defensive_mixture(densities, (0.9, 0.1))

    negatives = ebm.chain_negatives(
        lambda params, x: model.log_density(params["energy"], x),
        lambda params, key: base.sample((), key),
        step_size=0.05,
        num_chains=32,
        num_local=2,
        proposal_fn=proposal,
        global_move=lambda density: ebm.i_sir(density, 4),
    )
    trainer = ebm.likelihood_trainer(
        model.energy,
        data_source(data, space),
        negatives,
        optax.multi_transform(
            {"energy": optax.adam(2e-3), "sampler": optax.adam(2e-3)}, lambda params: {n: n for n in params}
        ),
        sampler_loss_fn=ebm.flow_loss(flow),
        data_share=0.25,
        batch_size=16,
        updates_per_iteration=2,
        mesh=mesh,
    )

    def init(seed=0):
        key_energy, key_flow, key_train = jax.random.split(jax.random.key(seed), 3)
        energy = jax.jit(network.init)(key_energy, jnp.zeros(2), zero)
        return trainer.init(key_train, {"energy": energy, "sampler": flow.init(key_flow)})

    return trainer, init


@functools.cache
def shared(kind):
    """The trainer of `kind` with all defaults and its compiled step; many tests look at the same one."""
    case = make(kind)
    return case, jax.jit(case.trainer.step)


def roll_out(case, params, key, num):
    """States and log-weights `[num]` of the model with these parameters."""

    @jax.jit
    def run(params):
        out = jax.vmap(lambda k: case.sampler.sample(k, lambda x, t: case.apply_fn(params, x, t)))(
            jax.random.split(key, num)
        )
        return out.x, out.log_weight + jax.vmap(lambda x: case.psi_fn(x, 1.0))(out.x)

    x, log_weight = run(params)
    return x, np.asarray(log_weight, np.float64)


def ess_and_log_z(log_weight):
    """ESS fraction, log Z and its standard error by the delta method, in float64."""
    w = np.exp(log_weight - log_weight.max())
    ess = w.sum() ** 2 / (len(w) * (w**2).sum())
    return ess, float(np.log(w.mean()) + log_weight.max()), float(np.sqrt((1 / ess - 1) / len(w)))


def as_data(leaf):
    """An array of numbers, for typed keys as well."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(as_data(x), as_data(y))


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.all(np.isfinite(as_data(leaf)))
