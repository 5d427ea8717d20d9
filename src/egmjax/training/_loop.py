"""The training loop: compile once, iterate, write metrics and checkpoints, go on where a run was cut off."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax

from ..sharding import is_writer
from ._checkpoint import Checkpoints, write_atomically
from ._history import History
from ._trainer import Trainer, TrainState


class FitResult(NamedTuple):
    """The final state, every iteration's metrics, and seconds of compilation (this process) and training (all)."""

    state: TrainState
    history: History
    compile_seconds: float
    train_seconds: float


def fit(
    trainer: Trainer,
    state: TrainState,
    num_iterations: int,
    *,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int = 20,
    metrics_file: Path | None = None,
    energies_per_iteration: int = 0,
    energies_at_start: int = 0,
    on_metrics: Callable[[dict[str, float]], None] | None = None,
) -> FitResult:
    """Runs `trainer.step` until `state.iteration == num_iterations`; `state` is donated.

    With `checkpoints`, saves every `checkpoint_every` iterations and at the end; an iteration is a deterministic
    function of the state, so a run that is killed and resumed from its last checkpoint ends with the very same
    parameters. `metrics_file` gets one JSON line an iteration; lines past the starting iteration, left by a run that
    was cut off, are dropped first. Objectives take turns where `fit` goes on from the state of another trainer, of the
    same parameters and optimiser. Of several processes one, `sharding.is_writer`, reads and writes the file; all call
    this function, and `on_metrics` is called in each. Rows count evaluations of the energy: `energies_at_start`, in the
    very first iteration, and `energies_per_iteration`. Metrics returned stay in memory, 8 bytes a number: a hundred
    bytes an iteration. Raises `ValueError` for `checkpoint_every < 1`.
    """
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every: at least 1, got {checkpoint_every}")
    if not is_writer():
        metrics_file = None
    first = int(state.iteration)
    history = _rewind(metrics_file, first)
    train_seconds = history[-1]["seconds"] if history else 0.0
    energies = (
        history[-1]["energy_evaluations"] if history else energies_at_start + first * energies_per_iteration
    )
    if first >= num_iterations:
        return FitResult(state, history, 0.0, train_seconds)

    started = time.perf_counter()
    step = jax.jit(trainer.step, donate_argnums=0).lower(state).compile()
    compile_seconds = time.perf_counter() - started

    with _appending(metrics_file) as write:
        for iteration in range(first + 1, num_iterations + 1):
            started = time.perf_counter()
            state, metrics = step(state)
            row: dict[str, float] = {"iteration": iteration}
            row |= {name: float(value) for name, value in jax.device_get(metrics).items()}
            train_seconds += time.perf_counter() - started
            energies += energies_per_iteration
            row |= {"seconds": train_seconds, "energy_evaluations": energies}
            history.append(row)
            write(row)
            if on_metrics is not None:
                on_metrics(row)
            if checkpoints is not None and (iteration % checkpoint_every == 0 or iteration == num_iterations):
                checkpoints.save(iteration, state)
    return FitResult(state, history, compile_seconds, train_seconds)


def _rewind(path: Path | None, iteration: int) -> History:
    """The rows up to `iteration`; the file is cut back to them. A torn last line is dropped."""
    rows = History()
    if path is None or not path.exists():
        return rows
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row["iteration"] > iteration:
            break
        rows.append({name: math.nan if value is None else value for name, value in row.items()})
    write_atomically(path, "".join(_line(row) for row in rows))
    return rows


def _line(row: dict[str, float]) -> str:
    """JSON has no nan and no infinity: they become null."""
    return json.dumps({name: value if math.isfinite(value) else None for name, value in row.items()}) + "\n"


@contextmanager
def _appending(path: Path | None) -> Iterator[Callable[[dict[str, float]], None]]:
    if path is None:
        yield lambda row: None
        return
    with path.open("a") as stream:

        def write(row: dict[str, float]) -> None:
            stream.write(_line(row))
            stream.flush()

        yield write
