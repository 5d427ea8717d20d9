"""What the SNIS target costs beyond the energies it must evaluate, and what memory it takes.

    python -m benchmarks.micro.snis [--length 10] [--num-states 300] [--num-proposals 1000]

Compares, in turn: `vmap(energy_fn)` on ready-made states in memory; `multispin_snis`, which draws the proposals,
evaluates the same number of energies and averages the targets, 32 states in a word (what `benchmarks.train` uses where
the target can); and `snis`, which does the same state by state for any target, path and proposal. Peak memory is that
of a fresh process each, of both.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import tyro

from egmjax.estimators import multispin_snis, psi_from_energy, snis
from egmjax.paths import MaskedPath
from egmjax.processes import MaskedProcess
from egmjax.proposals import reference_posterior
from egmjax.targets import Ising

from ._harness import time_side_by_side


@dataclass(kw_only=True)
class SnisOptions:
    """Options of the measurement."""

    length: int = 10
    """Side of the Ising torus."""
    beta: float = 0.4407
    """Inverse temperature."""
    num_states: int = 300
    """States x_t in a batch."""
    num_proposals: int = 1_000
    """K."""
    many_proposals: int = 100_000
    """K for the comparison of memory."""
    map_batch: int = 60
    """States at a time in the streamed variant, lax.map(batch_size=...)."""
    peak_only: Literal["", "snis", "multispin_snis"] = ""
    """Run this estimator once and print the peak memory of this process in MiB."""


def main() -> None:
    """Prints the tables."""
    options = tyro.cli(SnisOptions, prog="python -m benchmarks.micro.snis")
    if options.peak_only:
        estimate = _estimator(options, options.peak_only)
        jax.block_until_ready(jax.jit(estimate)(jax.random.key(1), *_states(options)))
        print(_peak_of_this_process())
        return

    target = Ising(length=options.length, beta=options.beta)
    arguments = (jax.random.key(1), *_states(options))
    num = options.num_states * options.num_proposals
    ready = jax.random.randint(jax.random.key(2), (num, options.length**2), 0, 2)
    base = "energy_fn on ready-made states"
    times = time_side_by_side(
        {
            base: (lambda x: jax.vmap(target.energy)(x), (ready,)),
            **{
                f"{name}, {'vmap' if batch is None else f'map of {batch}'}": (
                    _estimator(options, name, batch),
                    arguments,
                )
                for name in ("multispin_snis", "snis")
                for batch in (None, options.map_batch)
            },
        }
    )
    print(
        f"{options.num_states} states, K = {options.num_proposals}, {options.length}x{options.length} Ising"
    )
    print(
        f"{'':<32}{'median ms':>12}{'fastest':>10}{'slowest':>10}{'compile s':>11}{'energies/s':>12}{'ratio':>8}"
    )
    for name, timing in times.items():
        print(
            f"{name:<32}{1e3 * timing.median:>12.2f}{1e3 * timing.fastest:>10.2f}{1e3 * timing.slowest:>10.2f}"
            f"{timing.compile:>11.2f}{num / timing.median:>12.3g}{timing.median / times[base].median:>8.2f}"
        )
    for name in ("multispin_snis", "snis"):
        few, many = (_peak(options, name, k) for k in (options.num_proposals, options.many_proposals))
        print(
            f"peak memory of {name}: K = {options.num_proposals}: {few:.0f} MiB, "
            f"K = {options.many_proposals}: {many:.0f} MiB, ratio {many / few:.2f}"
        )


def _states(options: SnisOptions) -> tuple[jax.Array, jax.Array]:
    path = MaskedPath(sites=options.length**2)
    key_state, key_mask = jax.random.split(jax.random.key(0))
    x1 = jax.random.randint(key_state, (options.num_states, options.length**2), 0, 2)
    t = jnp.linspace(0.0, 0.95, options.num_states)
    return jax.vmap(path.sample)(jax.random.split(key_mask, options.num_states), x1, t), t


def _estimator(options: SnisOptions, name: str, map_batch: int | None = None):  # type: ignore[no-untyped-def]
    target = Ising(length=options.length, beta=options.beta)
    path = MaskedPath(sites=options.length**2)
    num = options.num_proposals

    def one(arguments: tuple) -> jax.Array:
        if name == "multispin_snis":
            return multispin_snis(
                *arguments, path=path, energy_fn=target.multispin_energy, num_proposals=num
            ).target
        return snis(
            *arguments,
            process=MaskedProcess(path),
            proposal=reference_posterior(path),
            psi_fn=psi_from_energy(target.energy, path),
            num_proposals=num,
        ).target

    def estimate(key: jax.Array, xt: jax.Array, t: jax.Array) -> jax.Array:
        arguments = (jax.random.split(key, xt.shape[0]), xt, t)
        return (
            jax.vmap(lambda *each: one(each))(*arguments)
            if map_batch is None
            else jax.lax.map(one, arguments, batch_size=map_batch)
        )

    return estimate


def _peak_of_this_process() -> float:
    """MiB. Not `ru_maxrss`, which a process inherits from the one that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024  # type: ignore[index]


def _peak(options: SnisOptions, name: str, num_proposals: int) -> float:
    command = [
        *(sys.executable, "-m", "benchmarks.micro.snis", "--peak-only", name),
        *("--length", str(options.length), "--num-states", str(options.num_states)),
        *("--num-proposals", str(num_proposals)),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
