"""Seconds until the demo's training step is compiled, in a new process: without anything stored, and from the cache.

    python -m benchmarks.micro.compiling [--repeats 5]

Tracing is included, imports are not. The cache is the one that the commands keep (`benchmarks.commands`), here in a
folder of its own that is empty before each cold run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from ..commands import use_compilation_cache
from ..options import IsingOptions
from ..records import Record
from ..runs import build
from ._harness import MIN_REPEATS, BenchOptions, Timing, parse, report

COLD, CACHED = "demo's step, cold", "demo's step, from the cache"


@dataclass(kw_only=True)
class CompileOptions(BenchOptions):
    """Options of the measurement."""

    repeats: int = MIN_REPEATS
    """Pairs of processes."""
    cache: Path | None = None
    """Only compile once in this process, with this cache, and print the seconds of wall time and of all cores."""


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the table and returns its records."""
    options = parse(CompileOptions, "compiling", args)
    if options.cache is not None:
        print(*_compile(options.cache))
        return []
    rounds = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append((_in_child(folder), _in_child(folder)))
    timings = {
        name: Timing(None, tuple(pair[i][0] for pair in rounds), tuple(pair[i][1] for pair in rounds))
        for i, name in enumerate((COLD, CACHED))
    }
    return report("compiling", timings, options, shapes={"length": 5}, baseline=COLD)


def _compile(cache: Path) -> tuple[float, float]:
    use_compilation_cache(cache)
    setup = build("ising", IsingOptions(out=Path(), length=5, beta=0.4))
    state = setup.init(0)
    started = time.perf_counter(), time.process_time()
    jax.jit(setup.phases[0].trainer.step, donate_argnums=0).lower(state).compile()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def _in_child(cache: str) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.micro.compiling", "--cache", cache]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu = map(float, done.stdout.split()[-2:])
    return wall, cpu


if __name__ == "__main__":
    main()
