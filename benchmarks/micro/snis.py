"""What the SNIS target costs beyond the energies it must evaluate, and what memory it takes.

    python -m benchmarks.micro.snis [--length 10] [--num-states 300] [--num-proposals 1000]

Compares, in turn: `vmap(energy_fn)` on ready-made states in memory; `multispin_snis`, which draws the proposals,
evaluates the same number of energies and averages the targets, 32 states in a word (what `benchmarks.train` uses where
the target can); and `snis`, which does the same state by state for any target, path and proposal. Peak memory is that
of a fresh process each, less what it had after its imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from egmjax.estimators import multispin_snis, psi_from_energy, snis
from egmjax.paths import MaskedPath
from egmjax.processes import MaskedProcess
from egmjax.proposals import reference_posterior
from egmjax.targets import Ising

from ..records import Record
from ._harness import (
    BenchOptions,
    Case,
    Peak,
    compile_case,
    parse,
    peak_in_child,
    peak_of,
    report,
    time_side_by_side,
)

ESTIMATORS = ("multispin_snis", "snis")


@dataclass(kw_only=True)
class SnisOptions(BenchOptions):
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
    """K for the comparison of memory; 0 leaves it out."""
    map_batch: int = 60
    """States at a time in the streamed variant, lax.map(batch_size=...)."""


BASE = "energy_fn on ready-made states"


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the table and returns its records."""
    options = parse(SnisOptions, "snis", args)
    if options.peak:
        print(peak_of(lambda: compile_case(case(options, options.peak))))
        return []
    target = Ising(length=options.length, beta=options.beta)
    num = options.num_states * options.num_proposals
    ready = jax.random.randint(jax.random.key(2), (num, options.length**2), 0, 2)
    cases: dict[str, Case] = {BASE: (lambda x: jax.vmap(target.energy)(x), (ready,))}
    for name in ESTIMATORS:
        for batch in (None, options.map_batch):
            label = f"{name}, {'vmap' if batch is None else f'map of {batch}'}"
            cases[label] = case(options, name, batch)
    timings = time_side_by_side(cases, options.repeats)
    peaks: dict[str, Peak] = {}
    others = {label: {"energies a second": num / timing.median} for label, timing in timings.items()}
    if options.many_proposals:
        for name in ESTIMATORS:
            label = f"{name}, vmap"
            few, many = (_peak(options, name, k) for k in (options.num_proposals, options.many_proposals))
            peaks[label] = few
            others[label][f"process MiB at K = {options.many_proposals}"] = many.process
    return report(
        "snis",
        timings,
        options,
        shapes={"states": options.num_states, "proposals": options.num_proposals, "length": options.length},
        baseline=BASE,
        peaks=peaks,
        others=others,
    )


def case(options: SnisOptions, name: str, map_batch: int | None = None) -> Case:
    """The estimator of that name at all states of the batch."""
    return _estimator(options, name, map_batch), _arguments(options)


def _arguments(options: SnisOptions) -> tuple[jax.Array, jax.Array, jax.Array]:
    return (jax.random.key(1), *_states(options))


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


def _peak(options: SnisOptions, name: str, num_proposals: int) -> Peak:
    sizes = {"length": options.length, "num-states": options.num_states, "num-proposals": num_proposals}
    words = (word for size, value in sizes.items() for word in (f"--{size}", str(value)))
    return peak_in_child("benchmarks.micro.snis", name, *words)


if __name__ == "__main__":
    main()
