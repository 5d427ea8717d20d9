"""The suite at its tiniest: rows, tables, figures, resuming, what is refused; and whether the baselines sample."""

import json

import jax
import numpy as np
import pytest

from benchmarks import chains, suite
from benchmarks.suite_tables import tabulate
from egmjax.targets import GaussianBernoulliRBM, Ising
from tests.benchmarks.commands import refused, strict_json

pytestmark = pytest.mark.slow  # compiles a lot

WORDS = ["egm", "--tiny", "--seeds", "0", "--experiments", "ising-5", "gb-rbm", "--methods", "snis"]


@pytest.fixture(scope="module", autouse=True)
def few_chains():
    before = chains.NUM_CHAINS
    chains.NUM_CHAINS = 100
    yield
    chains.NUM_CHAINS = before


@pytest.fixture(scope="module")
def finished_suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite") / "egm"
    suite.main([*WORDS, "--out", str(folder)])
    return folder


@pytest.mark.slow
def test_rows_tables_and_figures(finished_suite):
    rows = [strict_json(line) for line in (finished_suite / "rows.jsonl").read_text().splitlines()]
    assert sorted((r["experiment"], r["method"], r.get("beta", 0.0)) for r in rows) == [
        ("gb-rbm", "mcmc", 0.0),
        ("gb-rbm", "snis", 0.0),
        *[("ising-5", method, beta) for method in ("mcmc", "snis") for beta in (0.1, 0.6)],
    ]
    for row in rows:
        for name, entry in row["metrics"].items():
            assert entry["floor"] > 0, name
            assert np.isfinite(entry["value"])
        if row["method"] == "snis":
            assert 0 < row["ess_fraction"] <= 1
            assert row["exact_log_z"] is not None
    tables = (finished_suite / "tables.md").read_text()
    for word in ("### ising-5", "### gb-rbm", "| snis |", "| mcmc | - |", "energy_w1: raw, weighted, floor"):
        assert word in tables
    for name in ("temperatures", "targets"):
        assert (finished_suite / f"{name}.png").stat().st_size > 10_000


@pytest.mark.slow
def test_only_what_is_missing_is_made_again(finished_suite, monkeypatch):
    made = []
    monkeypatch.setattr(suite, "run_chains", lambda *args, **kw: made.append(args[1]) or pytest.fail("stop"))
    suite.main([*WORDS, "--out", str(finished_suite)])
    assert made == []
    (finished_suite / "ising-5-mcmc-0" / "rows.json").unlink()
    with pytest.raises(pytest.fail.Exception):
        suite.main([*WORDS, "--out", str(finished_suite)])
    assert len(made) == 1


def test_tables_average_over_seeds():
    """Two seeds, errors .1 and .3 with standard errors .1: mean .2, standard error .1, one interval of two covers."""
    entry = {"value": 2.0, "weighted": 1.0, "floor": 0.5}
    rows = [
        {
            "experiment": "e",
            "method": "snis",
            "seed": seed,
            "log_z": 1.0 + error,
            "log_z_stderr": 0.1,
            "exact_log_z": 1.0,
            "ess_fraction": 0.5,
            "energy_evaluations": 100,
            "seconds": 3.0,
            "metrics": {"m": entry},
        }
        for seed, error in enumerate((0.1, 0.3))
    ]
    line = tabulate(rows).splitlines()[-1]
    assert "| 0.200 +- 0.100 | 1 of 2 | 2.000, 1.000, 0.500 |" in line
    assert line.endswith("| 1.0e+02 | 3 | 2 |")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["egm", "--seeds", "0", "0"], "seeds"),
        (["egm", "--seeds", "-1"], "seeds"),
        (["egm", "--experiments", "ising-6"], "experiments"),
        (["nothing"], "suite"),
    ],
)
def test_what_is_refused(words, name, tmp_path, capsys):
    line = refused(suite.main, [*words, "--out", tmp_path / "x"], capsys)
    assert line.startswith(f"error: {name}: ")
    assert not (tmp_path / "x").exists()


def test_a_foreign_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "is not the folder of a suite" in refused(suite.main, ["egm", "--out", tmp_path], capsys)
    (tmp_path / "suite.json").write_text(json.dumps({"suite": "egm", "tiny": True}) + "\n")
    assert "holds another suite" in refused(suite.main, ["egm", "--out", tmp_path], capsys)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_chains_sample_the_target():
    """Mean energies within 5 standard errors, each chain's average counted once; spending within the budget."""
    for target, start, cost in (
        (Ising(length=3, beta=0.3), {}, 18),
        (GaussianBernoulliRBM.six_modes(), {"scale": 5.0, "step_size": 0.8}, 8),
    ):
        budget = 400 * 100 * cost
        done = chains.run_chains(jax.random.key(0), target, budget + cost, **start)
        assert done.energy_evaluations == budget
        assert done.num_sweeps == 400
        energies = np.asarray(jax.vmap(target.energy)(done.x)).reshape(100, 10).mean(1)
        error = energies.mean() - target.mean_energy
        stderr = energies.std(ddof=1) / 10.0
        assert stderr < 0.2 * target.energy_std
        assert abs(error) < 5 * stderr
        assert abs(energies.mean() - 2.0 * target.mean_energy) > 5 * stderr  # the test can tell


def test_a_budget_too_small_is_refused():
    with pytest.raises(ValueError, match=r"^budget: at least 36000, got 10"):
        chains.run_chains(jax.random.key(0), Ising(length=3, beta=0.3), 10)
