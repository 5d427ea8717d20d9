"""Energies of skewed digits, tiny: its data, its figures of known models, what a run leaves."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import likelihood as benchmark
from benchmarks import train
from benchmarks.data_sets import digit_class, labelled_digits
from benchmarks.digits_report import evaluate_digits
from benchmarks.energy_runs import FROZEN, checkpoints_of
from benchmarks.learned import load_energy
from benchmarks.skewed_digits import BLUR, MASSES, draw_rows, skewed_digits
from tests.benchmarks.commands import option_words, refused, strict_json

pytest.importorskip("distrax")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.slow  # compiles a lot

TINY = {
    "target": "digits-skewed",
    "dim": 64,
    "num_updates": 4,
    "warm_updates": 3,
    "base": "flow",
    "batch_size": 16,
    "num_chains": 16,
    "num_data": 500,
    "num_local": 1,
    "num_candidates": 2,
    "width": 8,
    "depth": 1,
    "flow_layers": 2,
    "flow_width": 8,
    "num_eval": 1000,
    "data_share": 0.5,
}


def words(out, **options):
    values = {k: v for k, v in {**TINY, "method": "balanced-mle", **options}.items() if k != "target"}
    return [TINY["target"], *option_words(out, values)]


def classes(x):
    """The classifier in float64, of rows."""
    h = np.clip(np.asarray(x, np.float64), -1, 1)
    layers = labelled_digits().layers
    for n, (weight, bias) in enumerate(layers):
        h = h @ weight + bias
        h = np.maximum(h, 0) if n < len(layers) - 1 else h
    return h.argmax(1)


def test_rows_and_classes():
    """Exact proportions, noise of the right width, no held-out row among those to learn from, labels as they are."""
    digits = labelled_digits()
    law = skewed_digits()
    x, label = draw_rows(law.train, 5500, 3)
    np.testing.assert_array_equal(np.bincount(label), np.rint(5500 * MASSES))
    grey = 17 * (x.astype(np.float64) + 1) / 2 - 0.5
    always_dark = digits.levels.max(axis=0) == 0
    noise = grey[:, always_dark]
    assert noise.std() == pytest.approx(BLUR, abs=4 * BLUR / np.sqrt(2 * noise.size))
    # without the noise they are training rows of that label, to the bit
    x, label = draw_rows(law.train._replace(blur=0.0), 5500, 3)
    level = np.round(17 * (x + 1) / 2 - 0.5).astype(int)
    of_row = {row.tobytes(): k for row, k in zip(law.train.levels.astype(int), law.train.label)}
    assert [of_row[row.tobytes()] for row in level] == label.tolist()
    assert not any(row.tobytes() in of_row for row in law.held_out.levels.astype(int))
    validation = skewed_digits("validation")
    assert len(validation.train.label) + len(validation.held_out.label) == len(law.train.label)

    spread = (2 * digits.levels[digits.is_test] + 1) / 17 - 1.0
    found = np.asarray(jax.jit(jax.vmap(digit_class))(jnp.asarray(spread, jnp.float32)))
    np.testing.assert_array_equal(found, classes(spread))
    assert (found == digits.label[digits.is_test]).mean() == pytest.approx(580 / 599)


def test_figures_of_known_models():
    """Before any update the energy is zero and the model is the fitted flow: all weights are one, masses are those of
    its draws. Thrice the mass of one class, beside a constant, is seen as what it is.
    """
    setup = benchmark.build(benchmark.LikelihoodOptions(out=None, **TINY))
    params = setup.start(0).params
    found = evaluate_digits(setup, params, num_eval=2000)
    assert found["ess_fraction"] == pytest.approx(1, abs=1e-5)
    assert found["log_z"] == pytest.approx(0, abs=1e-3)
    assert found["nll"] == pytest.approx(found["fitted_nll"], abs=1e-2)
    assert found["model_mass_tv"] == pytest.approx(found["proposal_mass_tv"], abs=1e-5)
    mass = np.array(found["masses"]["model"])
    # by other draws, in numpy
    drawn = jax.jit(jax.vmap(lambda k: setup.fitted.sample(params[FROZEN], k)))(
        jax.random.split(jax.random.key(9), 4000)
    )
    other = np.bincount(classes(drawn), minlength=10) / 4000
    np.testing.assert_allclose(mass, other, atol=4 * np.sqrt(0.25 * (1 / 2000 + 1 / 4000)))
    heavy = int(mass.argmax())

    def tilted(params, x):
        return setup.log_density(params, x) + 7.0 + jnp.log(3.0) * (digit_class(x) == heavy)

    found = evaluate_digits(setup._replace(log_density=tilted), params, num_eval=2000)
    share = np.where(np.arange(10) == heavy, 3 * mass, mass)
    np.testing.assert_allclose(found["masses"]["model"], share / share.sum(), rtol=1e-3)
    assert found["log_z"] == pytest.approx(7 + np.log(share.sum()), abs=1e-3)
    assert found["ess_fraction"] == pytest.approx(
        share.sum() ** 2 / (share.sum() + 6 * mass[heavy]), rel=1e-3
    )
    assert found["proposal_mass_tv"] == pytest.approx(0.5 * np.abs(mass - MASSES).sum(), abs=1e-5)


def test_what_a_run_leaves(tmp_path):
    """The flow fitted first stays as it is, the sampler does not; the model is a target."""
    found = train.main(words(tmp_path / "run"))
    assert strict_json((tmp_path / "run" / "report.json").read_text()) == json.loads(json.dumps(found))
    assert (tmp_path / "run" / "report.png").stat().st_size > 10_000
    assert sum(found["masses"]["model"]) == pytest.approx(1)
    assert found["lowest_level_kl"] is None
    assert found["model_mass_kl"] > 0
    assert found["log_z_upper"] == pytest.approx(found["log_z"], abs=0.2)
    target = load_energy(tmp_path / "run")
    np.testing.assert_allclose(target.data_weights, MASSES)
    x, _ = draw_rows(skewed_digits().held_out, 500, 5)
    energy = np.asarray(jax.jit(jax.vmap(target.energy))(x), np.float64)
    assert found["log_z"] + energy.mean() == pytest.approx(found["nll"], abs=5 * energy.std() / np.sqrt(500))

    options = benchmark.LikelihoodOptions(out=tmp_path / "run", **TINY)
    setup = benchmark.build(options)
    params, start = checkpoints_of(options).restore(setup.init(0)).ema_params, setup.start(0).params

    def same(a, b):
        return jax.tree.leaves(jax.tree.map(np.array_equal, a, b))

    assert all(same(start["sampler"], start[FROZEN]))
    assert all(same(params[FROZEN], start[FROZEN]))
    assert not all(same(params["sampler"], start["sampler"]))


def test_levels_of_noise(tmp_path):
    """Masses by a flow fitted to noised rows, samples by roll-outs, with weights to one energy: that of the target."""
    values = {
        "num_updates": 4,
        "warm_updates": 3,
        "noised_batch": 16,
        "num_levels": 6,
        "num_data": 500,
        "width": 8,
    }
    values |= {
        "depth": 1,
        "flow_layers": 2,
        "flow_width": 8,
        "num_eval": 500,
        "num_samples": 300,
        "num_steps": 20,
    }
    out = tmp_path / "run"
    found = train.main(["digits-skewed", *option_words(out, {**values, "method": "diffclf"})])
    assert strict_json((out / "report.json").read_text()) == json.loads(json.dumps(found))
    assert (out / "report.png").stat().st_size > 10_000
    assert found["lowest_level_kl"] is None
    assert found["lowest_level_ess"] is None
    assert sum(found["masses"]["model"]) == pytest.approx(1)
    assert set(found["masses"]) >= {"roll-outs", "roll-outs, weighted", "flow fitted to data"}
    samples = np.load(out / "samples.npz")
    assert samples["x"].shape == (300, 64)
    assert np.isfinite(samples["log_weight"]).all()
    np.testing.assert_allclose(load_energy(out).data_weights, MASSES)
    # noise is more blur: 3 and 4 grey levels are 5
    law = skewed_digits().noised(2 * np.sqrt(5) / 17).noised(8 / 17)
    assert law.train.blur == pytest.approx(5.0)


@pytest.mark.parametrize("method", ["pcd-mala", "flow"])
def test_other_methods_train(method):
    options = benchmark.LikelihoodOptions(
        out=None, **{**TINY, "method": method, "base": "gaussian", "start": "data"}
    )
    setup = benchmark.build(options)
    state, found = jax.jit(setup.trainer.step)(setup.start(0))
    assert np.isfinite(found["loss"])
    chains = state.buffer if setup.negatives is not None else None
    annealed = 3 if setup.negatives is not None else 0
    found = evaluate_digits(setup, state.ema_params, chains, num_eval=500, num_annealed=annealed)
    assert (found["ess_fraction"] == pytest.approx(1, abs=1e-4)) == (method == "flow")


def test_annealing_knows_the_normaliser():
    """Wider by `a` in each of 64 directions than the Gaussian it is drawn from, and with its mass times e^7."""
    options = benchmark.LikelihoodOptions(
        out=None, **{**TINY, "method": "pcd-mala", "base": "gaussian", "warm_updates": 0}
    )
    setup = benchmark.build(options)
    state = setup.init(0)
    factor, centre = 1.3, jnp.asarray(draw_rows(skewed_digits().train, 500, 0)[0].mean(axis=0))

    def wider(params, x):
        return setup.base.log_prob((), centre + (x - centre) / factor) + 7.0

    chains = state.buffer._replace(log_step=jnp.log(0.01))
    plain, annealed = (
        evaluate_digits(
            setup._replace(log_density=wider), state.params, chains, num_eval=1000, num_annealed=n
        )
        for n in (0, 30)
    )
    exact = 7 + 64 * np.log(factor)
    error = np.sqrt((1 / annealed["ess_fraction"] - 1) / 1000)
    assert annealed["log_z"] == pytest.approx(exact, abs=4 * error)
    assert annealed["ess"] > 2 * plain["ess"]


def test_bad_input(tmp_path, capsys):
    for name, options in (
        ("base", {"warm_updates": 0}),
        ("warm_updates", {"warm_updates": -1, "base": "gaussian"}),
    ):
        assert name in refused(train.main, words(tmp_path / "new", **options), capsys)
    assert not (tmp_path / "new").exists()
