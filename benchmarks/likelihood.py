"""Energies fitted to samples by maximum likelihood, with negatives from chains that do or do not mix.

    python -m benchmarks.likelihood --dim 2 --method balanced-mle --out runs/mle

Four modes of weights .1, .2, .3, .4. The energy tilts the Gaussian of the data's moments; its negatives are chains
moved by a flow that is fitted to them (`balanced-mle`), by Langevin moves alone (`pcd-mala`, `pcd-ula`), or by a few of
these from data (`cd`); `flow` is a flow alone, fitted to data. Masses of modes are those of the model, by quadrature in
the plane and by importance sampling from a mixture that covers it beyond, never a histogram of chains, which is printed
beside them. Writes `report.json` and `metrics.jsonl`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from egmjax import ebm
from egmjax.networks import ResidualMLP
from egmjax.proposals import Density, defensive_mixture
from egmjax.states import Real
from egmjax.targets import GaussianMixture
from egmjax.training import data_source, fit, make_trainer, write_atomically

from .commands import one_sentence, refuse_taken
from .likelihood_report import Setup, evaluate
from .report import clean

BALANCED, FLOW = "balanced-mle", "flow"


@dataclass(kw_only=True)
class LikelihoodOptions:
    """Options of the run."""

    out: Path
    """Folder for the results; must not exist or be empty."""
    target: Literal["four-modes"] = "four-modes"
    """What the data are drawn from."""
    dim: int = 2
    """Dimension, at least 2."""
    method: Literal["balanced-mle", "pcd-mala", "pcd-ula", "cd", "flow"] = "balanced-mle"
    """Where negatives come from; `flow` is no energy at all."""
    num_data: int = 60_000
    """Samples to learn from."""
    num_updates: int = 2_000
    """Gradient steps."""
    batch_size: int = 256
    """Data in a gradient step."""
    num_chains: int = 256
    """Negative samples; those of `cd` are as many as data."""
    start: Literal["model", "data"] = "model"
    """Chains of pcd start at the initial model, or at data."""
    num_local: int = 5
    """Langevin moves an update."""
    step_size: float = 0.01
    """Of Langevin moves at first, in squared units of the data's least scale; ULA keeps it."""
    global_move: Literal["i-sir", "metropolis"] = "i-sir"
    """Global move of the balanced method."""
    num_candidates: int = 8
    """Of i-SIR, the present state included."""
    defensive: float = 0.1
    """Share of the wide Gaussian in the proposal, for both."""
    data_share: float = 0.0
    """Share of data in the flow's loss."""
    energy_penalty: float = 0.0
    """Weight of the squared energies in the loss."""
    flow: Literal["real-nvp", "spline"] = "real-nvp"
    """Kind of flow."""
    flow_layers: int = 8
    """Couplings of the flow."""
    flow_width: int = 64
    """Features of the network of each coupling."""
    width: int = 64
    """Features of the energy's network."""
    depth: int = 2
    """Residual blocks of the energy's network."""
    learning_rate: float = 1e-3
    """Adam's initial rate; decays along a cosine to 1 percent."""
    clip_norm: float = 10.0
    """Largest norm of the gradient of the energy, and of that of the flow."""
    ema_decay: float = 0.995
    """Of the averaged parameters, which are those evaluated."""
    num_eval: int = 50_000
    """Draws of the importance sampling."""
    seed: int = 0
    """Seed of all randomness."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; bad input ends it with one sentence and exit code 2."""
    options = tyro.cli(LikelihoodOptions, args=arguments, prog="python -m benchmarks.likelihood")
    with one_sentence():
        check(options)
        refuse_taken(options.out)
        setup = build(options)
        options.out.mkdir(parents=True, exist_ok=True)
    return run(options, setup)


def check(options: LikelihoodOptions) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    for name in ("num_updates", "num_eval", "width", "depth"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}: at least 1, got {getattr(options, name)}")
    if options.dim < 2:
        raise ValueError(f"dim: at least 2, got {options.dim}")
    for name in ("learning_rate", "clip_norm", "step_size"):
        if not 0 < getattr(options, name) < math.inf:
            raise ValueError(f"{name}: must be positive and finite, got {getattr(options, name)}")
    if options.num_candidates < 2:
        raise ValueError(f"num_candidates: at least 2, got {options.num_candidates}")
    if not 0 < options.defensive < 1:
        raise ValueError(f"defensive: between 0 and 1, got {options.defensive}")


