"""From options to composed functions: target, process, sampler, network, trainer."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from egmjax.estimators import PsiFn, psi_from_energy
from egmjax.networks import LatticeNet, ResidualMLP
from egmjax.paths import Linear, MaskedPath, Ordered, stationary_path
from egmjax.processes import FlowProcess, MaskedProcess, Process, ProductProcess
from egmjax.proposals import reference_posterior
from egmjax.simulators import Sampler, first_hitting_sampler, grid_sampler, time_grid
from egmjax.targets import GaussianBernoulliRBM, GaussianMixture, Ising, Target
from egmjax.training import (
    ApplyFn,
    Objective,
    Trainer,
    linear_temper,
    make_trainer,
    replay_buffer,
    snis_objective,
    weighted_objective,
)

from .options import FlowOptions, IsingOptions, Options


class Setup(NamedTuple):
    """A run's functions. `energies_per_iteration` counts evaluations of the target's energy."""

    target: Target
    process: Process
    sampler: Sampler
    network: Any
    psi_fn: PsiFn
    trainer: Trainer
    energies_per_iteration: int

    def predictor(self, params: Any) -> Any:
        """`predict_fn(xt, t)` of the network with these parameters."""
        return lambda x, t: self.network.apply(params, x, t)

    def init(self, seed: int) -> Any:
        """The training state at iteration 0."""
        key_network, key_train = jax.random.split(jax.random.key(seed))
        x0 = self.process.path.sample_prior(key_network)
        params = self.network.init(key_network, x0, jnp.zeros(()))
        return self.trainer.init(key_train, params)


def build(name: str, options: Options) -> Setup:
    """Composes the run of target `name`."""
    target, process, sampler, network = _parts(name, options)
    psi_fn = psi_from_energy(target.energy, process.path)
    objective = _objective(options, process, network.apply, psi_fn)
    num_updates = options.iterations * options.updates_per_iteration
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.adam(optax.cosine_decay_schedule(options.learning_rate, num_updates, 0.02)),
    )
    trainer = make_trainer(
        process,
        sampler,
        objective,
        replay_buffer(options.buffer_rollouts * options.num_rollouts, weighted=objective.weighted),
        psi_fn,
        network.apply,
        optimizer,
        num_rollouts=options.num_rollouts,
        batch_size=options.batch_size,
        updates_per_iteration=options.updates_per_iteration,
        ema_decay=options.ema_decay,
        temper_fn=linear_temper(options.temper_start, round(options.temper_fraction * options.iterations)),
    )
    per_iteration = (
        options.num_rollouts + options.updates_per_iteration * options.batch_size * objective.num_energies
    )
    return Setup(target, process, sampler, network, psi_fn, trainer, per_iteration)


def _objective(options: Options, process: Process, apply_fn: ApplyFn, psi_fn: PsiFn) -> Objective:
    if options.objective == "weighted":
        return weighted_objective(process, apply_fn)
    proposal = reference_posterior(process.path)
    return snis_objective(process, apply_fn, proposal, psi_fn, num_proposals=options.num_proposals)


def _parts(name: str, options: Options) -> tuple[Target, Process, Sampler, Any]:
    if isinstance(options, IsingOptions):
        return _ising(options)
    assert isinstance(options, FlowOptions)
    if name == "gb-rbm":
        return _gb_rbm(options)
    target = GaussianMixture.three_modes() if name == "three-modes" else GaussianMixture.gmm25()
    flow = FlowProcess(stationary_path((2,), scale=options.scale), stepper=options.stepper)
    return _on_grid(options, target, flow)


def _ising(options: IsingOptions) -> tuple[Target, Process, Sampler, Any]:
    target = Ising(length=options.length, beta=options.beta, coupling=options.coupling, field=options.field)
    sites = options.length**2
    schedule = Linear() if options.order == "random" else Ordered.from_rank(np.arange(sites))
    process = MaskedProcess(MaskedPath(schedule, sites=sites, num_states=2))
    network = LatticeNet(
        options.length,
        width=options.width,
        depth=options.depth,
        radius=options.radius,
        odd=target.symmetric_under_flip,
    )
    return target, process, first_hitting_sampler(process), network


def _gb_rbm(options: FlowOptions) -> tuple[Target, Process, Sampler, Any]:
    target = GaussianBernoulliRBM.six_modes()
    flow = FlowProcess(stationary_path((2,), scale=options.scale), stepper=options.stepper)
    jump = MaskedProcess(MaskedPath(Linear(), sites=3, num_states=2))
    return _on_grid(options, target, ProductProcess((flow, jump)))


def _on_grid(options: FlowOptions, target: Target, process: Process) -> tuple[Target, Process, Sampler, Any]:
    network = ResidualMLP(
        target.space, process.prediction_shape(), options.width, options.depth, scale=options.scale
    )
    return target, process, grid_sampler(process, time_grid(options.num_steps)), network
