"""Langevin chains in a double well, beside the package torchebm, in one run.

    python -m benchmarks.micro.torchebm_peer [--num-chains 2000] [--num-steps 100] [--dim 16]

Needs `pip install torchebm` and PyTorch; without them their rows say so. `E(x) = 2 sum_i (x_i^2 - 1)^2`, unadjusted
steps of equal length from the same states on both sides, all chains at once; "adjusted" accepts or declines each step
(MALA), which torchebm's sampler does not offer. Before anything is timed both energies are compared; "mean energy" is
that of the last states, to see that the same is computed: steps that are not adjusted share a bias. Ratios are ours to
theirs, on one thread or two, whichever is faster: below one is faster.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from egmjax.ebm import langevin

from ..records import Record
from ._harness import BenchOptions, Timing, compile_case, parse, report, time_in_turn

HEIGHT = 2.0
STEP_SIZE = 0.01
TOLERANCE = 1e-5
OURS = {"unadjusted": False, "adjusted": True}
THEIRS = {"torchebm, one thread": 1, "torchebm, two threads": 2}


@dataclass(kw_only=True)
class TorchEBMOptions(BenchOptions):
    """Options of the measurement."""

    num_chains: int = 2_000
    """Chains side by side."""
    num_steps: int = 100
    """Steps of each chain."""
    dim: int = 16
    """Double wells of a state."""


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the table and returns its records."""
    options = parse(TorchEBMOptions, "torchebm_peer", args)
    start = np.random.default_rng(0).normal(size=(options.num_chains, options.dim)).astype(np.float32)
    runs: dict[str, Callable[[], Any]] = {}
    compiling: dict[str, float] = {}
    for name, adjusted in OURS.items():
        move = langevin(STEP_SIZE, num_steps=options.num_steps, adjusted=adjusted)

        def sample(key: jax.Array, x: jax.Array, move: Any = move) -> jax.Array:
            keys = jax.random.split(key, options.num_chains)
            return jax.vmap(lambda k, y: move(k, y, lambda z: -energy(z))[0])(keys, x)

        runs[name], compiling[name] = compile_case((sample, (jax.random.key(0), jnp.asarray(start))))
    timings = {name: Timing(None) for name in (*OURS, *THEIRS)}
    try:
        peer = make_peer()
        ours = np.asarray(jax.vmap(energy)(jnp.asarray(start)))
        if not np.allclose(peer.energy(start), ours, rtol=TOLERANCE, atol=0.0):
            raise ValueError("dim: both are to have the same energy, and have not")
        for name, num in THEIRS.items():
            runs[name] = partial(peer.with_threads, num, partial(peer.sample, start, options.num_steps))
    except ImportError as error:
        timings |= dict.fromkeys(THEIRS, Timing(None, error=f"{type(error).__name__}: {error}"))
    others = {
        name: {"mean energy": float(jnp.mean(jax.vmap(energy)(jnp.asarray(run()))))}
        for name, run in runs.items()
    }
    for name, timing in time_in_turn(runs, options.repeats).items():
        timings[name] = timing._replace(compile=compiling.get(name))
    ran = [name for name in THEIRS if not timings[name].error]
    fastest = min(ran, key=lambda name: timings[name].median, default="")
    for name in OURS if ran else ():
        spent = [statistics.median(timings[row].cpu_seconds) for row in (name, fastest)]
        others[name]["CPU ratio"] = spent[0] / spent[1]
    shapes = {"chains": options.num_chains, "steps": options.num_steps, "dim": options.dim}
    return report(
        "torchebm", timings, options, shapes=shapes, baseline=dict.fromkeys(OURS, fastest), others=others
    )


def energy(x: jax.Array) -> jax.Array:
    """`2 sum_i (x_i^2 - 1)^2`."""
    return HEIGHT * jnp.sum((x**2 - 1.0) ** 2)


def make_peer() -> Any:
    """The package's. Raises `ImportError` where it is missing."""
    # threads that spin for each other take a loaded machine a hundred times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ..peers.torch_langevin import Peer

    return Peer(HEIGHT, STEP_SIZE)


if __name__ == "__main__":
    main()
