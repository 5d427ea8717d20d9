"""Mixtures of objectives through the command: which holds when, what it costs, what is refused."""

import json
import shutil

import numpy as np
import pytest

from benchmarks import train
from benchmarks.options import ThreeModesOptions
from benchmarks.setups import objectives_in_turn
from tests.benchmarks.commands import TINY, arguments, refused

WORDS = {"process": "diffusion", "objective": "weighted", "iterations": 4, "checkpoint_every": 2}


@pytest.mark.parametrize(
    ("given", "phases"),
    [
        ({}, [({"weighted": 1.0}, 10)]),
        ({"mix": "log-variance"}, [({"weighted": 0.5, "log-variance": 0.5}, 10)]),
        (
            {"mix": "likelihood", "mix_weight": 0.25, "mix_start": 0.3},
            [({"weighted": 1.0}, 3), ({"weighted": 0.75, "likelihood": 0.25}, 10)],
        ),
        (
            {"mix": "log-variance", "mix_weight": 1.0, "mix_start": 0.8},
            [({"weighted": 1.0}, 8), ({"log-variance": 1.0}, 10)],
        ),
        (
            {"mix": "log-variance", "mix_weight": 1.0, "mix_start": 0.99},  # one iteration is left at least
            [({"weighted": 1.0}, 9), ({"log-variance": 1.0}, 10)],
        ),
    ],
)
def test_schedule(given, phases, tmp_path):
    options = ThreeModesOptions(out=tmp_path, objective="weighted", iterations=10, **given)
    assert objectives_in_turn(options) == phases


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A plain run, one whose second half is log-variance alone, and one of both all the time."""
    folder = tmp_path_factory.mktemp("runs")
    mixes = {
        "plain": {},
        "turn": {"mix": "log-variance", "mix_start": 0.5, "mix_weight": 1},
        "both": {"mix": "log-variance", "mix_weight": 0.125},
    }
    for name, mix in mixes.items():
        train.main(arguments("three-modes", folder / name, **WORDS, **mix))
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def seen(row):
    """What a row says of parameters and states."""
    return [row[name] for name in ("loss", "grad_norm", "ess_fraction", "log_z", "elbo")]


@pytest.mark.slow
def test_one_after_the_other(runs):
    """The first half is that of a run without a mixture; then the loss is half the variance of own log-weights."""
    plain, turn = rows(runs / "plain"), rows(runs / "turn")
    assert [seen(r) for r in turn[:2]] == [seen(r) for r in plain[:2]]
    assert seen(turn[2])[0] != seen(plain[2])[0]
    examples = TINY["updates_per_iteration"] * TINY["batch_size"]
    spent = np.diff([0, *(r["energy_evaluations"] for r in turn)])
    np.testing.assert_array_equal(spent, [TINY["num_rollouts"] + n for n in (0, 0, examples, examples)])
    report = json.loads((runs / "turn" / "report.json").read_text())
    assert report["energy_evaluations"] == spent.sum() + TINY["num_samples"]
    assert np.isfinite(report["log_z"]["estimate"])


@pytest.mark.slow
def test_a_mixture_all_the_time(runs):
    """Loss and energies are of both from the first update on."""
    plain, both = rows(runs / "plain"), rows(runs / "both")
    assert both[0]["log_z"] == plain[0]["log_z"], "the same roll-outs before any update"
    assert both[0]["loss"] != plain[0]["loss"]
    examples = TINY["updates_per_iteration"] * TINY["batch_size"]
    assert both[-1]["energy_evaluations"] == 4 * (TINY["num_rollouts"] + examples)


@pytest.mark.slow
def test_resumed_between_phases(runs, tmp_path):
    """Killed as the first phase ends: the same parameters, hence the same samples."""
    folder = shutil.copytree(runs / "turn", tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "4")
    words = {**WORDS, "mix": "log-variance", "mix_start": 0.5, "mix_weight": 1}
    train.main(arguments("three-modes", folder, "--resume", **words))
    with np.load(folder / "samples.npz") as a, np.load(runs / "turn" / "samples.npz") as b:
        np.testing.assert_array_equal(a["log_weight"], b["log_weight"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mix": "weighted"}, "mix: weighted is the objective already"),
        ({"mix": "bootstrap"}, "mix: bootstrap learns a noised energy as well"),
        ({"mix": "log-variance", "objective": "bootstrap"}, "mix: bootstrap learns a noised energy as well"),
        ({"mix_weight": 0.3}, "mix: names the objective that --mix-weight and --mix-start are about"),
        ({"mix": "snis", "mix_weight": 0}, "mix_weight: in (0, 1], got 0"),
        ({"mix": "snis", "mix_weight": "nan"}, "mix_weight: in (0, 1], got nan"),
        ({"mix": "snis", "mix_start": 1}, "mix_start: a fraction in [0, 1), got 1"),
        ({"mix": "snis", "mix_weight": 1}, "mix_start: weighted has no iteration"),
    ],
    ids=str,
)
def test_what_makes_no_sense(options, line, capsys, tmp_path):
    words = arguments("three-modes", tmp_path / "x", **{**WORDS, **options})
    assert f"error: {line}" in refused(train.main, words, capsys)
    assert not (tmp_path / "x").exists()
