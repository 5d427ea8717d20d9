"""What a run leaves in its folder, for every target."""

import json
import math

import numpy as np
import pytest

from tests.benchmarks.commands import TARGETS, TINY, arguments, strict_json

KEYS = {
    "target",
    "metrics",
    "log_z",
    "ess_fraction",
    "forward_ess_fraction",
    "pareto_k",
    "largest_weight",
    "num_samples",
    "seconds",
    "energy_evaluations",
    "config",
    "versions",
}
PARTS = {  # of a state: (name, shape, kind)
    "ising": [("x", (9,), "i")],
    "three-modes": [("x", (2,), "f")],
    "gmm25": [("x", (2,), "f")],
    "gb-rbm": [("x0", (2,), "f"), ("x1", (3,), "i")],
}
METRICS = {  # at least
    "ising": {"energy_w1", "mean_energy", "magnetization_w1", "abs_magnetization_w1", "mode_weights_tv"},
    "three-modes": {"energy_w1", "mean_energy", "mode_weights_tv", "x_w2"},
    "gmm25": {"energy_w1", "mean_energy", "mode_weights_tv", "x_w2"},
    "gb-rbm": {"energy_w1", "mean_energy", "mode_weights_tv", "x_w2"},
}

SOME_SLOW = [pytest.param(name, marks=pytest.mark.slow) if name == "gmm25" else name for name in TARGETS]


