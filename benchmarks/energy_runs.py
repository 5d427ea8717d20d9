"""What the commands that learn energies share: options of a run, the run itself, and chains as negatives.

Long because it serves four commands; what is below the line is for maximum likelihood alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import logsumexp

from egmjax import ebm
from egmjax.sharding import check_divides
from egmjax.states import Space
from egmjax.training import Checkpoints, Trainer, data_source, fit, make_trainer, write_atomically

from .checks import check_seed
from .commands import FolderOptions, device_mesh, one_sentence, prepare_folder, read_json, result_options
from .report import clean

BALANCED = "balanced-mle"
WRITTEN = ("report.json", "report.png", "samples.npz")
FROZEN = "fitted"  # parameters that are not learned with the energy: of what was fitted to data before


@dataclass(kw_only=True)
class EnergyRunOptions(FolderOptions):
    """What every run shares."""

    num_data: int = 60_000
    """Samples to learn from."""
    num_updates: int = 2_000
    """Gradient steps."""
    width: int = 64
    """Features of the network."""
    depth: int = 2
    """Residual blocks of the network."""
    learning_rate: float = 1e-3
    """Adam's initial rate; decays along a cosine to 1 percent."""
    clip_norm: float = 10.0
    """Largest norm of a gradient; of those of the energy and of a sampler each."""
    ema_decay: float = 0.995
    """Of the averaged parameters, which are those evaluated."""
    num_eval: int = 20_000
    """Draws of the evaluation."""
    seed: int = 0
    """Seed of all randomness."""
    checkpoint_every: int = 500
    """Gradient steps between checkpoints, up to whole iterations of 50."""


@dataclass(kw_only=True)
class NegativesOptions(EnergyRunOptions):
    """What runs by maximum likelihood share."""

    batch_size: int = 256
    """Data in a gradient step."""
    num_chains: int = 256
    """Negative samples; those of cd are as many as data."""
    start: Literal["model", "data"] = "model"
    """Chains of pcd start at the initial model, or at data."""
    num_local: int = 1
    """Local moves an update."""
    global_move: Literal["i-sir", "metropolis"] = "i-sir"
    """Global move of the balanced method."""
    num_candidates: int = 4
    """Of i-SIR, the present state included."""
    defensive: float = 0.1
    """Share of a wide law in the proposal, with which chains start as well."""
    data_share: float = 0.0
    """Share of data in the sampler's loss."""
    energy_penalty: float = 0.0
    """Weight of the squared energies in the loss."""


@dataclass(kw_only=True)
class FittedFlowOptions:
    """A flow, and for how long it is fitted to data first."""

    flow: Literal["real-nvp", "spline"] = "real-nvp"
    """Kind of flow."""
    flow_layers: int = 8
    """Couplings of the flow."""
    flow_width: int = 64
    """Features of the network of each coupling."""
    warm_updates: int = 0
    """Gradient steps that fit the flow to data first; the sampler starts there, and masses of digits rest on it."""


def check_energy_run(
    options: EnergyRunOptions, counts: Sequence[str] = (), positive: Sequence[str] = ()
) -> None:
    """Raises `ValueError` naming the first option with a senseless value; `counts` and `positive` name further ones."""
    for name in ("num_updates", "num_eval", "width", "depth", "checkpoint_every", *counts):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}: at least 1, got {getattr(options, name)}")
    if options.num_data < 2:
        raise ValueError(f"num_data: at least 2, got {options.num_data}")
    check_seed(options.seed)
    if not 0 <= options.ema_decay <= 1:
        raise ValueError(f"ema_decay: a fraction in [0, 1], got {options.ema_decay}")
    for name in ("learning_rate", "clip_norm", *positive):
        if not 0 < getattr(options, name) < math.inf:
            raise ValueError(f"{name}: must be positive and finite, got {getattr(options, name)}")
    if isinstance(options, NegativesOptions):
        if options.num_candidates < 2:
            raise ValueError(f"num_candidates: at least 2, got {options.num_candidates}")
        if not 0 < options.defensive < 1:
            raise ValueError(f"defensive: between 0 and 1, got {options.defensive}")


def updates_per_iteration(options: EnergyRunOptions) -> int:
    """Gradient steps in one compiled call."""
    return min(50, options.num_updates)


