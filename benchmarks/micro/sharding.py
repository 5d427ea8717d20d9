"""What it costs to lay a train step out over several devices, and that it is the same step.

    python -m benchmarks.micro.sharding [--devices 2] [--proposals 1]

Fake devices share the processor's cores, which one device already uses by threads inside of operations. So nothing can
be gained here; the speed that remains, 1 or nearly so, is what splitting and exchanging leave of it. Both programs run
in one process, in turn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from egmjax.estimators import psi_from_energy
from egmjax.networks import LatticeNet, ResidualMLP
from egmjax.paths import MaskedPath, stationary_path
from egmjax.processes import FlowProcess, MaskedProcess
from egmjax.proposals import reference_posterior
from egmjax.sharding import state_mesh
from egmjax.simulators import first_hitting_sampler, grid_sampler, time_grid
from egmjax.targets import GaussianMixture, Ising
from egmjax.training import (
    Trainer,
    make_trainer,
    replay_buffer,
    rollout_source,
    snis_objective,
    weighted_objective,
)

from ._harness import Case, Timing, parse, rerun_with_devices, time_side_by_side


@dataclass(kw_only=True)
class ShardingOptions:
    """Options of the measurement."""

    devices: int = 2
    """Fake devices."""
    proposals: int = 1
    """Of them, those that share the proposals of a state."""
    batch_size: int = 256
    """States in a gradient step; as many roll-outs, four times as many in the buffer."""
    num_proposals: int = 512
    """K of the flow's objective."""
    updates_per_iteration: int = 4
    """Gradient steps in the train step that is timed."""
    iterations: int = 5
    """Train steps whose losses are compared."""
    repeats: int = 15
    """Train steps timed, of each program."""


class Row(NamedTuple):
    """A step on one device and on all, and the largest relative difference of their losses."""

    one: Timing
    many: Timing
    difference: float


def main(arguments: list[str] | None = None) -> dict[str, Row]:
    """Prints a line for each trainer, and returns them; in a process of its own where devices are missing."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(ShardingOptions, "sharding", arguments)
    rerun_with_devices("sharding", options.devices, arguments)
    mesh = state_mesh(jax.devices()[: options.devices], proposals=options.proposals)
    rows = {}
    for name, make in {"flow, snis": _flow, "masks, weighted": _masks}.items():
        rows[name] = row = _measure(make, mesh, options)
        print(
            f"{name:<17}{1e3 * row.one.median:8.1f} ms on one device,{1e3 * row.many.median:8.1f} ms on {mesh.size}: "
            f"{row.one.median / row.many.median:.2f} of the speed, {row.one.fastest / row.many.fastest:.2f} "
            f"by the fastest steps; losses differ by {row.difference:.1e}",
            flush=True,
        )
    return rows


Make = Callable[[ShardingOptions, Mesh | None], tuple[Trainer, Any]]


def _measure(make: Make, mesh: Mesh, options: ShardingOptions) -> Row:
    steps: dict[str, Case] = {}
    losses: list[list[float]] = []
    for name, layout in (("one", None), ("many", mesh)):
        trainer, params = make(options, layout)
        state = first = trainer.init(jax.random.key(1), params)
        step = jax.jit(trainer.step)
        steps[name] = (trainer.step, (first,))
        losses.append([])
        for _ in range(options.iterations):
            state, metrics = step(state)
            losses[-1].append(float(metrics["loss"]))
    timed = time_side_by_side(steps, options.repeats)
    one, many = np.asarray(losses)
    return Row(timed["one"], timed["many"], float(np.max(np.abs(many / one - 1.0))))


def _flow(options: ShardingOptions, mesh: Mesh | None) -> tuple[Trainer, Any]:
    process = FlowProcess(stationary_path((2,), scale=25.0, power=2.0))
    psi_fn = psi_from_energy(GaussianMixture.gmm40().energy, process.path)
    network = ResidualMLP(process.path.space, process.prediction_shape(), width=128, depth=3, scale=25.0)
    objective = snis_objective(
        process,
        network.apply,
        reference_posterior(process.path),
        psi_fn,
        num_proposals=options.num_proposals,
        mesh=mesh,
    )
    sampler = grid_sampler(process, time_grid(20))
    trainer = _trainer(process, sampler, psi_fn, network, objective, options, mesh)
    return trainer, network.init(jax.random.key(0), jnp.zeros(2), jnp.zeros(()))


def _masks(options: ShardingOptions, mesh: Mesh | None) -> tuple[Trainer, Any]:
    process = MaskedProcess(MaskedPath(sites=36))
    psi_fn = psi_from_energy(Ising(6, 0.3).energy, process.path)
    network = LatticeNet(6, width=32, odd=True)
    objective = weighted_objective(process, network.apply)
    trainer = _trainer(process, first_hitting_sampler(process), psi_fn, network, objective, options, mesh)
    return trainer, network.init(jax.random.key(0), jnp.zeros(36, jnp.int32), jnp.zeros(()))


def _trainer(
    process: Any,
    sampler: Any,
    psi_fn: Any,
    network: Any,
    objective: Any,
    options: ShardingOptions,
    mesh: Mesh | None,
) -> Trainer:
    source = rollout_source(
        process,
        sampler,
        replay_buffer(4 * options.batch_size, weighted=objective.weighted, min_ess_fraction=0.05),
        psi_fn,
        network.apply,
        num_rollouts=options.batch_size,
        mesh=mesh,
    )
    return make_trainer(
        source,
        objective,
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
        batch_size=options.batch_size,
        updates_per_iteration=options.updates_per_iteration,
        mesh=mesh,
    )


if __name__ == "__main__":
    main()
