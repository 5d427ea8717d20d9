"""Training from data as a command: every data set composes, and a run leaves what a run from an energy leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import load, sample, train
from benchmarks.baselines import gaussian_copula, independent_modalities
from benchmarks.checks import check
from benchmarks.data_report import bits_per_dim, compare_exact
from benchmarks.data_sets import load_data, mixed_synthetic, mixed_table
from benchmarks.options import DATA_SETS, DigitTokensOptions, MixedDataOptions, RealDataOptions
from benchmarks.runs import build
from egmjax.training import check_data
from tests.benchmarks.commands import refused, strict_json

pytestmark = pytest.mark.slow  # compiles a lot

TINY = {
    "iterations": 2,
    "updates_per_iteration": 2,
    "batch_size": 32,
    "width": 8,
    "depth": 1,
    "num_samples": 300,
    "num_bound": 30,
}


def variants():
    for name, kind in DATA_SETS.items():
        yield name, {}
        if issubclass(kind, MixedDataOptions):
            yield name, {"symbols": "uniform", "process": "flow+diffusion", "weighting": "uniform"}
        if issubclass(kind, RealDataOptions):
            yield name, {"process": "flow+jump", "bins": 6, "weight_decay": 0.1}
    yield "moons", {"process": "jump", "bins": 6, "reach": 2.0, "holdout": "validation"}
    yield "mixed-table", {"process": "jump", "bins": 6, "symbols": "uniform"}
    yield "moons", {"process": "diffusion", "noise": 0.5, "times": "logit-normal"}
    yield "rings", {"pairing": "transport", "times": "skewed"}
    yield "mixed-synthetic", {"pairing": "transport"}
    yield "digits-tokens", {"process": "uniform"}


@pytest.mark.parametrize(("name", "changes"), list(variants()), ids=str)
def test_recipe_composes(name, changes, tmp_path):
    """Shapes of a training step and of a roll-out, without compiling either."""
    options = DATA_SETS[name](out=tmp_path, **{**TINY, **changes})
    check(options)
    setup = build(name, options)
    state = jax.eval_shape(lambda: setup.init(0))
    after, metrics = jax.eval_shape(setup.phases[0].trainer.step, state)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert set(metrics) == {"loss", "grad_norm", "num_nonfinite"}
    rollout = jax.eval_shape(
        lambda params, k: setup.sampler.sample(k, setup.predictor(params)), state.params, jax.random.key(0)
    )
    assert rollout.log_weight.shape == ()


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets(name):
    """States of their space, no row in both parts, the same every time, features of finite numbers."""
    data = load_data(name)
    for rows in (data.train, data.test):
        check_data(rows, data.space)
        features = data.features(rows)
        assert features.dtype == np.float64
        assert np.all(np.isfinite(features))
        assert np.all(features.std(axis=0)[: features.shape[1] // 2] >= 0)
    again = load_data(name)
    for a, b in zip(jax.tree.leaves(data.train), jax.tree.leaves(again.train)):
        np.testing.assert_array_equal(a, b)
    if name in ("moons", "digits"):
        both = np.concatenate([data.train, data.test]).reshape(len(data.train) + len(data.test), -1)
        assert len(np.unique(both, axis=0)) == len(both)
    kind = DATA_SETS[name]
    assert issubclass(kind, (RealDataOptions, DigitTokensOptions))


def test_exact_moments_are_those_of_the_law():
    """25 means over the 20,000 rows drawn, in their own standard errors: none above 4, and a wrong one is seen."""
    data = mixed_synthetic()
    assert data.exact is not None
    both = jax.tree.map(lambda a, b: np.concatenate([a, b]), data.train, data.test)
    columns = data.encoder.decode(both)
    for known in data.exact.values():
        values = known.fn(columns)
        assert abs(values.mean() - known.value) < 4 * known.std / np.sqrt(len(values))
        assert abs(values.std() / known.std - 1) < 0.05
    halves = independent_modalities(data.train, 5_000, 0)
    assert max(abs(row["z"]) for row in compare_exact(data, halves).values()) > 10


def test_baselines_keep_marginals_and_break_what_they_should():
    data = mixed_table()
    truth = data.encoder.decode(data.train)
    for baseline in (gaussian_copula, independent_modalities):
        x = baseline(data.train, 5_000, 0)
        check_data(x, data.space)
        columns = data.encoder.decode(x)
        for name in ("individual_deductible", "coinsurance", "limited"):
            a, b = (np.bincount(c[name], minlength=5) / len(c[name]) for c in (columns, truth))
            assert np.max(np.abs(a - b)) < 5 * np.sqrt(0.25 / len(truth[name])), (baseline, name)

    # two columns of numbers hang together as in the data only where whole rows are drawn
    def zero_together(c):
        return np.mean((c["log_incentive"] == 0) & (c["log_limit"] == 0))

    kept = zero_together(data.encoder.decode(independent_modalities(data.train, 5_000, 0)))
    assert abs(kept - zero_together(truth)) < 5 * np.sqrt(0.25 / 3_000)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tokens"
    train.main(words("digits-tokens", folder))
    return folder


def words(name, folder, *flags, **changes):
    pairs = {**TINY, **changes}.items()
    return [
        name,
        "--out",
        str(folder),
        *(w for k, v in pairs for w in (f"--{k.replace('_', '-')}", str(v))),
        *flags,
    ]


def test_files_and_report(finished, capsys):
    assert {p.name for p in finished.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "samples.npz",
        "report.png",
        "report.json",
    }
    report = strict_json((finished / "report.json").read_text())
    assert {"frechet", "kernel_distance", "two_sample_auc", "bits_per_dim"} <= set(report["metrics"])
    for name, entry in report["metrics"].items():
        assert set(entry) == {"value", "stderr", "floor"}, name
        assert np.isfinite(entry["value"])
        assert np.isfinite(entry["floor"])
    assert report["metrics"]["two_sample_auc"]["value"] > 0.9, "a model that learned nothing is told apart"
    assert abs(report["metrics"]["two_sample_auc"]["floor"] - 0.5) < 0.15
    assert set(report["nearest_distance"]) >= {"samples", "held_out", "closer"}
    assert report["config"]["target"] == "digits-tokens"
    rows = [strict_json(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert all("ess_fraction" not in row and np.isfinite(row["loss"]) for row in rows)
    with np.load(finished / "samples.npz") as samples:
        assert set(samples) == {"x"}
        assert samples["x"].shape == (300, 64)
        assert set(np.unique(samples["x"])) <= set(range(17))
    train.main(words("digits-tokens", finished, "--resume"))
    assert strict_json((finished / "report.json").read_text())["metrics"] == report["metrics"]
    assert "bits_per_dim" in capsys.readouterr().out
    sample.main([str(finished), "--num", "10", "--out", str(finished.parent / "more.npz")])
    assert "learned from data" in capsys.readouterr().out


def test_bits_of_a_model_that_knows_nothing(finished):
    """All logits zero: every symbol costs log2(17) bits, exactly."""
    run = load(finished)
    nothing = jax.tree.map(jnp.zeros_like, run.params)
    entry = bits_per_dim(run.setup, nothing, jax.random.key(0), 20)
    assert entry["value"] == pytest.approx(np.log2(17), rel=1e-5)
    assert entry["floor"] == pytest.approx(np.log2(17), rel=1e-5)
    x, log_weight = run.sample(jax.random.key(1), 5)
    assert log_weight is None
    assert x.shape == (5, 64)


def test_refusals(tmp_path, capsys):
    out = tmp_path / "x"
    line = refused(train.main, words("moons", out, process="diffusion", pairing="transport"), capsys)
    assert line.startswith("error: pairing: transport is for flows")
    assert refused(train.main, words("moons", out, num_bound=0), capsys).startswith("error: num_bound: ")
    assert refused(train.main, words("moons", out, weight_decay=-1), capsys).startswith(
        "error: weight_decay: "
    )
    assert "'moons'" in refused(train.main, words("moon", out), capsys)
    assert not out.exists()