def clipped_adam(options: EnergyRunOptions, last: float = 0.01) -> optax.GradientTransformation:
    """Adam with the rate of the options, which falls along a cosine to `last` of itself."""
    schedule = optax.cosine_decay_schedule(options.learning_rate, options.num_updates, last)
    return optax.chain(optax.clip_by_global_norm(options.clip_norm), optax.adam(schedule))


def configuration(options: EnergyRunOptions) -> dict[str, Any]:
    """What determines the result of a run, as JSON values."""
    return {"options": type(options).__name__, **result_options(options)}


def prepare_energy_run(options: EnergyRunOptions) -> None:
    """Makes the folder of a run, or finds the one to go on with; see `commands.prepare_folder`."""
    is_run = lambda values: "options" in values  # noqa: E731
    prepare_folder(options, configuration(options), read=read_json, is_run=is_run)


def checkpoints_of(options: EnergyRunOptions) -> Checkpoints:
    """Those of the run."""
    return Checkpoints(options.out / "checkpoints", configuration(options))


def goes_on(options: EnergyRunOptions) -> bool:
    """Whether there is a checkpoint to go on from, and --resume was given."""
    return options.resume and checkpoints_of(options).latest() is not None


def run_energy(
    options: EnergyRunOptions,
    trainer: Trainer,
    state: Any,
    evaluate: Callable[[Any], dict[str, Any]],
    *,
    shown: Sequence[str],
    summary: Sequence[str],
) -> dict[str, Any]:
    """Trains, calls `evaluate(state)`, writes the folder `options.out`, prints and returns the report.

    Goes on from the last checkpoint in the folder where `options.resume`. Of the metrics those in `shown` are printed
    ten times, of the report those in `summary`. A loss that is not finite ends the command with one sentence and exit
    code 1, a checkpoint that cannot be used with exit code 2.
    """
    updates = updates_per_iteration(options)
    num_iterations = -(-options.num_updates // updates)
    checkpoints = checkpoints_of(options)
    if goes_on(options):
        with one_sentence():
            state = checkpoints.restore(state)
        print(f"resuming after update {int(state.iteration) * updates}")
    guard = ebm.stop_on_divergence(checkpoints)

    def show(row: dict[str, float]) -> None:
        guard(row)
        if row["iteration"] % max(1, num_iterations // 10) == 0:
            text = "  ".join(f"{name} {row[name]:.4g}" for name in shown if name in row)
            print(f"update {row['iteration'] * updates:.0f}  {text}", flush=True)

    try:
        result = fit(
            trainer,
            state,
            num_iterations,
            checkpoints=checkpoints,
            checkpoint_every=max(1, options.checkpoint_every // updates),
            metrics_file=options.out / "metrics.jsonl",
            on_metrics=show,
        )
    except FloatingPointError as error:
        raise SystemExit(f"error: {error}") from None
    report: dict[str, Any] = {
        **evaluate(jax.device_get(result.state)),  # on one device, wherever it was trained
        "last": result.history[-1],
        "seconds": {"compile": result.compile_seconds, "train": result.train_seconds},
        "config": configuration(options),
    }
    write_atomically(options.out / "report.json", json.dumps(clean(report), indent=1) + "\n")
    for name in summary:
        if report.get(name) is not None:
            print(f"{name:>20} {report[name]:.4g}")
    written = [file for file in WRITTEN if (options.out / file).exists()]
    print(f"trained for {result.train_seconds:.0f} s; wrote {options.out}/{', '.join(written)}")
    return report


# ------------------------------------------------------------------------------------ maximum likelihood


def make_flow(options: FittedFlowOptions, mean: np.ndarray, scale: np.ndarray) -> ebm.NormalizingFlow:
    """That of the options, of a start with the given moments."""
    make = ebm.real_nvp if options.flow == "real-nvp" else ebm.spline_flow
    return make(mean, scale, num_layers=options.flow_layers, width=options.flow_width)


def flow_trainer(
    options: EnergyRunOptions,
    data: np.ndarray,
    space: Space,
    flow: ebm.NormalizingFlow,
    num_updates: int,
    batch_size: int,
) -> tuple[Trainer, int]:
    """Of a flow fitted to data, and its updates an iteration."""
    options = replace(options, num_updates=num_updates)
    updates = updates_per_iteration(options)
    trainer = make_trainer(
        data_source(data, space),
        ebm.flow_objective(flow),
        clipped_adam(options),
        batch_size=batch_size,
        updates_per_iteration=updates,
        ema_decay=options.ema_decay,
        mesh=device_mesh(),
    )
    return trainer, updates


def fitted_flow(
    options: Any,
    data: np.ndarray,
    space: Space,
    flow: ebm.NormalizingFlow,
    known: Any,
    key: jax.Array,
    batch_size: int,
) -> Any:
    """Parameters of the flow after `options.warm_updates` gradient steps from `known`."""
    trainer, updates = flow_trainer(options, data, space, flow, options.warm_updates, batch_size)
    result = fit(trainer, trainer.init(key, known), -(-options.warm_updates // updates))
    return jax.device_get(result.state.ema_params)


def likelihood_parts(
    options: NegativesOptions,
    space: Space,
    data: Any,
    energy: Callable[[Any, Any], jax.Array],
    log_density: Callable[[Any, Any], jax.Array],
    start: Callable[[Any, jax.Array], Any],
    proposal: Callable[[Any], Any] | None,
    sampler_loss_fn: Any,
    *,
    restart: bool,
    **local: Any,
) -> tuple[ebm.Negatives, Trainer]:
    """Chains and trainer; with a `proposal(params)` the balanced method, `local` as in `ebm.chain_negatives`.

    `start(params, key)` is where chains start. Of the parameters those of `FROZEN` stay as they are.
    """

    def global_move(drawn_from: Any) -> ebm.MoveFn:
        if options.global_move == "metropolis":
            return ebm.independence_metropolis(drawn_from)
        return ebm.i_sir(drawn_from, options.num_candidates)

    def start_fn(params: Any, key: jax.Array) -> Any:
        if options.start == "data" and proposal is None:
            row = jax.random.randint(key, (), 0, len(jax.tree.leaves(data)[0]))
            return jax.tree.map(lambda a: jnp.asarray(a)[row], data)
        return start(params, key)

    mesh = device_mesh()
    if not restart:
        check_divides(mesh, "num_chains", options.num_chains)
    negatives = ebm.chain_negatives(
        log_density,
        start_fn,
        num_chains=options.batch_size if restart else options.num_chains,
        num_local=options.num_local,
        proposal_fn=proposal,
        global_move=None if proposal is None else global_move,
        restart=restart,
        **local,
    )
    each = clipped_adam(options)
    trainer = ebm.likelihood_trainer(
        energy,
        data_source(data, space),
        negatives,
        optax.multi_transform(
            {"energy": each, "sampler": each, FROZEN: optax.set_to_zero()},
            lambda params: {name: name for name in params},
        ),
        sampler_loss_fn=None if proposal is None else sampler_loss_fn,
        data_share=options.data_share,
        energy_penalty=options.energy_penalty,
        batch_size=options.batch_size,
        updates_per_iteration=updates_per_iteration(options),
        ema_decay=options.ema_decay,
        mesh=mesh,
    )
    return negatives, trainer


def chain_tv(mode_index: Callable[[Any], jax.Array], x: Any, true: np.ndarray) -> float:
    """Total variation between the histogram of states over the modes and the true masses."""
    counts = np.bincount(np.asarray(jax.vmap(mode_index)(x)), minlength=len(true))
    return 0.5 * float(np.abs(counts / counts.sum() - true).sum())


def upper_log_z(key: jax.Array, negatives: ebm.Negatives, chains: ebm.ChainState, params: Any) -> float:
    """An upper bound of log Z, in the mean, from 80 moves of the chains under `params`, after 20 more.

    The first ones are left out because the chains have come from the last parameters, not from the averaged. The mean
    of `1 / w` lives on states that the proposal overrates: one of them may put it below log Z.
    """

    def go_on(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state, info = negatives.advance(key, state, params, None)
        return state, info["log_z_upper"]

    upper = jax.jit(lambda c, k: jax.lax.scan(go_on, c, k)[1])(chains, jax.random.split(key, 100))
    later = np.asarray(upper, np.float64)[20:]
    return float(math.log(len(later)) - logsumexp(-later))
