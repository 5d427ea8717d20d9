"""Metrics in memory: a list of dictionaries to look at, a few bytes a number to keep."""

import gc
import sys

import numpy as np
import pytest

from egmjax.training import History, fit
from tests.training.test_checkpoint_and_loop import toy

ROWS = [
    {"iteration": 1, "loss": 0.5, "seconds": 2.0},
    {"iteration": 2, "loss": -np.inf, "seconds": 4.0},
    {"iteration": 3, "gap": 0.25, "seconds": 5.0},  # another trainer's
    {"iteration": 4, "gap": 0.125, "seconds": 6.0},
    {"iteration": 5, "loss": 1.0, "seconds": 7.0},
]


def test_reads_like_a_list():
    history = History(ROWS)
    assert history == ROWS
    assert history == ROWS
    assert list(history) == ROWS
    assert len(history) == 5
    assert [history[i] for i in range(-5, 5)] == ROWS + ROWS
    for part in (slice(1, 4), slice(-2, None), slice(None, None, -2), slice(7, 9)):
        assert history[part] == ROWS[part]
    assert [type(value) for value in history[-1].values()] == [int, float, float]


def test_none():
    history = History()
    assert history == []
    assert not history
    for index in (0, -1):
        with pytest.raises(IndexError):
            history[index]
    with pytest.raises(IndexError):
        History(ROWS)[5]


@pytest.mark.parametrize(
    "other", [ROWS[:4], [*ROWS[:4], {**ROWS[4], "loss": 2.0}], [*ROWS, ROWS[0]], None, 3]
)
def test_others_differ(other):
    assert History(ROWS) != other


def test_rows_are_copies():
    history = History(ROWS)
    history[0]["loss"] = 7.0
    assert history == ROWS


def test_an_iteration_leaves_no_objects_behind():
    """A dictionary and its numbers would be seven objects an iteration."""
    case, num = toy(), 1000
    fit(case.trainer, case.init(), 10)
    gc.collect()
    before = sys.getallocatedblocks()
    history = fit(case.trainer, case.init(), num).history
    gc.collect()
    assert len(history) == num
    assert sys.getallocatedblocks() - before < num
