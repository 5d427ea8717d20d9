"""The benchmark of mixed energies with tiny settings: its law, its figures, what it writes, what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from benchmarks import mixed_likelihood as benchmark
from benchmarks.learned import load_energy
from tests.benchmarks.commands import option_words, refused, strict_json
from tests.core.checks import z_score

TINY = {
    "num_updates": 3,
    "batch_size": 16,
    "num_chains": 16,
    "num_data": 500,
    "num_candidates": 2,
    "num_steps": 4,
    "width": 8,
    "num_eval": 2000,
}
LAW = benchmark.three_modes(2, 0.05)


def words(out, **options):
    return option_words(out, {**TINY, **options})


@pytest.mark.slow  # compiles a lot
def test_what_a_run_leaves(tmp_path):
    found = benchmark.main(words(tmp_path / "run"))
    assert strict_json((tmp_path / "run" / "report.json").read_text()) == json.loads(json.dumps(found))
    assert 0 <= found["model_mass_tv"] < 1
    assert found["kl"] > 0
    assert found["log_z_lower"] == pytest.approx(found["log_z"], abs=0.2)
    assert found["log_z_upper"] == pytest.approx(found["log_z"], abs=0.5)
    # the model as a target is the one reported
    target = load_energy(tmp_path / "run")
    again = benchmark.masses(jax.random.key(0), LAW, lambda state: -target.energy(state), 1)
    assert again.log_z == pytest.approx(found["log_z"], abs=1e-4)
    np.testing.assert_allclose(target.data_weights, benchmark.WEIGHTS)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pcd", "cd"])
def test_other_methods_train(method):
    start = {"start": "data"} if method == "pcd" else {}
    setup = benchmark.build(benchmark.MixedLikelihoodOptions(out=None, method=method, **TINY, **start))
    _, found = jax.jit(setup.trainer.step)(setup.init(0))
    assert np.isfinite(found["loss"])


def test_the_law_is_normalised_and_drawn_from():
    """Against independent sums: mass one, moments and probabilities of every mode, the mixture at one state."""
    x, y = np.array([0.4, -0.2]), np.array([1, 0, 0, 1, 1, 1, 1, 0])
    expected = 0.0
    for k, weight in enumerate(benchmark.WEIGHTS):
        right = y == benchmark.PATTERNS[k]
        flipped = 0.05 * benchmark.FLIPPED[k]
        reals = norm.pdf(x, benchmark.CENTRES[k], benchmark.SCALES[k])
        expected += weight * reals.prod() * np.where(right, 1 - flipped, flipped).prod()
    assert float(LAW.log_prob((jnp.asarray(x), jnp.asarray(y)))) == pytest.approx(np.log(expected), abs=1e-4)
    xs, ys = jax.jit(jax.vmap(LAW.sample))(jax.random.split(jax.random.key(0), 20_000))
    mean = benchmark.WEIGHTS @ benchmark.CENTRES
    assert z_score(xs, mean) < 4
    assert z_score(ys, benchmark.WEIGHTS @ LAW.ones) < 4
    square = benchmark.WEIGHTS @ (benchmark.CENTRES**2 + benchmark.SCALES**2)
    assert z_score(np.asarray(xs, np.float64) ** 2, square) < 4


@pytest.mark.parametrize("dim", [2, 3])
def test_figures_of_known_models(dim):
    """The exact law scores zero; with the mass of one mode raised e-fold the figures are those of that."""
    law = benchmark.three_modes(dim, 0.05)

    def raised(shift):
        return lambda state: law.log_prob(state) + jnp.where(law.mode_index(state) == 0, shift, 0.0)

    exact, found = (benchmark.masses(jax.random.key(0), law, raised(s), 20_000) for s in (0.0, 1.0))
    assert abs(exact.log_z) < 1e-5 + 4 * exact.log_z_stderr
    assert np.all(np.abs(exact.mass - benchmark.WEIGHTS) < 1e-4 + 4 * exact.stderr)
    log_z = np.log1p((np.e - 1) * exact.mass[0])
    assert abs(found.log_z - log_z) < 1e-5 + 4 * found.log_z_stderr
    if dim == 2:
        setup = benchmark.Setup(law, None, None, lambda params, state: raised(1.0)(state), None, None)
        report = benchmark.evaluate(setup, None, num_eval=2000)
        assert report["model_mass_tv"] == pytest.approx(exact.mass[0] * (np.e / np.exp(log_z) - 1), abs=1e-5)
        assert abs(report["kl"] - (log_z - exact.mass[0])) < 4 * report["kl_stderr"]


def test_bad_input(tmp_path, capsys):
    for options in ({"dim": 0}, {"noise": 0.25}, {"num_steps": 0}, {"step_size": 0.0}, {"defensive": 1.0}):
        line = refused(benchmark.main, words(tmp_path / "new", **options), capsys)
        assert next(iter(options)) in line
    assert not (tmp_path / "new").exists()


def test_a_model_that_ignores_the_coupling_is_seen():
    """Seeded fault: symbols and reals independent of each other, each with its exact law."""

    def apart(state):
        x, y = state
        away = LAW._replace(ones=np.full_like(LAW.ones, 0.5))
        flat = LAW._replace(scales=np.full_like(LAW.scales, 1.0), means=np.zeros_like(LAW.means))
        reals = jax.nn.logsumexp(away.log_joint((x, y))) + 8 * np.log(2.0)
        symbols = jax.nn.logsumexp(flat.log_joint((x, y))) + 0.5 * jnp.sum(x**2) + np.log(2 * np.pi)
        return reals + symbols

    setup = benchmark.Setup(LAW, None, None, lambda params, state: apart(state), None, None)
    report = benchmark.evaluate(setup, None, num_eval=2000)
    assert report["log_z"] == pytest.approx(0.0, abs=1e-4)  # the product of marginals is normalised
    assert report["kl"] > 0.1  # the mutual information of mean and symbols alone
