"""A training run that is killed, resumed and resized at random, for hours.

    python -m benchmarks.soak --out DIR --minutes 120
    python -m benchmarks.soak --out DIR --minutes 120 --run ising --length 8 --order random

DIR/run is the folder of one `python -m benchmarks.train`, which is started again and again, each time on a random
number of processes and (fake) devices, and killed by SIGKILL after a random time: in a step, in compiling, in writing a
line or a checkpoint. Of several processes one is killed first, and the others after the while they are given to notice.
Checked after each round, every fault being counted and printed:

* a start goes on from a checkpoint no older than the newest that was complete when the last round ended;
* lines of `metrics.jsonl` are those of iterations 1, 2, 3, ... without a gap, none of them damaged;
* iterations that are done a second time have the losses of the first time: exactly where the shape is the same, as
  then the very same state went on; the largest difference between shapes is reported;
* no start fails, nothing hangs, and resident memory does not grow within a round by more than 5 percent.

At the end the sampler is loaded and draws. DIR gets `rounds.jsonl`, `soak.json` and `soak.png`; the command ends with 1
if there was a fault.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from egmjax.metrics import summarize_weights
from egmjax.training import write_atomically

from . import train
from .checks import check_seed
from .commands import one_sentence, refuse_taken
from .options import RunOptions
from .report import clean
from .runs import load

SHAPES = ((1, 1), (1, 2), (2, 1), (1, 4), (2, 2))
COMMAND = (sys.executable, "-m", "benchmarks.train")
PATIENCE = 300.0  # seconds without a line, after which a round hangs
NOTICE = 150.0  # seconds in which the others end when one process is gone; jax says so after 100 without its heartbeat
WARM = 20.0  # seconds after the first line from which memory is looked at
LEAST_SPAN = 60.0  # seconds that growth is measured over
MOST_GROWTH = 0.05


@dataclass(kw_only=True)
class SoakOptions:
    """Options of the soak."""

    out: Path
    """Folder for the results; must not exist."""
    minutes: float = 120.0
    """Rounds are begun for so long."""
    seed: int = 0
    """Seed of shapes and times, not of the run."""
    longest: float = 240.0
    """Seconds that a round takes at most."""
    run: tuple[str, ...] = ("gb-rbm",)
    """The words after `python -m benchmarks.train`, without its folder; last of the options."""


class Round(NamedTuple):
    """What a round did. `shape` is (processes, devices of each); `memory` lists (second, MiB of all processes)."""

    shape: tuple[int, int]
    started: float
    seconds: float
    resumed: int | None
    last: int
    newest: int
    num_redone: int
    is_same_shape: bool
    difference: float
    growth: float
    noticed: bool | None
    memory: list[tuple[float, float]]
    faults: list[str]

    @property
    def begin(self) -> int:
        """The iteration it went on from; where it was killed before it said so, the last one."""
        return self.last if self.resumed is None and not self.memory else self.resumed or 0


class Done(NamedTuple):
    """Iterations that are on record: their losses and the shape that made those past the last checkpoint."""

    losses: dict[int, float]
    shape: tuple[int, int] | None


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """The command; bad input ends it with one sentence and exit code 2, a fault with 1."""
    words = sys.argv[1:] if arguments is None else arguments
    where = words.index("--run") if "--run" in words else len(words)
    options = tyro.cli(SoakOptions, args=words[:where], prog="python -m benchmarks.soak")
    if where < len(words):
        options.run = tuple(words[where + 1 :])  # words of another command: not tyro's
    with one_sentence():
        check_seed(options.seed)
        if not 0 < options.minutes < np.inf:
            raise ValueError(f"minutes: must be positive and finite, got {options.minutes}")
        if not 0 < options.longest < np.inf:
            raise ValueError(f"longest: must be positive and finite, got {options.longest}")
        refuse_taken(options.out)
        _run_options(options)
    # ended by a signal, it ends what it started too
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        found = soak(options)
    finally:
        signal.signal(signal.SIGTERM, before)
    if found["num_faults"]:
        raise SystemExit(1)
    return found


def _run_options(options: SoakOptions) -> RunOptions:
    """Those of the run, looked at before hours are spent."""
    if not options.run:
        raise ValueError("run: expected the words after python -m benchmarks.train")
    chosen = {"--out", "--resume", "--overwrite", "--iterations", "--coordinator"} & set(options.run)
    if chosen:
        raise ValueError(f"run: {min(chosen)} is chosen here")
    return train.parse([*options.run, *_own(options.out)])[1]


def _own(out: Path) -> list[str]:
    """It must not end by itself."""
    return ["--out", str(out / "run"), "--iterations", "1000000"]


def soak(options: SoakOptions) -> dict[str, Any]:
    """Rounds until time is up, then a look at the sampler; what was found, which is written to the folder."""
    options.out.mkdir(parents=True, exist_ok=True)
    chance, began = random.Random(options.seed), time.monotonic()
    rounds: list[Round] = []
    done = Done({}, None)
    with (options.out / "rounds.jsonl").open("w") as log:
        while time.monotonic() - began < 60 * options.minutes:
            shape = chance.choice(SHAPES)
            if rounds and chance.random() < 0.4:
                shape = rounds[-1].shape
            # some are killed before their first step
            limit = chance.uniform(0, min(20, options.longest) if chance.random() < 0.3 else options.longest)
            one, done = _round(options, chance, shape, limit, done)
            one = one._replace(started=time.monotonic() - began - one.seconds)
            rounds.append(one)
            log.write(json.dumps(clean(one._asdict())) + "\n")
            log.flush()
            print(_line(len(rounds), one), flush=True)
    found = summarize(rounds)
    if newest_checkpoint(options.out / "run"):
        found |= _look(options.out / "run")
    write_atomically(options.out / "soak.json", json.dumps(clean(found), indent=1) + "\n")
    draw(rounds).savefig(options.out / "soak.png", dpi=80)
    print(json.dumps(clean(found), indent=1))
    return found


def _round(
    options: SoakOptions, chance: random.Random, shape: tuple[int, int], limit: float, before: Done
) -> tuple[Round, Done]:
    folder = options.out / "run"
    metrics, complete = folder / "metrics.jsonl", newest_checkpoint(folder)
    logs = [options.out / f"process-{i}.log" for i in range(shape[0])]
    started = time.monotonic()
    processes = _start(options, shape, logs, resume=(folder / "config.json").exists())
    try:
        memory, faults = _watch(processes, metrics, started, limit, logs)
        noticed = _kill(processes, chance.randrange(len(processes)))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    resumed = _resumed(logs[0])
    losses, damage = read_losses(metrics)
    faults += damage
    begun, is_new = resumed or 0, losses != before.losses
    if (resumed is not None or is_new) and begun < complete:
        faults.append(f"checkpoint {complete} was complete, and the run went on from {begun}")
    redone = [i for i in losses if i > begun and i in before.losses] if is_new else []
    difference = max((_difference(losses[i], before.losses[i]) for i in redone), default=0.0)
    if before.shape == shape and difference > 0:
        faults.append(f"the same shape, going on from {begun}, has other losses, by up to {difference:.1e}")
    growth = memory_growth(memory)
    if growth > MOST_GROWTH:
        faults.append(f"memory grew by {growth:.0%} in a round")
    one = Round(
        shape=shape,
        started=0.0,
        seconds=time.monotonic() - started,
        resumed=resumed,
        last=max(losses, default=0),
        newest=newest_checkpoint(folder),
        num_redone=len(redone),
        is_same_shape=before.shape == shape,
        difference=difference,
        growth=growth,
        noticed=noticed,
        memory=memory,
        faults=faults,
    )
    return one, Done(losses, shape if is_new else before.shape)


def _start(
    options: SoakOptions, shape: tuple[int, int], logs: list[Path], resume: bool
) -> list[subprocess.Popen[bytes]]:
    num, devices = shape
    words = [*options.run, *_own(options.out), *(["--resume"] if resume else [])]
    if num > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        words += ["--coordinator", f"localhost:{port}", "--num-processes", str(num), "--process-id"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    started = []
    for i, log in enumerate(logs):
        with log.open("wb") as file:
            started.append(
                subprocess.Popen(
                    [*COMMAND, *words, *([str(i)] if num > 1 else [])],
                    env={**os.environ, "XLA_FLAGS": flags, "PYTHONUNBUFFERED": "1"},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


def _watch(
    processes: list[subprocess.Popen[bytes]], metrics: Path, started: float, limit: float, logs: list[Path]
) -> tuple[list[tuple[float, float]], list[str]]:
    """Resident memory from the first line of the round on, twice a second, until its time is up; faults."""
    memory: list[tuple[float, float]] = []
    size, changed = _size(metrics), started
    while (now := time.monotonic()) - started < limit:
        if any(process.poll() is not None for process in processes):
            return memory, [f"a process ended by itself: {_tail(logs)}"]
        before, size = size, _size(metrics)
        if size > before:
            # it also shrinks, where lines past the checkpoint are cut off before anything is compiled
            changed = now
        if now - changed > PATIENCE:
            return memory, [f"nothing happened for {PATIENCE:.0f} s: {_tail(logs)}"]
        if changed > started:
            memory.append((now - started, sum(map(_resident, processes))))
        time.sleep(0.5)
    return memory, []


def _kill(processes: list[subprocess.Popen[bytes]], first: int) -> bool | None:
    """SIGKILL for one; whether the others noticed. They are killed as well."""
    processes[first].send_signal(signal.SIGKILL)
    others = [process for i, process in enumerate(processes) if i != first]
    until = time.monotonic() + NOTICE
    while any(p.poll() is None for p in others) and time.monotonic() < until:
        time.sleep(0.1)
    return all(p.poll() is not None for p in others) if others else None


def newest_checkpoint(folder: Path) -> int:
    """The iteration of the newest complete one, 0 where there is none; one that is being written has another name."""
    store = folder / "checkpoints"
    names = [path.name for path in store.iterdir()] if store.exists() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def read_losses(metrics: Path) -> tuple[dict[int, float], list[str]]:
    """Losses by iteration, and faults; a last line that was cut off is none."""
    text = metrics.read_text() if metrics.exists() else ""
    try:
        rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except ValueError:
        return {}, ["metrics.jsonl has a damaged line"]
    iterations = [row["iteration"] for row in rows]
    faults = [] if iterations == list(range(1, len(rows) + 1)) else ["metrics.jsonl has a gap"]
    return {row["iteration"]: row["loss"] for row in rows}, faults


def memory_growth(memory: list[tuple[float, float]]) -> float:
    """Growth of memory from the first to the last third of what follows the warming up; 0 for less than a minute."""
    begin = memory[0][0] + WARM if memory else 0.0
    used = np.array([amount for second, amount in memory if second >= begin])
    span = memory[-1][0] - begin if memory else 0.0
    third = len(used) // 3
    if span < LEAST_SPAN or not third:
        return 0.0
    return float(np.median(used[-third:]) / np.median(used[:third])) - 1


def _difference(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), abs(b), 1e-30)


def _resident(process: subprocess.Popen[bytes]) -> float:
    """MiB."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _resumed(log: Path) -> int | None:
    """What the run said it went on from; `None` if it was killed before, or began."""
    said = re.findall(r"resuming after iteration (\d+)", log.read_text(errors="replace"))
    return int(said[0]) if said else None


