"""Loops trace once: what jax itself reports as traced, during iterations of training."""

import functools

import jax
import jax.numpy as jnp
import pytest

from egmjax.training import Checkpoints, fit
from tests.training.cases import make

TRACE = "/jax/core/compile/jaxpr_trace_duration"


@functools.cache
def traces():
    """Names of all functions traced from now on in this process."""
    names: list[str] = []

    def note(event, seconds, **about):
        if event == TRACE:
            names.append(str(about.get("fun_name", "?")))

    jax.monitoring.register_event_duration_secs_listener(note)
    return names


def test_the_count_can_rise():
    seen = traces()
    before = len(seen)
    for size in (3, 4):
        jax.jit(lambda x: x + 1)(jnp.ones(size))
    assert len(seen) >= before + 2


@pytest.mark.parametrize("kind", ["masked", "product"])
def test_iterations_trace_nothing(kind, tmp_path):
    """Neither the step, nor its metrics, nor a checkpoint, whichever the iteration and the temperature."""
    case, seen = make(kind), traces()
    counts = []
    fit(
        case.trainer,
        case.init(0),
        7,
        checkpoints=Checkpoints(tmp_path / "checkpoints", {"kind": kind}),
        checkpoint_every=2,
        metrics_file=tmp_path / "metrics.jsonl",
        on_metrics=lambda row: counts.append(len(seen)),
    )
    # the first checkpoint may trace what reads arrays off the device
    assert len(counts) == 7
    assert len(set(counts[3:])) == 1, seen[counts[3] :]
