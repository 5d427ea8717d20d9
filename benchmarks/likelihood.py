"""Energies fitted to samples by maximum likelihood, with negatives from chains that do or do not mix.

    python -m benchmarks.likelihood --dim 2 --method balanced-mle --out runs/mle

Four modes of weights .1, .2, .3, .4. The energy tilts the Gaussian of the data's moments; its negatives are chains
moved by a flow that is fitted to them (`balanced-mle`), by Langevin moves alone (`pcd-mala`, `pcd-ula`), or by a few of
these from data (`cd`); `flow` is a flow alone, fitted to data. Masses of modes are those of the model, by quadrature in
the plane and by importance sampling from a mixture that covers it beyond, never a histogram of chains, which is printed
beside them. Writes `report.json` and `metrics.jsonl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from egmjax import ebm
from egmjax.networks import ResidualMLP
from egmjax.proposals import Density, defensive_mixture
from egmjax.states import Real
from egmjax.targets import GaussianMixture
from egmjax.training import data_source, make_trainer

from .commands import one_sentence
from .energy_runs import (
    BALANCED,
    NegativesOptions,
    check_energy_run,
    clipped_adam,
    likelihood_parts,
    prepare_energy_run,
    run_energy,
    updates_per_iteration,
)
from .likelihood_report import Setup, evaluate

SHOWN = ("loss", "loss_sampler", "acceptance_global", "acceptance_local", "ess", "log_z", "log_z_upper")
SUMMARY = ("model_mass_tv", "model_mass_kl", "kl", "chain_tv", "log_z", "log_z_lower", "log_z_upper")


@dataclass(kw_only=True)
class LikelihoodOptions(NegativesOptions):
    """Options of the run."""

    target: Literal["four-modes"] = "four-modes"
    """What the data are drawn from."""
    dim: int = 2
    """Dimension, at least 2."""
    method: Literal["balanced-mle", "pcd-mala", "pcd-ula", "cd", "flow"] = "balanced-mle"
    """Where negatives come from; `flow` is no energy at all."""
    num_local: int = 5
    """Langevin moves an update."""
    step_size: float = 0.01
    """Of Langevin moves at first, in squared units of the data's least scale; ULA keeps it."""
    num_candidates: int = 8
    """Of i-SIR, the present state included."""
    flow: Literal["real-nvp", "spline"] = "real-nvp"
    """Kind of flow."""
    flow_layers: int = 8
    """Couplings of the flow."""
    flow_width: int = 64
    """Features of the network of each coupling."""
    num_eval: int = 50_000
    """Draws of the importance sampling."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; bad input ends it with one sentence and exit code 2."""
    options = tyro.cli(LikelihoodOptions, args=arguments, prog="python -m benchmarks.likelihood")
    with one_sentence():
        check(options)
        setup = build(options)
        prepare_energy_run(options)
    return run(options, setup)


def check(options: LikelihoodOptions) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    check_energy_run(options, positive=("step_size",))
    if options.dim < 2:
        raise ValueError(f"dim: at least 2, got {options.dim}")


def build(options: LikelihoodOptions) -> Setup:
    """Composes the run; nothing is standardised, base and flow have the data's moments."""
    mixture = GaussianMixture.four_modes(options.dim)
    key_data, _, _, _ = jax.random.split(jax.random.key(options.seed), 4)
    data = np.asarray(mixture.sample(key_data, options.num_data))
    mean, scale = ebm.moments(data)
    base = ebm.gaussian_flow(mean, scale)
    space = Real((options.dim,))
    make_flow = ebm.real_nvp if options.flow == "real-nvp" else ebm.spline_flow
    flow = make_flow(mean, scale, num_layers=options.flow_layers, width=options.flow_width)
    network = ResidualMLP(space, (), width=options.width, depth=options.depth, use_time=False)
    zero = jnp.zeros(())

    def energy(params: Any, z: jax.Array) -> jax.Array:
        return network.apply(params, z, zero)  # type: ignore[return-value]

    model = ebm.tilted_energy(energy, base, units=(mean, scale))
    if options.method == "flow":
        trainer = make_trainer(
            data_source(data, space),
            ebm.flow_objective(flow),
            clipped_adam(options),
            batch_size=options.batch_size,
            updates_per_iteration=updates_per_iteration(options),
            ema_decay=options.ema_decay,
        )

        def init_flow(seed: int) -> Any:
            _, key_flow, _, key_train = jax.random.split(jax.random.key(seed), 4)
            return trainer.init(key_train, flow.init(key_flow))

        return Setup(
            mixture, base, trainer, init_flow, flow.log_prob, lambda p: ebm.flow_density(flow, p), None
        )

    balanced = options.method == BALANCED

    def log_density(params: Any, x: jax.Array) -> jax.Array:
        return model.log_density(params["energy"], x)

    def proposal(params: Any) -> Density:
        wide = ebm.flow_density(base, ())
        share = options.defensive
        return defensive_mixture((ebm.flow_density(flow, params["sampler"]), wide), (1.0 - share, share))

    negatives, trainer = likelihood_parts(
        options,
        space,
        data,
        model.energy,
        log_density,
        lambda key: base.sample((), key),
        proposal if balanced else None,
        ebm.flow_loss(flow),
        restart=options.method == "cd",
        local="ula" if options.method == "pcd-ula" else "mala",
        step_size=options.step_size * float(scale.min()) ** 2,
    )

    def init(seed: int) -> Any:
        _, key_energy, key_flow, key_train = jax.random.split(jax.random.key(seed), 4)
        params = {"energy": network.init(key_energy, jnp.zeros(options.dim), zero)}
        if balanced:
            params["sampler"] = flow.init(key_flow)
        return trainer.init(key_train, params)

    return Setup(mixture, base, trainer, init, log_density, proposal if balanced else None, negatives)


def run(options: LikelihoodOptions, setup: Setup) -> dict[str, Any]:
    """Trains, evaluates, writes the folder `options.out`, prints a summary and returns the report."""

    def found(state: Any) -> dict[str, Any]:
        chains = state.buffer if setup.negatives is not None else None
        return evaluate(setup, state.ema_params, chains, num_eval=options.num_eval, seed=options.seed)

    return run_energy(options, setup.trainer, setup.init(options.seed), found, shown=SHOWN, summary=SUMMARY)


if __name__ == "__main__":
    main()