@pytest.mark.parametrize("target", SOME_SLOW)
def test_files_of_a_run(target, finished):
    folder = finished(target)
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "samples.npz",
        "report.png",
        "report.json",
    }

    config = strict_json((folder / "config.json").read_text())
    assert config["target"] == target
    assert config["seed"] == 0
    assert {k: config[k] for k in TINY} == TINY

    rows = [strict_json(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    for name in ("loss", "ess_fraction", "log_z", "seconds", "energy_evaluations"):
        assert all(math.isfinite(row[name]) for row in rows)

    assert (folder / "checkpoints" / "3").is_dir()
    picture = (folder / "report.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(picture) > 10_000

    with np.load(folder / "samples.npz") as samples:
        assert set(samples) == {name for name, _, _ in PARTS[target]} | {"log_weight"}
        assert samples["log_weight"].shape == (500,)
        assert samples["log_weight"].dtype.kind == "f"
        for name, shape, kind in PARTS[target]:
            assert samples[name].shape == (500, *shape)
            assert samples[name].dtype.kind == kind
            if kind == "i":
                assert set(np.unique(samples[name])) <= {0, 1}


@pytest.mark.parametrize("target", SOME_SLOW)
def test_report(target, finished):
    folder = finished(target)
    report = strict_json((folder / "report.json").read_text())
    assert set(report) >= KEYS
    assert report["target"] == target
    assert report["config"] == json.loads((folder / "config.json").read_text())
    assert report["num_samples"] == 500
    assert set(report["metrics"]) >= METRICS[target]
    for name, entry in report["metrics"].items():
        assert set(entry) == {"value", "weighted", "floor"}, name
        assert all(isinstance(v, float) and v >= 0 for v in entry.values()), name
        assert entry["floor"] > 0, name
    assert set(report["log_z"]) == {"estimate", "stderr", "elbo", "eubo", "exact", "score"}
    for entry in report["exactness"]["p_values"].values():
        assert all(p is None or 0 <= p <= 1 for p in entry.values())
    assert set(report["exactness"]["p_values"]) >= {"energy", "cells"}
    assert set(report["seconds"]) == {"compile", "train", "sample"}
    assert all(v > 0 for v in report["seconds"].values())
    assert set(report["cpu_seconds"]) == {"train", "sample"}
    assert set(report["versions"]) >= {"egmjax", "jax", "python"}

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    # local fields of the last sites, and the weights of a batch, count as energies too
    energies = 2 * 64 + 2 * 32 * 2 if target == "ising" else 64 + 2 * 32 * 16
    assert [row["energy_evaluations"] for row in rows] == [energies, 2 * energies, 3 * energies]
    assert report["energy_evaluations"] == 3 * energies + 500


@pytest.mark.parametrize("target", SOME_SLOW)
def test_the_report_agrees_with_the_samples(target, finished):
    """log Z, its error, ELBO and ESS from samples.npz, in float64; ELBO <= log Z <= EUBO."""
    folder = finished(target)
    report = json.loads((folder / "report.json").read_text())
    with np.load(folder / "samples.npz") as samples:
        log_w = samples["log_weight"].astype(np.float64)
    w = np.exp(log_w - log_w.max())
    ess = w.sum() ** 2 / (len(w) * (w**2).sum())
    log_z = np.log(w.mean()) + log_w.max()
    np.testing.assert_allclose(report["ess_fraction"], ess, rtol=1e-4)
    np.testing.assert_allclose(report["log_z"]["estimate"], log_z, rtol=1e-4)
    np.testing.assert_allclose(report["log_z"]["stderr"], np.sqrt((1 / ess - 1) / len(w)), rtol=1e-3)
    np.testing.assert_allclose(report["log_z"]["elbo"], log_w.mean(), rtol=1e-4)
    np.testing.assert_allclose(report["largest_weight"], w.max() / w.sum(), rtol=1e-4)
    exact = report["log_z"]["exact"]
    slack = 4 * log_w.std() / np.sqrt(len(w))
    assert report["log_z"]["elbo"] < exact + slack
    assert report["log_z"]["eubo"] > exact - slack
    assert 0 < report["forward_ess_fraction"] <= 1
    if report["pareto_k"] < 0.5:
        assert abs(report["log_z"]["estimate"] - exact) < 5 * report["log_z"]["stderr"]


def test_the_table_is_printed(tmp_path, capsys):
    from benchmarks import train

    train.main(arguments("ising", tmp_path / "run", iterations=1, num_samples=50, num_exact=20))
    out = capsys.readouterr().out
    for word in ("floor", "weighted", "energy_w1", "log Z", "ESS", "EUBO", str(tmp_path / "run")):
        assert word in out


def test_the_same_seed_gives_the_same_samples(a_run, tmp_path):
    """Bit for bit; another seed does not."""
    from benchmarks import train

    for seed, same in ((0, True), (1, False)):
        folder = tmp_path / f"seed-{seed}"
        train.main(arguments("ising", folder, seed=seed))
        with np.load(folder / "samples.npz") as a, np.load(a_run / "samples.npz") as b:
            assert np.array_equal(a["x"], b["x"]) == same
            assert np.array_equal(a["log_weight"], b["log_weight"]) == same


def test_evaluation_shares_no_key_with_training(tmp_path, monkeypatch):
    """The noise of the reported samples is not that of roll-outs the network was trained on."""
    import jax

    from benchmarks import target_report, train
    from benchmarks.options import IsingOptions
    from benchmarks.runs import build

    used = []
    real = target_report.draw
    monkeypatch.setattr(
        target_report,
        "draw",
        lambda setup, params, key, num: used.append(key) or real(setup, params, key, num),
    )
    train.main(arguments("ising", tmp_path / "run", iterations=1, num_samples=50, num_exact=20))
    data = lambda k: tuple(int(v) for v in jax.random.key_data(k))  # noqa: E731
    assert len({data(key) for key in used}) == 2  # samples, and draws that are tested
    evaluation = {data(k) for key in used for k in (key, *(jax.random.fold_in(key, i) for i in range(4)))}

    state = build("ising", IsingOptions(out=tmp_path, length=3)).init(0).key
    training = set()
    for _ in range(10):  # as the trainer does
        training.add(data(state))
        state, rollout, updates = jax.random.split(state, 3)
        training |= {data(rollout), data(updates)}
    assert not evaluation & training


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "snis"},
        {"order": "raster"},
        {"average": 5},
        {"order": "random", "network": "lattice", "radius": 1, "length": 4},
        {"field": 0.3},
        {"coupling": -1.0},
        {"temper_fraction": 0.0},
    ],
    ids=str,
)
@pytest.mark.slow
def test_options_of_the_ising_target(tmp_path, options):
    from benchmarks import train

    train.main(arguments("ising", tmp_path / "run", **options))
    report = strict_json((tmp_path / "run" / "report.json").read_text())
    assert {k: report["config"][k] for k in options} == options
    assert report["symmetries"] == options.get("average", 1)
    assert 0 < report["ess_fraction"] <= 1


@pytest.mark.slow
def test_options_of_flows(tmp_path):
    from benchmarks import train

    train.main(arguments("three-modes", tmp_path / "run", objective="weighted", stepper="euler"))
    report = strict_json((tmp_path / "run" / "report.json").read_text())
    assert report["energy_evaluations"] == 3 * 64 + 500
