"""From the options of a data set to composed functions: what `setups` is for energies."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from egmjax.estimators import psi_from_energy
from egmjax.networks import ResidualMLP
from egmjax.training import (
    TimeFn,
    data_source,
    logit_normal_times,
    make_trainer,
    stratified_times,
    transport_coupling,
    weighted_objective,
)

from .commands import device_mesh
from .data_sets import load_data, rows_to_learn, set_aside
from .nets import dtype_of, needs_time
from .options import DataOptions
from .setups import Phase, Setup, make_optimizer, make_process, make_sampler


def build_from_data(name: str, options: DataOptions) -> Setup:
    """Composes the run of data set `name`. With an energy of zero the log-weight of a state is minus a bound on its
    log-density under the model: `E[log w] = -E[log q(x_0..1) / b(x_0..1 | x_1)] >= -log q(x_1)`.
    """
    data = load_data(name)
    if options.holdout == "validation":
        data = set_aside(data)
    process = make_process(options, data.space)
    sampler = make_sampler(options, process)
    network = ResidualMLP(
        data.space,
        process.prediction_shape(),
        options.width,
        options.depth,
        scale=getattr(options, "scale", 1.0),
        use_time=needs_time(process),
        dtype=dtype_of(options),
    )
    coupling = transport_coupling(process.path) if options.pairing == "transport" else None
    if coupling is not None and not process.follows_couplings:
        raise ValueError(
            "pairing: transport is for flows and masks, the other processes need independent noise"
        )
    trainer = make_trainer(
        data_source(rows_to_learn(data), data.space),
        weighted_objective(process, network.apply, coupling=coupling),
        make_optimizer(options),
        batch_size=options.batch_size,
        updates_per_iteration=options.updates_per_iteration,
        ema_decay=options.ema_decay,
        time_fn=_times(options),
        mesh=(mesh := device_mesh(options.proposal_devices)),
    )

    def init(key: jax.Array) -> Any:
        return network.init(key, process.path.sample_prior(key), jnp.zeros(()))

    psi_fn = psi_from_energy(lambda x: jnp.zeros(()), process.path)
    phases = (Phase(trainer, options.iterations, 0),)
    return Setup(data, process, sampler, init, network.apply, psi_fn, phases, mesh=mesh)


def _times(options: DataOptions) -> TimeFn:
    return {
        "uniform": stratified_times(),
        "logit-normal": logit_normal_times(),
        "skewed": logit_normal_times(1.2, 1.2),
    }[options.times]