def build(options: LikelihoodOptions) -> Setup:
    """Composes the run; nothing is standardised, base and flow have the data's moments."""
    mixture = GaussianMixture.four_modes(options.dim)
    key_data, _, _, _ = jax.random.split(jax.random.key(options.seed), 4)
    data = np.asarray(mixture.sample(key_data, options.num_data))
    mean, scale = ebm.moments(data)
    base = ebm.gaussian_flow(mean, scale)
    space = Real((options.dim,))
    source = data_source(data, space)
    make_flow = ebm.real_nvp if options.flow == "real-nvp" else ebm.spline_flow
    flow = make_flow(mean, scale, num_layers=options.flow_layers, width=options.flow_width)
    network = ResidualMLP(space, (), width=options.width, depth=options.depth, use_time=False)
    zero = jnp.zeros(())

    def energy(params: Any, z: jax.Array) -> jax.Array:
        return network.apply(params, z, zero)  # type: ignore[return-value]

    model = ebm.tilted_energy(energy, base, units=(mean, scale))
    updates = min(50, options.num_updates)
    schedule = optax.cosine_decay_schedule(options.learning_rate, options.num_updates, 0.01)
    each = optax.chain(optax.clip_by_global_norm(options.clip_norm), optax.adam(schedule))
    settings: dict[str, Any] = {"updates_per_iteration": updates, "ema_decay": options.ema_decay}

    if options.method == FLOW:
        trainer = make_trainer(
            source, ebm.flow_objective(flow), each, batch_size=options.batch_size, **settings
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
        return defensive_mixture((ebm.flow_density(flow, params["flow"]), wide), (1.0 - share, share))

    def global_move(density: Density) -> ebm.MoveFn:
        if options.global_move == "metropolis":
            return ebm.independence_metropolis(density)
        return ebm.i_sir(density, options.num_candidates)

    def start(params: Any, key: jax.Array) -> jax.Array:
        if options.start == "data" and not balanced:
            return jnp.asarray(data)[jax.random.randint(key, (), 0, len(data))]
        return base.sample((), key)

    negatives = ebm.chain_negatives(
        log_density,
        start,
        step_size=options.step_size * float(scale.min()) ** 2,
        num_chains=options.batch_size if options.method == "cd" else options.num_chains,
        num_local=options.num_local,
        local="ula" if options.method == "pcd-ula" else "mala",
        proposal_fn=proposal if balanced else None,
        global_move=global_move if balanced else None,
        restart=options.method == "cd",
    )
    trainer = ebm.likelihood_trainer(
        model.energy,
        source,
        negatives,
        optax.multi_transform({"energy": each, "flow": each}, lambda params: {name: name for name in params}),
        flow=flow if balanced else None,
        data_share=options.data_share,
        energy_penalty=options.energy_penalty,
        batch_size=options.batch_size,
        **settings,
    )

    def init(seed: int) -> Any:
        _, key_energy, key_flow, key_train = jax.random.split(jax.random.key(seed), 4)
        params = {"energy": network.init(key_energy, jnp.zeros(options.dim), zero)}
        if balanced:
            params["flow"] = flow.init(key_flow)
        return trainer.init(key_train, params)

    return Setup(mixture, base, trainer, init, log_density, proposal if balanced else None, negatives)


def run(options: LikelihoodOptions, setup: Setup) -> dict[str, Any]:
    """Trains, evaluates, writes the folder `options.out`, prints a summary and returns the report."""
    updates = min(50, options.num_updates)
    num_iterations = -(-options.num_updates // updates)
    guard = ebm.stop_on_divergence()

    def show(row: dict[str, float]) -> None:
        guard(row)
        if row["iteration"] % max(1, num_iterations // 10) == 0:
            names = (
                "loss",
                "loss_flow",
                "acceptance_global",
                "acceptance_local",
                "ess",
                "log_z",
                "log_z_upper",
            )
            shown = "  ".join(f"{name} {row[name]:.3g}" for name in names if name in row)
            print(f"update {row['iteration'] * updates:.0f}  {shown}", flush=True)

    result = fit(
        setup.trainer,
        setup.init(options.seed),
        num_iterations,
        metrics_file=options.out / "metrics.jsonl",
        on_metrics=show,
    )
    chains = result.state.buffer if setup.negatives is not None else None
    report: dict[str, Any] = {
        **evaluate(setup, result.state.ema_params, chains, num_eval=options.num_eval, seed=options.seed),
        "last": result.history[-1],
        "seconds": {"compile": result.compile_seconds, "train": result.train_seconds},
        "config": {k: v for k, v in asdict(options).items() if k != "out"},
    }
    write_atomically(options.out / "report.json", json.dumps(clean(report), indent=1) + "\n")
    for name in ("model_mass_tv", "model_mass_kl", "kl", "chain_tv", "log_z", "log_z_lower", "log_z_upper"):
        if report.get(name) is not None:
            print(f"{name:>20} {report[name]:.4g}")
    print(f"trained for {result.train_seconds:.0f} s; wrote {options.out}/report.json")
    return report


if __name__ == "__main__":
    main()
