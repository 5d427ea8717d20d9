"""A training step beside the work that it cannot do without, and its cost over the size of the lattice.

    python -m benchmarks.micro.train_step [--num-states 300] [--num-proposals 1000] [--length 10]

First table: the naive step of `micro.published` (buffer, noise, estimate, gradient, Adam, averaged parameters); forward
and backward pass of its network on ready examples; as many energies of ready states, 32 in a word and one by one.
Second table, "sites": the self-normalised estimate alone, from 5x5 to 24x24, and the power of the number of sites that
fits its times best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from egmjax.multispin import WIDTH
from egmjax.targets import Ising

from ..records import Record
from . import snis
from ._harness import Case, Timing, parse, report, time_side_by_side
from .published import Parts, PublishedOptions, make_step

STEP, NETWORK, ENERGIES = "train step", "network, forward and backward", "energies, 32 in a word"


@dataclass(kw_only=True)
class TrainStepOptions(PublishedOptions):
    """Options of the measurement."""

    repeats: int = 15
    """Rounds; in each of them every case is run, for a tenth of a second or once."""
    lengths: tuple[int, ...] = (5, 8, 12, 16, 24)
    """Sides of the tori of the second table."""


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the tables and returns their records."""
    options = parse(TrainStepOptions, "train_step", args)
    return [*_parts_of_a_step(options), *_over_sizes(options)]


def _parts_of_a_step(options: TrainStepOptions) -> list[Record]:
    parts = Parts(options)
    params = parts.init(jax.random.key(0), "naive step")
    num, sites = options.num_states, options.length**2
    objective = parts.objective("naive step", 1)

    def gradient(params: Any, batch: Any) -> Any:
        return jax.grad(lambda p: jnp.mean(jax.vmap(lambda e: objective.loss(p, e))(batch)))(params)

    x1, t = jax.random.randint(jax.random.key(4), (num, sites), 0, 2), jnp.linspace(0.0, 0.9, num)
    context: Any = parts.context(params)
    batch, _ = jax.jit(objective.examples)(jax.random.key(5), context, x1, t)
    total = num * options.num_proposals
    words = jax.random.bits(jax.random.key(6), (num, sites, -(-options.num_proposals // WIDTH)), jnp.uint32)
    ready = jax.random.randint(jax.random.key(7), (total, sites), 0, 2)
    target: Ising = parts.target
    cases: dict[str, Case] = {
        STEP: make_step(options, parts, "naive step"),
        NETWORK: (gradient, (params, batch)),
        ENERGIES: (jax.vmap(target.multispin_energy), (words,)),
        "energies, one by one": (jax.vmap(target.energy), (ready,)),
    }
    timings = time_side_by_side(cases, options.repeats)
    one_by_one = _sum(timings[NETWORK], timings["energies, one by one"])
    in_words = _sum(timings[NETWORK], timings[ENERGIES])
    others = {
        STEP: {
            "to network and energies one by one": timings[STEP].ratio(one_by_one),
            "to network and energies in words": timings[STEP].ratio(in_words),
        }
    }
    shapes = {"states": num, "proposals": options.num_proposals, "length": options.length}
    return report("train_step", timings, options, shapes=shapes, others=others)


def _sum(a: Timing, b: Timing) -> Timing:
    """Both, one after the other."""
    return Timing(None, tuple(x + y for x, y in zip(a.seconds, b.seconds)))


def _over_sizes(options: TrainStepOptions) -> list[Record]:
    cases = {
        f"{name}, {length}x{length}": snis.case(
            snis.SnisOptions(
                length=length,
                beta=options.beta,
                num_states=options.num_states,
                num_proposals=options.num_proposals,
            ),
            name,
        )
        for name in snis.ESTIMATORS
        for length in options.lengths
    }
    timings = time_side_by_side(cases, options.repeats)
    others = {}
    for name in snis.ESTIMATORS:
        if len(options.lengths) > 1:
            times = [timings[f"{name}, {n}x{n}"].median for n in options.lengths]
            power = np.polyfit([2 * math.log(n) for n in options.lengths], np.log(times), 1)[0]
            others[f"{name}, {options.lengths[-1]}x{options.lengths[-1]}"] = {"power of sites": float(power)}
    shapes = {"states": options.num_states, "proposals": options.num_proposals}
    return report("sites", timings, options, shapes=shapes, others=others)


if __name__ == "__main__":
    main()
