"""One network for the Ising model at every temperature of a range, certified at each.

    python -m benchmarks.amortized --length 5 --beta-low .1 --beta-high .6 --out runs/amortized

Roll-outs draw `beta` uniformly from the range and then an any-order sample given it; the replay buffer normalises their
weights within bins of `beta`. Afterwards log Z, mean energy and heat capacity come from the weighted samples at each
of `--num-betas` temperatures, beside Kaufman's exact values; `report.json` also has the distances of
`benchmarks.train`, raw and weighted, from the exact laws. Writes `report.json`, `report.png` and `metrics.jsonl`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from egmjax import metrics
from egmjax.estimators import psi_from_energy
from egmjax.networks import LatticeNet, ResidualMLP
from egmjax.paths import GivenPath, MaskedPath
from egmjax.processes import AmortizedProcess, MaskedProcess, at_condition
from egmjax.simulators import Sampler, first_hitting_sampler
from egmjax.states import Real
from egmjax.targets import Ising, from_energy
from egmjax.training import (
    Trainer,
    fit,
    linear_temper,
    make_trainer,
    replay_buffer,
    rollout_source,
    write_atomically,
)

from .commands import device_mesh, one_sentence, refuse_taken, use_compilation_cache
from .nets import Networks
from .options import ObjectiveOptions
from .report import clean, compare
from .setups import energies_of_an_example, make_objective

CHUNK = 1_000  # roll-outs at a time


@dataclass(kw_only=True)
class AmortizedOptions(ObjectiveOptions):
    """Options of the run."""

    out: Path
    """Folder for the results; must not exist or be empty."""
    length: int = 5
    """Sites along each side of the torus."""
    beta_low: float = 0.1
    """Least inverse temperature."""
    beta_high: float = 0.6
    """Largest inverse temperature."""
    num_betas: int = 11
    """Temperatures in the report."""
    num_samples: int = 10_000
    """Samples at each of them."""
    num_groups: int = 10
    """Bins of beta within which the buffer normalises its weights (weighted only)."""
    site_conditionals: bool = True
    iterations: int = 250
    """Training iterations; each rolls out the model once."""
    updates_per_iteration: int = 8
    """Gradient steps for each iteration."""
    batch_size: int = 512
    """States in a gradient step."""
    num_rollouts: int = 500
    """Samples of the model for each iteration."""
    buffer_rollouts: int = 4
    """Replay buffer, in iterations of roll-outs."""
    learning_rate: float = 3e-3
    """Adam's initial rate; decays along a cosine to 2 percent."""
    temper_start: float = 0.3
    """Fraction of the log-density at the start of training; ramps up to 1 over the first 30 percent."""
    width: int = 32
    """Channels of the network."""
    depth: int = 2
    """Hidden layers of the network."""
    seed: int = 0
    """Seed of all randomness."""


