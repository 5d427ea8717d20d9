"""The replay buffer: a push of roll-outs, and draws from it, in proportion to weights and uniformly.

python -m benchmarks.micro.buffer [--capacity 10000] [--num-rollouts 2000] [--batch-size 300] [--sites 100]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from egmjax.simulators import Rollout
from egmjax.training import replay_buffer

from ..records import Record
from ._harness import BenchOptions, parse, report, time_side_by_side


@dataclass(kw_only=True)
class BufferOptions(BenchOptions):
    """Options of the measurement."""

    capacity: int = 10_000
    """Samples held."""
    num_rollouts: int = 2_000
    """Samples pushed at once."""
    batch_size: int = 300
    """Samples drawn at once."""
    sites: int = 100
    """Sites of a sample."""


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the table and returns its records."""
    options = parse(BufferOptions, "buffer", args)
    key = jax.random.key(0)

    def rollouts(num: int) -> tuple[Rollout, jax.Array]:
        x = jax.random.randint(key, (num, options.sites), 0, 2)
        return Rollout(x, jax.random.normal(key, (num,))), jax.random.normal(jax.random.key(1), (num,))

    buffers = {
        "by weight": replay_buffer(options.capacity, weighted=True),
        "by weight, tempered to an ESS of a half": replay_buffer(
            options.capacity, weighted=True, min_ess_fraction=0.5
        ),
        "uniformly": replay_buffer(options.capacity, weighted=False),
    }
    empty = buffers["uniformly"].init(jnp.zeros(options.sites, jnp.int32))
    full = jax.jit(buffers["uniformly"].add)(empty, *rollouts(options.capacity))
    cases = {
        f"draw {name}": (lambda k, s, b=b: b.draw(k, s, options.batch_size, jnp.ones(())), (key, full))
        for name, b in buffers.items()
    }
    new = rollouts(options.num_rollouts)
    timings = time_side_by_side({"push": (buffers["uniformly"].add, (full, *new)), **cases}, options.repeats)
    shapes = {
        "capacity": options.capacity,
        "rollouts": options.num_rollouts,
        "batch": options.batch_size,
        "sites": options.sites,
    }
    return report("buffer", timings, options, shapes=shapes)


if __name__ == "__main__":
    main()
