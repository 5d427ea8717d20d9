"""Energies of levels with tiny settings: its figures against exact ones, what it writes, what it refuses."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import ebm as benchmark
from benchmarks import energies, train
from benchmarks.energy_report import write_model
from benchmarks.law_tests import hold_against_laws
from benchmarks.learned import load_energy
from benchmarks.report import compare
from egmjax import ebm
from egmjax.targets import Rings
from tests.benchmarks.commands import option_words, refused, snapshot, strict_json

pytestmark = pytest.mark.slow  # compiles a lot

TINY = {
    "num_updates": 20,
    "noised_batch": 64,
    "num_data": 500,
    "num_levels": 8,
    "width": 8,
    "depth": 1,
    "num_eval": 4000,
    "num_samples": 1000,
    "num_steps": 10,
}


def words(out, target="two-modes", **options):
    return [target, *option_words(out, {**TINY, "method": "diffclf", **options})]


@pytest.mark.parametrize(("method", "target"), [("diffclf", "rings"), ("tsm", "two-modes")])
def test_what_a_run_leaves(method, target, tmp_path):
    found = train.main(words(tmp_path / "run", target, method=method))
    assert strict_json((tmp_path / "run" / "report.json").read_text()) == json.loads(json.dumps(found))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    assert len(found["ess"]) == TINY["num_levels"]
    assert 0 <= found["model_mass_tv"] < 1
    assert found["lowest_level_kl"] > 0
    assert (tmp_path / "run" / "report.png").stat().st_size > 10_000
    samples = np.load(tmp_path / "run" / "samples.npz")
    assert samples["x"].shape == (TINY["num_samples"], 2)
    # the weights' log Z is that of the energy at the lowest level
    target = load_energy(tmp_path / "run")
    x = jnp.asarray(samples["x"])
    low, high = x.min(axis=0) - 2, x.max(axis=0) + 2
    exact = ebm.quadrature_masses(lambda y: -target.energy(y), lambda y: 0, 1, low, high, 300)
    log_z = np.logaddexp.reduce(samples["log_weight"].astype(np.float64)) - np.log(len(x))
    error = np.sqrt((1 / found["sample_ess"] - 1) / len(x))
    assert log_z == pytest.approx(exact.log_z, abs=4 * error + 1e-3)
    assert found["sample_log_z"] == pytest.approx(log_z, abs=1e-4)


def test_defaults_go_with_law_and_dimension():
    def options(*words):
        return energies.parse([*words, "--out", "runs/none"])[1]

    plane, many = options("two-modes"), options("two-modes", "--dim", "32", "--width", "40")
    assert (plane.pick, many.pick, many.width) == ("random", "local", 40)
    assert many.num_updates > plane.num_updates
    assert options("forty-modes").num_frequencies > 0 == plane.num_frequencies
    with pytest.raises(ValueError, match=r"^num_frequencies: "):
        options("rings", "--method", "diffclf", "--num-frequencies", "-1")


def test_a_run_goes_on_where_it_was_cut_off(tmp_path, capsys):
    out = tmp_path / "run"
    short = {"num_updates": 100, "checkpoint_every": 50}
    found = train.main(words(out, **short))
    shutil.rmtree(out / "checkpoints" / "2")
    (out / "report.json").unlink()
    before = snapshot(out)
    assert "exists" in refused(train.main, words(out, **short), capsys)
    assert "learning_rate" in refused(
        train.main, [*words(out, **short, learning_rate=0.1), "--resume"], capsys
    )
    assert snapshot(out) == before
    again = train.main([*words(out, **short), "--resume"])
    assert "resuming after update 50" in capsys.readouterr().out
    ignored = {"seconds": None, "last": None}
    assert again | ignored == found | ignored
    assert again["last"]["loss"] == found["last"]["loss"]
    # the model as a target of the sampler, and what is not one
    target = load_energy(out)
    assert np.isfinite(target.energy(jnp.zeros(2)))
    np.testing.assert_allclose(target.data_weights, [2 / 3, 1 / 3], rtol=1e-5)
    # what is known of the data is not known of the model: shown beside its samples, but no law to test them against
    drawn = jnp.full((50, 2), 5.0), np.zeros(50)
    _, details = compare(target, *drawn, None, jax.random.key(0))
    assert details["mode_weights"]["data"] == list(target.data_weights)
    assert target.mode_weights is None
    assert hold_against_laws(target, *drawn)["p_values"] == {}
    train_words = ["learned", "--out", str(tmp_path / "sampler"), "--run"]
    assert "config.json" in refused(train.main, [*train_words, tmp_path], capsys)
    (out / "checkpoints" / "2" / "default" / "_METADATA").write_text("torn")
    assert "damaged" in refused(train.main, [*words(out, **short), "--resume"], capsys)
    assert "damaged" in refused(train.main, [*train_words, out], capsys)
    assert not (tmp_path / "sampler").exists()


def test_figures_of_known_models():
    """The exact energy scores zero; masses moved from 2/3 to 1/2 are seen as what they are, within 1 percent."""
    options = benchmark.EnergyOptions(out=None, **TINY)
    setup = benchmark.build(options)
    exact = ebm.log_density(setup.path, ebm.mixture_psi(setup.law, setup.path))
    found = benchmark.evaluate(options, setup, exact)
    for name in ("model_mass_tv", "model_mass_kl", "lowest_level_kl", "fisher"):
        assert found[name] == pytest.approx(0, abs=1e-4), name
    assert found["lowest_level_ess"] == pytest.approx(1, abs=1e-4)

    def even(x, t):  # half the mass each, and a constant that no figure may see
        return exact(x, t) + jnp.where(x[0] < 0, jnp.log(3 / 4), jnp.log(3 / 2)) + 7.0

    found = benchmark.evaluate(options, setup, even)
    np.testing.assert_allclose(found["model_mass"], [0.5, 0.5], atol=0.005)
    kl = 2 / 3 * np.log(4 / 3) + 1 / 3 * np.log(2 / 3)
    assert found["model_mass_kl"] == pytest.approx(kl, rel=0.01)
    assert found["lowest_level_kl"] == pytest.approx(kl, rel=0.01)
    second = 2 / 3 * (3 / 4) ** 2 + 1 / 3 * (3 / 2) ** 2
    assert found["lowest_level_ess"] == pytest.approx(1 / second, rel=0.01)


@pytest.mark.parametrize("method", ["dsm", "move-nce"])
def test_other_methods_train(method):
    options = benchmark.EnergyOptions(out=None, method=method, pick="mixed", **TINY)
    setup = benchmark.build(options)
    _, metrics = jax.jit(setup.trainer.step)(setup.init(0))
    assert np.isfinite(metrics["loss"])


def test_bad_input(tmp_path, capsys):
    for options in (
        {"dim": 0},
        {"target": "rings", "dim": 3},
        {"target": "digits-skewed", "dim": 2},
        {"target": "four-modes", "dim": 1},
        {"learning_rate": 0.0},
        {"num_data": 1},
        {"ema_decay": 1.5},
        {"seed": -1},
        {"num_picked": 1},
        {"max_gap": 8, "pick": "local"},
        {"noise_min": 20.0},
        {"num_samples": 0},
        {"num_steps": 0},
        {"method": "score"},
    ):
        line = refused(train.main, words(tmp_path / "new", **options), capsys)
        assert ("dim" if "target" in options else next(iter(options))) in line
    assert not (tmp_path / "new").exists()


def test_a_report_of_weights_that_are_all_lost(tmp_path):
    """A long run whose model is nowhere finite still leaves its samples and its picture."""
    law = Rings()
    x = law.sample(jax.random.key(0), 200)
    report = {"true_mass": [0.25] * 4, "model_mass": [0.25] * 4, "model_mass_tv": 0.0}
    density = lambda y: -law.energy(y)  # noqa: E731
    found = write_model(tmp_path, "lost", law, law, np.asarray(x), x, np.full(200, -np.inf), density, report)
    assert found["sample_ess"] == 0
    assert np.isnan(found["sample_mass_tv"])
    assert found["sample_num_nonfinite"] == 200
    assert (tmp_path / "report.png").exists()


def test_divergence_ends_the_command_with_one_sentence(tmp_path):
    with pytest.raises(
        SystemExit, match=r"^error: loss: not finite at iteration 1; .* lower the learning rate$"
    ):
        train.main(words(tmp_path / "run", learning_rate=1e30))
    assert not (tmp_path / "run" / "report.json").exists()
