"""What a threshold costs, from rows made up after a law; and a tiny suite."""

import math

import numpy as np
import pytest

from benchmarks import scaling, suite
from egmjax.targets import Ising
from tests.benchmarks.commands import strict_json


def made_up(lengths=(8, 12, 16), schedules=(100, 200, 400, 800, 1600), seeds=(0,)):
    """`KL = L^2 / updates` a site, a cost of `L^2` an update: the threshold `e` costs `L^4 / e`."""
    return [
        {
            "sites": length**2,
            "num_updates": n,
            "seed": seed,
            "kl_per_site": length**2 / n * (1 + 0.5 * (2 * seed - 1) * (len(seeds) > 1)),
            "ess_fraction": 0.5,
            "energy_evaluations": n * length**2,
            "cpu_seconds": 1e-3 * n * length**2,
        }
        for length in lengths
        for n in schedules
        for seed in seeds
    ]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_costs_and_exponents_of_a_known_law(seeds):
    rows = made_up(seeds=seeds)
    found = scaling.reached(rows, 0.3, "energy_evaluations")
    assert {n: at.is_bound for n, at in found.items()} == {64: False, 144: False, 256: False}
    for sites, at in found.items():
        assert at.cost == pytest.approx(sites**2 / 0.3, rel=1e-9)
    law = scaling.power_law(found)
    assert law.exponent == pytest.approx(2, abs=1e-9)
    assert law.factor == pytest.approx(1 / 0.3)
    # the shortest schedule is below .7 at L = 8 already, the longest is not below .1 at L = 16
    loose, strict = (scaling.reached(rows, e, "cpu_seconds") for e in (0.7, 0.1))
    assert loose[64] == scaling.Reached(pytest.approx(6.4), True)
    assert list(strict) == [64, 144]
    assert scaling.power_law(loose).exponent == pytest.approx(2, abs=1e-9)  # without the bound
    assert math.isnan(scaling.power_law(strict).stderr)
    assert scaling.power_law(scaling.reached(rows, 0.05, "cpu_seconds")) is None
    # a seeded fault: with bounds taken for costs the exponent is another
    blind = {n: at._replace(is_bound=False) for n, at in loose.items()}
    assert abs(scaling.power_law(blind).exponent - 2) > 0.02


def test_tables_and_figure(monkeypatch):
    monkeypatch.setattr(scaling, "THRESHOLDS", (0.7, 0.3, 0.05))
    text = scaling.tabulate(made_up())
    assert "| exponent over L^2 | 2.00 | 2.00 +- 0.00 | - |" in text
    assert "| 8 | < 6.4e+03 | 1.37e+04 | 8.19e+04 |" in text
    assert "1.6e-01, 0.500, 409.6 s |" in text
    left, right = scaling.draw_figure(made_up())["scaling"].axes
    assert [t.get_text() for t in left.get_legend().get_texts()] == [
        "0.7 nats a site: power 2.00",
        "0.3 nats a site: power 2.00 +- 0.00",
        "0.05 nats a site",
    ]
    assert right.get_xscale() == right.get_yscale() == "log"
    monkeypatch.setattr(scaling, "THRESHOLDS", (1e-9,))
    assert scaling.draw_figure(made_up()) == {}


@pytest.mark.slow
def test_a_tiny_suite(tmp_path):
    words = ["scaling", "--tiny", "--experiments", "ising-8", "--methods", "500", "1000"]
    suite.main([*words, "--out", str(tmp_path / "run")])
    rows = [strict_json(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    rows.sort(key=lambda row: row["num_updates"])
    assert [(r["seed"], r["method"], r["num_updates"], r["sites"]) for r in rows] == [
        (0, "500", 2, 16),
        (0, "1000", 3, 16),
    ]
    for row in rows:
        assert row["kl_per_site"] > 4 * row["kl_per_site_stderr"] > 0
        assert row["cpu_seconds"] > 0
        metrics = (tmp_path / "run" / f"ising-8-{row['method']}-0" / "metrics.jsonl").read_text().splitlines()
        last = strict_json(metrics[-1])
        assert last["energy_evaluations"] == row["energy_evaluations"]
        # the roll-outs of the last iteration, 16 of them, were made with nearly the same parameters
        assert (Ising(4, 0.4407).log_z - last["elbo"]) / 16 == pytest.approx(row["kl_per_site"], rel=0.5)
    assert "| 4 | " in (tmp_path / "run" / "tables.md").read_text()
    assert np.isfinite(rows[0]["ess_fraction"])
