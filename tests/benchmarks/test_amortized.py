"""The amortised run with tiny settings: it trains, its report is certified against Kaufman, bad input is refused."""

import json

import jax
import numpy as np
import pytest

from benchmarks import amortized
from egmjax.targets import Ising, enumerate_states
from tests.benchmarks.commands import option_words, refused, strict_json

pytestmark = pytest.mark.slow  # compiles a lot

TINY = {
    "length": 3,
    "num_betas": 3,
    "num_samples": 2000,
    "num_groups": 4,
    "iterations": 150,
    "updates_per_iteration": 4,
    "learning_rate": 1e-2,
    "batch_size": 64,
    "num_rollouts": 128,
    "width": 6,
    "depth": 1,
}


def words(out, **options):
    return option_words(out, {**TINY, **options})


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("amortized") / "run"
    return amortized.main(words(folder)), folder


def test_every_temperature_is_certified(report):
    """Within 5 standard errors of the exact values at every beta, of which there are nine numbers."""
    rows = report[0]["rows"]
    assert [row["beta"] for row in rows] == pytest.approx([0.1, 0.35, 0.6])
    for row in rows:
        assert row["num_nonfinite"] == 0
        assert row["ess_fraction"] > 0.1
        for name in amortized.QUANTITIES:
            stderr = row[f"{name}_stderr"]
            assert 0 < stderr < 0.2 * abs(row[f"exact_{name}"])
            assert abs(row[name] - row[f"exact_{name}"]) < 5 * stderr, (row["beta"], name)
    # what would be seen if all temperatures were mistaken for the first
    assert abs(rows[2]["log_z"] - rows[0]["exact_log_z"]) > 50 * rows[2]["log_z_stderr"]


def test_exact_values_are_those_of_enumeration(x64):
    states = enumerate_states(9, 2)
    energies = np.asarray(jax.vmap(Ising(length=3, beta=0.35).energy)(states))
    weight = np.exp(-energies)
    mean = weight @ energies / weight.sum()
    want = amortized.exact(3, 0.35)
    assert want["exact_log_z"] == pytest.approx(np.log(weight.sum()))
    assert want["exact_mean_energy"] == pytest.approx(mean)
    assert want["exact_heat_capacity"] == pytest.approx(weight @ (energies - mean) ** 2 / weight.sum())


def test_what_a_run_leaves(report):
    found, folder = report
    assert strict_json((folder / "report.json").read_text()) == json.loads(json.dumps(found))
    assert (folder / "report.png").stat().st_size > 10_000
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == TINY["iterations"]


def test_bad_input(tmp_path, capsys):
    for options in ({"beta_low": 0.7}, {"num_groups": 0}, {"length": 2}, {"learning_rate": 0.0}):
        line = refused(amortized.main, words(tmp_path / "new", **options), capsys)
        assert next(iter(options)) in line
    (tmp_path / "file").write_text("kept")
    assert "out" in refused(amortized.main, words(tmp_path), capsys)
    assert not (tmp_path / "new").exists()
