"""The likelihood benchmark with tiny settings: its figures against exact ones, what it writes, what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import likelihood as benchmark
from benchmarks import train
from benchmarks.learned import load_energy
from benchmarks.likelihood_report import evaluate
from egmjax.targets import GaussianMixture
from tests.benchmarks.commands import option_words, refused, strict_json

pytest.importorskip("distrax")
pytestmark = pytest.mark.slow  # compiles a lot

TINY = {
    "num_updates": 4,
    "batch_size": 16,
    "num_chains": 16,
    "num_data": 500,
    "num_local": 2,
    "num_candidates": 3,
    "width": 8,
    "depth": 1,
    "flow_layers": 2,
    "flow_width": 8,
    "num_eval": 4000,
    "num_samples": 2000,
}


def words(out, target="four-modes", **options):
    return [target, *option_words(out, {**TINY, "method": "balanced-mle", **options})]


def test_what_a_run_leaves(tmp_path):
    """The balanced method in three dimensions, which uses all of the parts."""
    found = train.main(words(tmp_path / "run", dim=3))
    assert strict_json((tmp_path / "run" / "report.json").read_text()) == json.loads(json.dumps(found))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    assert 0 <= found["model_mass_tv"] < 1
    assert found["lowest_level_kl"] > 0
    assert found["log_z_lower"] == pytest.approx(found["log_z"], abs=0.2)
    assert found["log_z_upper"] == pytest.approx(found["log_z"], abs=0.5)
    assert sum(found["model_mass"]) == pytest.approx(1)
    assert (tmp_path / "run" / "report.png").stat().st_size > 10_000
    samples = np.load(tmp_path / "run" / "samples.npz")
    assert samples["x"].shape == (TINY["num_samples"], 3)
    assert found["sample_log_z"] == pytest.approx(found["log_z"], abs=0.2)
    # the model as a target is the one reported
    target = load_energy(tmp_path / "run")
    law = GaussianMixture.four_modes(3)
    x = law.sample(jax.random.key(0), 20_000)
    log_ratio = np.asarray(jax.jit(jax.vmap(lambda y: law.energy(y) - target.energy(y)))(x), np.float64)
    kl = found["log_z"] - log_ratio.mean()
    assert kl == pytest.approx(
        found["lowest_level_kl"], abs=4 * log_ratio.std() * np.sqrt(1 / 20_000 + 1 / TINY["num_eval"])
    )
    np.testing.assert_allclose(target.data_weights, [0.1, 0.2, 0.3, 0.4], rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "target"),
    [("pcd-ula", "rings"), ("cd", "two-modes"), ("flow", "forty-modes"), ("pcd", "rings")],
)
def test_other_methods_train(method, target):
    options = benchmark.LikelihoodOptions(out=None, method=method, target=target, **TINY)
    setup = benchmark.build(options)
    _, metrics = jax.jit(setup.trainer.step)(setup.init(0))
    assert np.isfinite(metrics["loss"])


def test_a_flow_alone_needs_no_weights(tmp_path):
    found = train.main(words(tmp_path / "run", "rings", method="flow"))
    assert found["sample_ess"] == pytest.approx(1, abs=1e-5)
    assert found["log_z"] == pytest.approx(0, abs=1e-3)
    assert found["lowest_level_kl"] > 0
    assert 0 < found["lowest_level_ess"] <= 1


@pytest.mark.parametrize(("target", "dim"), [("rings", 2), ("four-modes", 3)])
def test_figures_of_known_models(target, dim):
    """The exact law scores zero. Twice the mass in the lightest mode is seen as what it is, beside any constant."""
    options = benchmark.LikelihoodOptions(out=None, target=target, dim=dim, method="cd", **TINY)
    setup = benchmark.build(options)
    exact = setup._replace(log_density=lambda params, x: -setup.law.energy(x))
    found = evaluate(exact, None, num_eval=4000)
    error = 0.03 if dim > 2 else 1e-3  # 4000 draws; cells cut the grid
    assert found["model_mass_tv"] < error
    assert found["lowest_level_ess"] == pytest.approx(1, abs=1e-4)
    assert found["lowest_level_kl"] == pytest.approx(0, abs=error)

    def heavier(params, x):
        return 7.0 + jnp.log(1.0 + (setup.law.mode_index(x) == 0)) - setup.law.energy(x)

    found = evaluate(setup._replace(log_density=heavier), None, num_eval=4000)
    np.testing.assert_allclose(found["model_mass"], np.array([0.2, 0.2, 0.3, 0.4]) / 1.1, atol=error)
    assert found["log_z"] == pytest.approx(7 + np.log(1.1), abs=error)


def test_bad_input(tmp_path, capsys):
    for options in (
        {"dim": 1},
        {"learning_rate": 0.0},
        {"num_candidates": 1},
        {"defensive": 1.0},
        {"data_share": 2.0},
        {"energy_penalty": -1.0},
        {"num_chains": 0},
    ):
        line = refused(train.main, words(tmp_path / "new", **options), capsys)
        assert next(iter(options)) in line
    assert not (tmp_path / "new").exists()