class Setup(NamedTuple):
    """The functions of a run: `predict_fn(params)` takes states `(beta, x)`, `sampler` draws `x` at one beta."""

    trainer: Trainer
    init: Callable[[int], Any]
    predict_fn: Callable[[Any], Callable[[Any, Any], jax.Array]]
    sampler: Sampler
    process: MaskedProcess
    energies_per_iteration: int


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; bad input ends it with one sentence and exit code 2."""
    options = tyro.cli(AmortizedOptions, args=arguments, prog="python -m benchmarks.amortized")
    with one_sentence():
        check(options)
        build(options)
        refuse_taken(options.out)
        options.out.mkdir(parents=True, exist_ok=True)
    return run(options)


def run(options: AmortizedOptions) -> dict[str, Any]:
    """Trains, evaluates, writes the folder `options.out`, prints the table and returns the report."""
    setup = build(options)
    options.out.mkdir(parents=True, exist_ok=True)

    def show(row: dict[str, float]) -> None:
        if row["iteration"] % max(1, options.iterations // 10) == 0:
            print(
                f"iteration {row['iteration']:.0f}  {row['seconds']:.0f} s  loss {row['loss']:.3f}",
                flush=True,
            )

    result = fit(
        setup.trainer,
        setup.init(options.seed),
        options.iterations,
        metrics_file=options.out / "metrics.jsonl",
        on_metrics=show,
    )
    rows = evaluate(options, setup, jax.device_get(result.state.ema_params))
    report: dict[str, Any] = {
        "rows": rows,
        "energy_evaluations": options.iterations * setup.energies_per_iteration
        + options.num_betas * options.num_samples,
        "seconds": {"compile": result.compile_seconds, "train": result.train_seconds},
        "config": {k: v for k, v in asdict(options).items() if k != "out"},
    }
    write_atomically(options.out / "report.json", json.dumps(clean(report), indent=1) + "\n")
    plot(rows, options).savefig(options.out / "report.png")
    print(table(rows))
    print(f"trained for {result.train_seconds:.0f} s; wrote {options.out}/report.json, report.png")
    return report


def check(options: AmortizedOptions) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    for name in ("num_betas", "num_groups", "iterations", "num_samples", "width", "depth", "buffer_rollouts"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}: at least 1, got {getattr(options, name)}")
    if not 0 <= options.beta_low < options.beta_high < math.inf:
        raise ValueError(
            f"beta_low: needs 0 <= beta_low < beta_high, got {options.beta_low} and {options.beta_high}"
        )
    if options.objective == "log-variance":
        raise ValueError(
            "objective: log-weights at different temperatures have different means, so no log-variance"
        )
    if not 0 < options.learning_rate < math.inf:
        raise ValueError(f"learning_rate: must be positive and finite, got {options.learning_rate}")


def build(options: AmortizedOptions) -> Setup:
    """Composes the run: a condition `beta` beside the spins, everything else as for one temperature."""
    low, high = options.beta_low, options.beta_high
    sites = options.length**2

    def draw_beta(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (1,), minval=low, maxval=high)

    def standard(beta: jax.Array) -> jax.Array:
        return (2.0 * beta - low - high) / (high - low)  # in [-1, 1]

    def energy(x: Any) -> jax.Array:
        return Ising(length=options.length, beta=x[0][0]).energy(x[1])

    def site_energies(x: Any) -> jax.Array:
        return Ising(length=options.length, beta=x[0][0]).site_energies(x[1])

    def group(x: Any) -> jax.Array:
        share = (x[0][0] - low) / (high - low)
        return jnp.clip(jnp.floor(share * options.num_groups), 0, options.num_groups - 1).astype(jnp.int32)

    inner = MaskedProcess(MaskedPath(sites=sites))
    process = AmortizedProcess(GivenPath(draw_beta, Real((1,))), inner)
    target = from_energy(energy, process.path.space)
    psi_fn = psi_from_energy(target.energy, process.path)
    network = LatticeNet(options.length, width=options.width, depth=options.depth, odd=True)

    def apply_fn(params: Any, x: Any, t: jax.Array) -> jax.Array:
        return network.apply(params["generator"], x[1], t, standard(x[0]))  # type: ignore[return-value]

    # log-densities range over the whole energy, so their network takes the ordinary features of its state
    psi_net = ResidualMLP(process.path.space, (), width=128, depth=options.depth)

    def apply_psi(params: Any, x: Any, t: jax.Array) -> jax.Array:
        return psi_net.apply(params["psi"], (standard(x[0]), x[1]), t)  # type: ignore[return-value]

    def init_params(key: jax.Array) -> Any:
        x0 = inner.path.sample_prior(key)
        params = {"generator": network.init(key, x0, jnp.zeros(()), jnp.zeros((1,)))}
        if options.objective == "bootstrap":
            params["psi"] = psi_net.init(jax.random.fold_in(key, 1), (jnp.zeros((1,)), x0), jnp.zeros(()))
        return params

    networks = Networks(init_params, apply_fn, apply_psi)
    sampler = first_hitting_sampler(process)
    mesh = device_mesh()
    objective = make_objective(options, process, sampler, networks, psi_fn, site_energies, mesh=mesh)
    num_updates = options.iterations * options.updates_per_iteration
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(options.learning_rate, num_updates, 0.02)),
    )
    source = rollout_source(
        process,
        sampler,
        replay_buffer(
            options.buffer_rollouts * options.num_rollouts,
            weighted=objective.weighted,
            group_fn=group if objective.weighted else None,
            num_groups=options.num_groups if objective.weighted else 1,
        ),
        psi_fn,
        apply_fn,
        num_rollouts=options.num_rollouts,
        mesh=mesh,
    )
    trainer = make_trainer(
        source,
        objective,
        optimizer,
        batch_size=options.batch_size,
        updates_per_iteration=options.updates_per_iteration,
        temper_fn=linear_temper(options.temper_start, round(0.3 * options.iterations)),
        mesh=mesh,
    )

    def init(seed: int) -> Any:
        key_network, key_train = jax.random.split(jax.random.key(seed))
        return trainer.init(key_train, init_params(key_network))

    def predict_fn(params: Any) -> Callable[[Any, Any], jax.Array]:
        return lambda x, t: apply_fn(params, x, t)

    for_each = energies_of_an_example(options, objective, process.path.space)
    per_iteration = options.num_rollouts + options.updates_per_iteration * options.batch_size * for_each
    return Setup(trainer, init, predict_fn, first_hitting_sampler(inner), inner, per_iteration)


def evaluate(options: AmortizedOptions, setup: Setup, params: Any) -> list[dict[str, Any]]:
    """One row for each temperature: certified estimates with standard errors, and the exact values."""

    @jax.jit
    def roll_out(beta: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        predict = at_condition(setup.predict_fn(params), beta[None])
        target = Ising(length=options.length, beta=beta)
        psi_fn = psi_from_energy(target.energy, setup.process.path)
        rollouts = jax.vmap(lambda k: setup.sampler.sample(k, predict))(jax.random.split(key, CHUNK))
        psi = jax.vmap(lambda x: psi_fn(x, 1.0))(rollouts.x)
        return rollouts.x, psi + rollouts.log_weight

    rows = []
    key = jax.random.fold_in(jax.random.key(options.seed), 2)
    for i, beta in enumerate(np.linspace(options.beta_low, options.beta_high, options.num_betas)):
        keys = jax.random.split(jax.random.fold_in(key, i), -(-options.num_samples // CHUNK))
        parts = [jax.device_get(roll_out(jnp.asarray(beta, dtype=float), k)) for k in keys]
        x, log_weight = (np.concatenate(a)[: options.num_samples] for a in zip(*parts))
        target = Ising(length=options.length, beta=float(beta))
        energies = np.asarray(jax.vmap(target.energy)(jnp.asarray(x)))
        entries, _ = compare(target, x, log_weight, None, key)
        row = {"beta": float(beta), **summarize(energies, log_weight), **exact(options.length, beta)}
        rows.append({**row, "metrics": entries})
    return rows


def summarize(energies: np.ndarray, log_weight: np.ndarray) -> dict[str, float]:
    """log Z, mean and variance of the energy with standard errors, ESS; `energies` in units of kT."""
    summary = metrics.summarize_weights(log_weight)
    mean = metrics.weighted_mean(energies, log_weight)
    variance = metrics.weighted_mean((energies - mean.mean) ** 2, log_weight)
    values = {
        "log_z": summary.log_z,
        "log_z_stderr": summary.log_z_stderr,
        "mean_energy": mean.mean,
        "mean_energy_stderr": mean.stderr,
        "heat_capacity": variance.mean,
        "heat_capacity_stderr": variance.stderr,
        "ess_fraction": summary.ess_fraction,
        "num_nonfinite": summary.num_nonfinite,
    }
    return {name: float(value) for name, value in values.items()}


def exact(length: int, beta: float) -> dict[str, float]:
    """Kaufman's answers; the heat capacity of the whole torus, in units of k, is the variance of `beta E`."""
    target = Ising(length=length, beta=float(beta))
    assert target.log_z is not None
    assert target.mean_energy is not None
    assert target.energy_std is not None
    return {
        "exact_log_z": target.log_z,
        "exact_mean_energy": target.mean_energy,
        "exact_heat_capacity": target.energy_std**2,
    }