def _tail(logs: list[Path]) -> str:
    return " / ".join(log.read_text(errors="replace")[-400:] for log in logs)


def _line(number: int, one: Round) -> str:
    processes, devices = one.shape
    text = f"{number:4d}  {processes} x {devices}  {one.seconds:5.0f} s  from {one.begin} to {one.last}"
    text += f"  checkpoint {one.newest}  redone {one.num_redone} ({one.difference:.1e})"
    if one.memory:
        text += f"  {one.memory[-1][1]:.0f} MiB ({one.growth:+.1%})"
    return "  ".join([text, *(f"FAULT {fault}" for fault in one.faults)])


def summarize(rounds: list[Round]) -> dict[str, Any]:
    """Numbers over all rounds."""
    alike = [one.difference for one in rounds if one.num_redone and one.is_same_shape]
    others = [one.difference for one in rounds if one.num_redone and not one.is_same_shape]
    several = [one.noticed for one in rounds if one.noticed is not None]
    measured = [one for one in rounds if one.growth]
    return {
        "num_rounds": len(rounds),
        "num_faults": sum(len(one.faults) for one in rounds),
        "hours": sum(one.seconds for one in rounds) / 3600,
        "iterations": rounds[-1].last,
        "iterations_redone": sum(one.num_redone for one in rounds),
        "rounds_redone_in_the_same_shape": len(alike),
        "largest_difference_of_the_same_shape": max(alike, default=0.0),
        "rounds_redone_in_another_shape": len(others),
        "largest_difference_of_another_shape": max(others, default=0.0),
        "killed_before_a_step": sum(not one.memory for one in rounds),
        "one_of_several_killed": len(several),
        "others_noticed": sum(map(bool, several)),
        "rounds_whose_memory_was_followed": len(measured),
        "largest_growth_in_a_round": max((one.growth for one in measured), default=0.0),
        "median_growth_in_a_round": float(np.median([one.growth for one in measured])) if measured else 0.0,
        "memory_mib": {
            f"{shape[0]}x{shape[1]}": [round(of[0]), round(of[-1])]
            for shape in SHAPES
            if (of := [one.memory[-1][1] for one in rounds if one.memory and one.shape == shape])
        },
    }


def _look(folder: Path) -> dict[str, Any]:
    """The sampler of the last checkpoint."""
    run = load(folder)
    _, log_weight = run.sample(jax.random.key(1), 2000)
    if log_weight is None:
        return {}
    summary = summarize_weights(log_weight)
    return {"ess_fraction": float(summary.ess_fraction), "log_z": float(summary.log_z)}


def draw(rounds: list[Round]) -> Any:
    """Iterations and memory over time, a colour for each shape."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for i, shape in enumerate(SHAPES):
        label: str | None = f"{shape[0]} x {shape[1]} devices"
        for one in rounds:
            if one.shape != shape:
                continue
            at = one.started / 60
            ends = [at, at + one.seconds / 60]
            above.plot(ends, [one.begin, one.last], color=f"C{i}", label=label)
            below.plot([at + s / 60 for s, _ in one.memory], [m for _, m in one.memory], color=f"C{i}")
            label = None
    above.set_ylabel("iteration")
    above.legend(fontsize="small")
    below.set_ylabel("resident memory, MiB")
    below.set_xlabel("minutes")
    return figure


if __name__ == "__main__":
    main()
