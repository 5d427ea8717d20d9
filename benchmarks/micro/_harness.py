"""Timing: compilation apart, `block_until_ready`, medians, ratios of things measured in turn in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax


class Timing(NamedTuple):
    """Seconds: to compile, and the median, fastest and slowest of the runs."""

    compile: float
    median: float
    fastest: float
    slowest: float


def time_side_by_side(
    candidates: dict[str, tuple[Callable[..., Any], Sequence[Any]]], repeats: int = 15
) -> dict[str, Timing]:
    """Times jitted functions in turn, round after round, so that what else the machine does falls on all alike."""
    compiled: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {}
    compile_seconds: dict[str, float] = {}
    for name, (fn, arguments) in candidates.items():
        started = time.perf_counter()
        compiled[name] = jax.jit(fn).lower(*arguments).compile()
        compile_seconds[name] = time.perf_counter() - started
        jax.block_until_ready(compiled[name](*arguments))
        seconds[name] = []
    for _ in range(repeats):
        for name, (_, arguments) in candidates.items():
            started = time.perf_counter()
            jax.block_until_ready(compiled[name](*arguments))
            seconds[name].append(time.perf_counter() - started)
    return {
        name: Timing(compile_seconds[name], sorted(runs)[len(runs) // 2], min(runs), max(runs))
        for name, runs in seconds.items()
    }
