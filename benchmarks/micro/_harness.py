"""Timing: compilation apart, `block_until_ready`, medians, ratios of things measured in turn in one run."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import tyro

from ..commands import one_sentence
from ..records import Record, append, circumstances, table

MIN_REPEATS = 5
PAUSE = 0.02  # seconds, in which threads of the case before that spin for more work fall asleep
ROUND = 0.1  # seconds: the first hundredths after a pause are slower, which work that goes on does not notice
Case = tuple[Callable[..., Any], Sequence[Any]]  # a function to be jitted, and its arguments


@dataclass(kw_only=True)
class BenchOptions:
    """Options of every measurement of speed."""

    repeats: int = 15
    """Rounds; in each of them every case is run, for a tenth of a second or once."""
    record: Path | None = None
    """Append a line of JSON for each case to this file."""
    peak: str = ""
    """Only run this case and print peak memory in MiB, of this process above that after import and of a run."""


class HasRepeats(Protocol):
    """Options of a measurement in rounds."""

    repeats: int


OptionsT = TypeVar("OptionsT", bound=HasRepeats)


class Timing(NamedTuple):
    """Seconds to compile (`None` where nothing is), and of each round, also of all cores together; or an error."""

    compile: float | None
    seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    error: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        return min(self.seconds)

    @property
    def slowest(self) -> float:
        return max(self.seconds)

    def ratio(self, baseline: Timing) -> float:
        """The median of the ratios round by round, which falls on what else the machine did in both alike."""
        return statistics.median(a / b for a, b in zip(self.seconds, baseline.seconds))


def parse(kind: type[OptionsT], name: str, args: Sequence[str] | None) -> OptionsT:
    """Options of the command `benchmarks.micro.NAME`; bad ones end it before anything is measured."""
    options = tyro.cli(kind, prog=f"python -m benchmarks.micro.{name}", args=args)
    with one_sentence():
        check_repeats(options.repeats)
    return options


def check_repeats(repeats: int) -> None:
    """Raises `ValueError` for too few rounds to have a spread."""
    if repeats < MIN_REPEATS:
        raise ValueError(f"repeats: at least {MIN_REPEATS}, got {repeats}")


def rerun_with_devices(name: str, num_devices: int, args: Sequence[str]) -> None:
    """With fewer devices, ends this process with what `benchmarks.micro.NAME` does on so many fake ones."""
    if jax.device_count() >= num_devices:
        return
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={num_devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", f"benchmarks.micro.{name}", *args]
    raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)


def time_side_by_side(cases: Mapping[str, Case], repeats: int = 15) -> dict[str, Timing]:
    """Times jitted functions in turn."""
    compiled = {name: compile_case(case) for name, case in cases.items()}
    timings = time_in_turn({name: run for name, (run, _) in compiled.items()}, repeats)
    return {name: timing._replace(compile=compiled[name][1]) for name, timing in timings.items()}


def compile_case(case: Case) -> tuple[Callable[[], Any], float]:
    """`(run, seconds)`: what runs the compiled function to its end, and how long compilation took."""
    fn, arguments = case
    started = time.perf_counter()
    program = jax.jit(fn).lower(*arguments).compile()
    seconds = time.perf_counter() - started
    return lambda: jax.block_until_ready(program(*arguments)), seconds


def time_in_turn(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    """Times each, round after round, so that what else the machine does falls on all alike.

    In its round each is called until a tenth of a second is over, by what it takes after a first call, and the mean is
    kept. Raises `ValueError` for fewer than five rounds.
    """
    check_repeats(repeats)

    def timed(run: Callable[[], Any], num: int) -> tuple[float, float]:
        time.sleep(PAUSE)
        started = time.perf_counter(), time.process_time()
        for _ in range(num):
            run()
        wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
        return wall / num, cpu / num

    nums = {}
    for name, run in runs.items():
        run()
        nums[name] = max(1, math.ceil(ROUND / timed(run, 1)[0]))
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(timed(run, nums[name]))
    return {
        name: Timing(None, tuple(wall for wall, _ in rounds), tuple(cpu for _, cpu in rounds))
        for name, rounds in taken.items()
    }


def report(
    benchmark: str,
    timings: Mapping[str, Timing],
    options: BenchOptions,
    *,
    shapes: Mapping[str, int],
    baseline: str | Mapping[str, str] = "",
    dtype: str = "float32",
    peaks: Mapping[str, Peak] | None = None,
    others: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Record]:
    """Makes records of timings, prints their table, and appends them to `options.record`.

    `baseline`: the case to which ratios are taken, or one for each case. `peaks` and `others` by case.
    """
    found = circumstances()
    records = []
    for case, timing in timings.items():
        base = baseline if isinstance(baseline, str) else baseline.get(case, "")
        usable = base in timings and not timing.error and not timings[base].error
        record = Record(
            benchmark=benchmark,
            case=case,
            shapes=dict(shapes),
            dtype=dtype,
            num_repeats=len(timing.seconds),
            compile_seconds=timing.compile,
            baseline=base if usable else "",
            ratio=timing.ratio(timings[base]) if usable else None,
            peak_mib=peaks[case].process if peaks and case in peaks else None,
            run_mib=peaks[case].run if peaks and case in peaks else None,
            error=timing.error,
            others=dict((others or {}).get(case, {})),
            **found,  # type: ignore[arg-type]
        )
        if not timing.error:
            record = record._replace(
                median=timing.median,
                fastest=timing.fastest,
                slowest=timing.slowest,
                cpu_median=statistics.median(timing.cpu_seconds),
            )
        records.append(record)
    print(f"{benchmark}\n{table(records)}", flush=True)
    if options.record is not None:
        append(options.record, records)
    return records


class Peak(NamedTuple):
    """MiB: of a process, less what it had after its imports, compilation included; of a second run alone."""

    process: float
    run: float


def peak_of(prepare: Callable[[], tuple[Callable[[], Any], Any]]) -> str:
    """The `Peak` of this process, as `peak_in_child` reads it.

    `prepare() -> (run, ...)`, e.g. `compile_case` of something, is called here, and what it made is run twice.
    """
    before = _memory("VmRSS")
    run = prepare()[0]
    run()
    process = _memory("VmHWM") - before
    if (clear := Path("/proc/self/clear_refs")).exists():
        # what the allocator keeps would hide what the run takes
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        clear.write_text("5")  # the peak is now what there is
    before = _memory("VmRSS")
    run()
    return f"{process} {_memory('VmHWM') - before}"


def peak_in_child(module: str, case: str, *words: str) -> Peak:
    """`--peak` of a module in a process of its own."""
    command = [sys.executable, "-m", module, "--peak", case, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Peak(*map(float, done.stdout.split()[-2:]))


def _memory(field: str) -> float:
    """MiB. Not `ru_maxrss`, which a process inherits from the one that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return int(re.search(rf"{field}:\s+(\d+) kB", status.read_text())[1]) / 1024  # type: ignore[index]
