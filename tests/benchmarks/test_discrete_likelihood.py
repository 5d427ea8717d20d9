"""The benchmark of discrete energies with tiny settings: its laws, its figures, what it writes, what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from benchmarks import discrete_likelihood as benchmark
from benchmarks.learned import load_energy
from egmjax.targets import enumerate_states
from tests.benchmarks.commands import option_words, refused, strict_json

pytestmark = pytest.mark.slow  # compiles a lot

TINY = {
    "length": 3,
    "num_updates": 4,
    "batch_size": 16,
    "num_chains": 16,
    "num_data": 500,
    "num_candidates": 3,
    "num_hidden": 4,
    "width": 8,
    "num_eval": 4000,
}


def words(out, **options):
    return option_words(out, {**TINY, **options})


@pytest.mark.parametrize("order", ["random", "raster"])
def test_what_a_run_leaves(tmp_path, order):
    found = benchmark.main(words(tmp_path / "run", target="patterns", order=order))
    assert strict_json((tmp_path / "run" / "report.json").read_text()) == json.loads(json.dumps(found))
    assert 0 <= found["model_mass_tv"] <= found["tv"] < 1
    assert found["kl"] > 0
    assert found["log_z_lower"] == pytest.approx(found["log_z"], abs=0.05)
    assert found["log_z_upper"] == pytest.approx(found["log_z"], abs=0.2)
    # the model as a target is the one reported
    target = load_energy(tmp_path / "run")
    energy = jax.jit(jax.vmap(target.energy))(jnp.asarray(enumerate_states(9, 2)))
    assert logsumexp(-np.asarray(energy, np.float64)) == pytest.approx(found["log_z"], abs=1e-4)
    np.testing.assert_allclose(target.data_weights, found["true_mass"], rtol=1e-6)


@pytest.mark.parametrize("method", ["pcd", "cd"])
def test_other_methods_train(method):
    setup = benchmark.build(benchmark.DiscreteLikelihoodOptions(out=None, method=method, **TINY))
    _, found = jax.jit(setup.trainer.step)(setup.init(0))
    assert np.isfinite(found["loss"])


@pytest.mark.parametrize("target", ["lattice", "patterns"])
def test_figures_of_known_models(target):
    """The exact law scores zero; with the mass of one mode raised e-fold the figures are those of that."""
    setup = benchmark.build(benchmark.DiscreteLikelihoodOptions(out=None, target=target, method="cd", **TINY))
    law = setup.law
    assert logsumexp(law.log_prob) == pytest.approx(0, abs=1e-6)
    table = jnp.asarray(law.log_prob, float)
    powers = 2 ** jnp.arange(8, -1, -1)

    def raised(shift):
        return lambda params, x: table[jnp.sum(x * powers)] + jnp.where(law.mode_index(x) == 1, shift, 0.0)

    found = benchmark.evaluate(setup._replace(log_density=raised(0.0)), None)
    assert found["kl"] == pytest.approx(0, abs=1e-5)
    assert found["tv"] < 1e-5
    mode = np.asarray(jax.vmap(law.mode_index)(jnp.asarray(enumerate_states(9, 2))))
    mass = np.bincount(mode, weights=np.exp(law.log_prob), minlength=law.num_modes)
    share = 0.8 if target == "lattice" else mass[1]
    assert found["true_mass"][1] == pytest.approx(share, abs=1e-5)
    found = benchmark.evaluate(setup._replace(log_density=raised(1.0)), None)
    log_z = np.log(1 + (np.e - 1) * share)
    assert found["log_z"] == pytest.approx(log_z, abs=1e-5)
    assert found["model_mass_tv"] == pytest.approx(share * np.e / np.exp(log_z) - share, abs=1e-5)
    assert found["kl"] == pytest.approx(log_z - share, abs=1e-5)


def test_bad_input(tmp_path, capsys):
    for options in (
        {"length": 5},
        {"noise": 0.5},
        {"beta": 0.0},
        {"num_candidates": 1},
        {"defensive": 1.0},
        {"data_share": 2.0},
        {"num_chains": 0},
    ):
        line = refused(benchmark.main, words(tmp_path / "new", **options), capsys)
        assert next(iter(options)) in line
    assert not (tmp_path / "new").exists()
