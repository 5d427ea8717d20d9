"""What certified samples cost: the same sampler with its log-weights, and asked for the states alone.

    python -m benchmarks.micro.steppers [--num-samples 2000] [--num-steps 100]

Nothing but the caller changes: when only `.x` of a roll-out leaves the compiled function, the compiler drops what
served the log-weight alone. A flow's log-weight takes the determinant of each step, `dim` derivatives of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from egmjax.networks import ResidualMLP
from egmjax.paths import MaskedPath, stationary_path
from egmjax.processes import DiffusionProcess, FlowProcess, MaskedProcess, Process
from egmjax.simulators import Sampler, first_hitting_sampler, grid_sampler, time_grid

from ..records import Record
from ._harness import BenchOptions, Case, parse, report, time_side_by_side

CERTIFIED, UNCERTIFIED = "with log-weights", "states alone"


@dataclass(kw_only=True)
class StepperOptions(BenchOptions):
    """Options of the measurement."""

    repeats: int = 7
    """Rounds; in each of them every case is run, for a tenth of a second or once."""
    num_samples: int = 2_000
    """States sampled at once."""
    num_steps: int = 100
    """Steps on a grid of times."""
    sites: int = 100
    """Two-valued sites of the masked state; first hitting takes a step for each."""
    dim: int = 16
    """Dimension of the diffusion and the flow."""
    width: int = 64
    """Width of the networks, which have two residual blocks."""


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the table and returns its records."""
    options = parse(StepperOptions, "steppers", args)
    grid = time_grid(options.num_steps)
    masked = MaskedProcess(MaskedPath(sites=options.sites))
    diffusion = DiffusionProcess(stationary_path((options.dim,)), 1.0)
    flow = FlowProcess(stationary_path((2,)))
    samplers = {
        "masks, on a grid": (masked, grid_sampler(masked, grid)),
        "masks, first hitting": (masked, first_hitting_sampler(masked)),
        "diffusion": (diffusion, grid_sampler(diffusion, grid)),
        "flow in the plane": (flow, grid_sampler(flow, grid)),
    }
    cases: dict[str, Case] = {}
    for name, (process, sampler) in samplers.items():
        for what in (UNCERTIFIED, CERTIFIED):
            cases[f"{name}, {what}"] = _case(options, process, sampler, what)
    timings = time_side_by_side(cases, options.repeats)
    shapes = {
        "samples": options.num_samples,
        "steps": options.num_steps,
        "sites": options.sites,
        "dim": options.dim,
        "width": options.width,
    }
    others = {
        f"{name}, {CERTIFIED}": {
            "share of the speed": timings[f"{name}, {UNCERTIFIED}"].ratio(timings[f"{name}, {CERTIFIED}"])
        }
        for name in samplers
    }
    baseline = {case: case.replace(CERTIFIED, UNCERTIFIED) for case in cases}
    return report("steppers", timings, options, shapes=shapes, baseline=baseline, others=others)


def _case(options: StepperOptions, process: Process, sampler: Sampler, what: str) -> Case:
    network = ResidualMLP(process.path.space, process.prediction_shape(), width=options.width, depth=2)
    x = jax.tree.map(jnp.asarray, process.path.sample_prior(jax.random.key(0)))
    params = network.init(jax.random.key(1), x, jnp.zeros(()))

    def predictor(params: Any) -> Callable[[Any, Any], Any]:
        return lambda x, t: network.apply(params, x, t)

    def sample(key: jax.Array, params: Any) -> Any:
        keys = jax.random.split(key, options.num_samples)
        rollouts = jax.vmap(lambda k: sampler.sample(k, predictor(params)))(keys)
        return rollouts if what == CERTIFIED else rollouts.x

    return sample, (jax.random.key(2), params)


if __name__ == "__main__":
    main()
