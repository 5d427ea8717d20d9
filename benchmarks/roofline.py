"""What a run costs on this machine and on accelerators, before it is started.

    python -m benchmarks.roofline TARGET [options of benchmarks.train] [--no-measure]

From the traces of one training iteration and of a thousand certified samples: floating-point operations, random bits,
bytes, energies, and network calls, each next to the least time it takes,

    bound = max(products / peak of products, (other operations + OPS_PER_BIT random bits) / peak of others,
                bytes / bandwidth)
    on n devices: what goes with the states / n + what goes with the parameters; all-reduce of the gradients

on this machine (peaks measured now) and on accelerators (peaks as published by their makers), with the measured time
here beside it. A bound is not a forecast: nothing is said of latency, which rules where a step is small. Growth is
that of counts alone, between two sizes of each option, as the exponent of a power law.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import train
from .checks import check
from .commands import one_sentence, use_compilation_cache
from .markdown import section
from .micro._harness import time_side_by_side
from .options import Options, RunOptions
from .runs import CHUNK, build, compile_roll_out
from .work import Work, count

# Threefry: 20 rounds of an addition, a rotation and an exclusive or, and keys added, for 64 bits
OPS_PER_BIT = 1.5
REPEATS = 5


class Device(NamedTuple):
    """Peaks a second: matrix products in float32, other operations, bytes of memory and of links."""

    name: str
    products: float
    others: float
    memory: float
    link: float = math.inf


# Dense peaks of one chip as their makers publish them: NVIDIA's data sheets of A100 80GB SXM and H100 SXM (products in
# float32 by tensor cores as TF32, links NVLink in one direction), Google Cloud's pages of TPU v4, v5e and v5p (float32
# in six passes of bfloat16, which `highest` takes; links of a chip in one direction). Vector peaks of TPUs are not
# published: what is not a product is bounded by memory alone there.
ACCELERATORS = (
    Device("A100", 156e12, 19.5e12, 2.0e12, 300e9),
    Device("H100", 495e12, 67e12, 3.35e12, 450e9),
    Device("TPU v4", 275e12 / 6, math.inf, 1.2e12, 150e9),
    Device("TPU v5e", 197e12 / 6, math.inf, 0.82e12, 100e9),
    Device("TPU v5p", 459e12 / 6, math.inf, 2.77e12, 300e9),
)
DEVICES = (1, 8, 64, 256)


class Cost(NamedTuple):
    """A part of a run: its work, evaluations of the energy, work that more devices do not share, bytes they reduce."""

    work: Work
    energies: float
    fixed: Work = Work()
    reduced_bytes: float = 0.0


def bounds(cost: Cost, device: Device, devices: int = 1) -> dict[str, float]:
    """The least seconds each resource of `devices` chips takes, states split evenly between them.

    Parameters are replicated, so each does all of what goes with them. The links: a ring all-reduce of the gradients,
    `2 (n - 1) / n` times their bytes over each link.
    """
    work = (cost.work + cost.fixed * -1.0) * (1 / devices) + cost.fixed
    return {
        "products": work.products / device.products,
        "others": (work.others + OPS_PER_BIT * work.random_bits) / device.others,
        "memory": work.bytes / device.memory,
        "links": 2 * (devices - 1) / devices * cost.reduced_bytes / device.link,
    }


def measure_peaks() -> Device:
    """Peaks of this machine: a large product, a polynomial on an array in cache, and a copy of a large array."""
    a = jnp.ones((2048, 2048), jnp.float32)
    big = jnp.ones(2**26, jnp.float32)
    small = jnp.full(2**14, 0.5, jnp.float32)
    terms = 256

    def polynomial(x: jax.Array) -> jax.Array:
        y = x
        for _ in range(terms):
            y = y * x + 0.5
        return y

    return Device(
        "this machine",
        2 * 2048**3 / _seconds(lambda a: a @ a, a),
        2 * terms * small.size / _seconds(polynomial, small),
        2 * big.nbytes / _seconds(lambda x: x + 1.0, big),
    )


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """The median of some runs of the compiled function."""
    return time_side_by_side({"": (function, arguments)}, REPEATS)[""].median


class Plan(NamedTuple):
    """The costs of an iteration and of samples, one call of the network, and what may be run for a measurement."""

    costs: dict[str, Cost]
    call: Work
    num_parameters: int
    programs: dict[str, tuple[Callable[..., Any], Callable[[], tuple]]]


def plan(name: str, options: RunOptions) -> Plan:
    """Traces the run; nothing is allocated but what its composition needs."""
    setup = build(name, options)
    state = jax.eval_shape(lambda: setup.init(options.seed))
    key = jax.eval_shape(lambda: jax.random.key(0))
    num_parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    roll_out = compile_roll_out(setup, CHUNK)
    x = jax.eval_shape(lambda k, p: setup.sampler.sample(k, setup.predictor(p)).x, key, state.params)
    iteration, samples = "an iteration", f"{CHUNK} samples"

    def call(params: Any, x: Any) -> Any:
        return setup.predictor(params)(x, jnp.zeros(()))

    def started() -> Any:
        return setup.init(options.seed)

    phase = setup.phases[-1]
    work = count(phase.trainer.step, state)
    return Plan(
        {
            iteration: Cost(
                work,
                phase.energies_per_iteration,
                _fixed(name, options, work),
                4.0 * num_parameters * options.updates_per_iteration,
            ),
            samples: Cost(
                count(roll_out, state.params, key),
                CHUNK * setup.energies_per_sample if setup.has_energy else 0,
            ),
        },
        count(call, state.params, x),
        num_parameters,
        {
            iteration: (phase.trainer.step, lambda: (started(),)),
            samples: (roll_out, lambda: (started().params, jax.random.key(0))),
        },
    )


def _fixed(name: str, options: RunOptions, work: Work) -> Work:
    """What an iteration does however few its states are: `2 work(half of them) - work`, as work is linear in them."""
    sizes = {"batch_size": options.batch_size}
    if isinstance(options, Options):
        sizes["num_rollouts"] = options.num_rollouts
    if any(size % 2 or size < 4 for size in sizes.values()):
        return Work()
    half = {option: size // 2 for option, size in sizes.items()}
    setup = build(name, dataclasses.replace(options, **half))  # type: ignore[arg-type]
    fewer = count(setup.phases[-1].trainer.step, jax.eval_shape(lambda: setup.init(options.seed)))
    return (fewer * 2 + work * -1.0).at_least_nothing()


def growth(name: str, options: Options) -> dict[str, dict[str, float]]:
    """`{option: {quantity: exponent}}` of an iteration when the option doubles; of a lattice's length, in sites."""
    found = {}
    base = plan(name, options).costs["an iteration"]
    for option in (
        "length",
        "dim",
        "num_wells",
        "width",
        "num_rollouts",
        "batch_size",
        "num_proposals",
        "num_steps",
    ):
        size = getattr(options, option, None)
        if not isinstance(size, int):
            continue
        changed: dict[str, Any] = {option: 2 * size}
        if option in ("num_rollouts", "batch_size") and options.objective == "log-variance":
            # on-policy: as many roll-outs as states in a batch
            changed = {"num_rollouts": 2 * options.num_rollouts, "batch_size": 2 * options.batch_size}
        other = dataclasses.replace(options, **changed)
        try:
            check(other)
            grown = plan(name, other).costs["an iteration"]
        except ValueError:
            continue  # an option that this run has no use for, or cannot double
        powers = {
            quantity: _exponent(getattr(grown.work, quantity), getattr(base.work, quantity))
            for quantity in ("products", "others", "random_bits", "bytes")
        }
        powers["energies"] = _exponent(grown.energies, base.energies)
        if option == "length":
            powers = {quantity: power / 2 for quantity, power in powers.items()}
        if any(powers.values()):
            found["sites" if option == "length" else option] = powers
    return found


