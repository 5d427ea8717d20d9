"""Several sites a step, as an option of a run and of what is drawn from one that is trained."""

import shutil

import numpy as np
import pytest

from benchmarks import load, sample, train
from tests.benchmarks.commands import arguments, refused, snapshot, strict_json

RUN = {"order": "random", "iterations": 40, "learning_rate": 0.03}  # long enough to have learned something


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run in random order, two sites a step."""
    folder = tmp_path_factory.mktemp("blocks") / "run"
    train.main(arguments("ising", folder, sites_per_step=2, **RUN))
    return folder


@pytest.mark.slow
def test_the_report_has_the_total_correlation(trained, finished, tmp_path, capsys):
    """Beside a run with one site a step: the same training, and an EUBO that is less by what is reported."""
    report = strict_json((trained / "report.json").read_text())
    found = report["total_correlation"]
    assert len(found["per_step"]) == len(found["per_step_stderr"]) == 5  # nine sites
    assert found["num"] == 100
    np.testing.assert_allclose(sum(found["per_step"]), found["total"], atol=1e-5)
    assert found["per_step"][-1] == 0  # one site is left
    assert found["total"] > 5 * found["stderr"] > 0
    capsys.readouterr()
    train.main(arguments("ising", tmp_path / "one", **RUN))
    assert "total correlation" not in capsys.readouterr().out
    one = strict_json((tmp_path / "one" / "report.json").read_text())
    assert one["total_correlation"] is None
    np.testing.assert_allclose(report["log_z"]["eubo"] - found["total"], one["log_z"]["eubo"], atol=1e-4)
    rows = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (trained, tmp_path / "one")]
    losses = [[strict_json(row)["loss"] for row in lines] for lines in rows]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_one_network_at_several_numbers(trained, tmp_path, capsys):
    """`benchmarks.sample`: fewer steps, the same Z, and one EUBO less total correlation for all of them."""
    run, base = shutil.copytree(trained, tmp_path / "run"), []
    for k, num_steps in (((1,), 9), ((2,), 5), ((1, 2, 3), 4)):
        file = tmp_path / f"{num_steps}.npz"
        sample.main([str(run), "--num", "3000", "--sites-per-step", *map(str, k), "--out", str(file)])
        assert f"{num_steps} steps each" in capsys.readouterr().out
        report = strict_json(file.with_suffix(".blocks.json").read_text())
        assert (report["sites_per_step"], report["num_steps"]) == (list(k), num_steps)
        log_z, cost = report["log_z"], report["total_correlation"]
        assert abs(log_z["estimate"] - log_z["exact"]) < 4 * log_z["stderr"]
        base.append(log_z["eubo"] - cost["total"])
        assert (cost["total"] > 0.02) == (k != (1,))
        with np.load(file) as data:
            weight = np.exp(data["log_weight"].astype(np.float64) - log_z["exact"])
        assert report["ess_fraction"] == pytest.approx(weight.sum() ** 2 / 3000 / (weight**2).sum(), rel=1e-3)
    np.testing.assert_allclose(base, base[0], atol=1e-4)
    assert load(run).setup.sampler.num_steps == 5  # its own number
    assert load(run, sites_per_step=(1,)).setup.sampler.num_steps == 9


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"order": "coarse-to-fine"}, "sites_per_step: several at once are for masks in random order"),
        ({"order": "raster"}, "sites_per_step: several at once are for masks in random order"),
        ({"order": "random", "process": "uniform"}, "sites_per_step: several at once are for masks"),
        ({"order": "random", "sites_per_step": 10}, "sites_per_step: from 1 to the 9 sites, got"),
        ({"order": "random", "sites_per_step": 0}, "sites_per_step: from 1 to the 9 sites, got"),
    ],
)
def test_what_makes_no_sense_is_refused(options, line, tmp_path, capsys):
    words = arguments("ising", tmp_path / "x", **{"sites_per_step": 2, **options})
    assert refused(train.main, words, capsys).startswith(f"error: {line}")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_refusals_of_more_samples(trained, finished, tmp_path, capsys):
    before = snapshot(trained)
    out = ["--out", tmp_path / "x.npz"]
    for words, line in (
        ([trained, "--sites-per-step", "10"], "sites_per_step: from 1 to the 9 sites"),
        ([finished("ising"), "--sites-per-step", "2"], "sites_per_step: several at once"),
        ([finished("gb-rbm"), "--sites-per-step", "2"], "sites_per_step: an option of lattices"),
        ([trained, "--sites-per-step", "2", "--smc", "10"], "sites_per_step: of independent samples"),
        ([trained, "--sites-per-step", "2", "--chains", "i-sir"], "sites_per_step: of independent samples"),
    ):
        assert refused(sample.main, [*words, *out], capsys).startswith(f"error: {line}")
    (tmp_path / "x.blocks.json").write_text("mine")
    line = refused(sample.main, [trained, "--sites-per-step", "2", *out], capsys)
    assert line.startswith("error: out: ")
    assert (tmp_path / "x.blocks.json").read_text() == "mine"
    assert snapshot(trained) == before