QUANTITIES = ("log_z", "mean_energy", "heat_capacity")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text: estimate, standard error, exact."""
    lines = [f"{'beta':>6}{'ESS':>7}" + "".join(f"{name + ' (error), exact':>33}" for name in QUANTITIES)]
    for row in rows:
        cells = (
            f"{row[name]:>14.4f} ({row[name + '_stderr']:.4f}){row['exact_' + name]:>10.4f}"
            for name in QUANTITIES
        )
        lines.append(f"{row['beta']:>6.3f}{row['ess_fraction']:>7.3f}" + "".join(f"{c:>33}" for c in cells))
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], options: AmortizedOptions) -> Any:
    """Three curves over beta: certified estimates with two standard errors on the exact line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    betas = [row["beta"] for row in rows]
    fine = np.linspace(options.beta_low, options.beta_high, 101)
    line = [exact(options.length, beta) for beta in fine]
    labels = ("log Z", "mean energy / kT", "heat capacity / k")
    for axis, name, label in zip(figure.subplots(1, 3), QUANTITIES, labels):
        axis.plot(fine, [row[f"exact_{name}"] for row in line], color="black", lw=1, label="exact")
        errors = [2 * row[f"{name}_stderr"] for row in rows]
        axis.errorbar(betas, [row[name] for row in rows], errors, fmt="o", ms=4, label="weighted samples")
        axis.set(xlabel="beta", title=label)
    figure.axes[0].legend(frameon=False)
    low = min(row["ess_fraction"] for row in rows)
    figure.suptitle(f"one network, {options.length} x {options.length} Ising torus; ESS at least {low:.3f} n")
    return figure


if __name__ == "__main__":
    use_compilation_cache()
    main()