def _exponent(grown: float, base: float) -> float:
    return math.log2(grown / base) if base and grown else 0.0


def main(arguments: list[str] | None = None) -> str:
    """The command; prints and returns its tables."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.strip())
        raise SystemExit(0 if arguments else 2)
    is_measured = "--no-measure" not in arguments
    words = [word for word in arguments if word != "--no-measure"]
    with one_sentence():
        name, options = train.parse([*words, "--out", "unused"])
        found = plan(name, options)
    here = measure_peaks()
    text = "\n".join(
        (
            _work_table(found),
            _bound_table(found, here, is_measured),
            _device_table(found),
            _growth_table(growth(name, options)) if isinstance(options, Options) else "",
        )
    )
    print(text)
    return text


def _work_table(found: Plan) -> str:
    head = ["", "products", "other operations", "functions among them", "random bits", "bytes", "energies"]
    head += ["network calls"]
    lines = []
    for part, cost in found.costs.items():
        work = cost.work
        cells = (work.products, work.others, work.functions, work.random_bits, work.bytes, cost.energies)
        calls = work.products / found.call.products if found.call.products else math.nan
        lines.append([part, *(f"{cell:.2e}" for cell in cells), f"{calls:.1f}"])
    note = (
        f"{found.num_parameters} parameters. A network call is counted by its products, {found.call.products:.2e} for "
        "one state; a gradient is worth about three.\n"
    )
    return section("Work", head, lines) + "\n" + note


def _bound_table(found: Plan, here: Device, is_measured: bool) -> str:
    head = ["", "device", "products", "others", "memory", "bound", "measured"]
    lines = []
    for part, cost in found.costs.items():
        for device in (here, *ACCELERATORS):
            least = bounds(cost, device)
            measured = ""
            if device is here and is_measured:
                function, make = found.programs[part]
                measured = _time(_seconds(function, *make()))
            cells = [_time(least[name]) for name in ("products", "others", "memory")]
            lines.append([part, device.name, *cells, _time(max(least.values())), measured])
    note = (
        f"This machine: {here.products:.2e} operations of products a second, {here.others:.2e} others, "
        f"{here.memory:.2e} bytes.\n"
    )
    return section("Least time", head, lines) + "\n" + note


def _device_table(found: Plan) -> str:
    part, cost = next(iter(found.costs.items()))
    head = [f"{part} on", *(f"{n} devices" if n > 1 else "1 device" for n in DEVICES)]
    lines = []
    for device in ACCELERATORS:
        cells = []
        for n in DEVICES:
            least = bounds(cost, device, n)
            what = max(least, key=lambda name: least[name])
            cells.append(f"{_time(least[what])} ({what})")
        lines.append([device.name, *cells])
    return section("Over devices: the least time, and of what", head, lines)


def _growth_table(found: dict[str, dict[str, float]]) -> str:
    quantities = ("products", "others", "random_bits", "bytes", "energies")
    lines = [[option, *(f"{powers[q]:.2f}" for q in quantities)] for option, powers in found.items()]
    head = ["an iteration over", *(q.replace("_", " ") for q in quantities)]
    return section("Growth: exponents when an option doubles", head, lines)


def _time(seconds: float) -> str:
    if seconds == 0:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


if __name__ == "__main__":
    use_compilation_cache()
    main()
