"""Every target with every process and objective it allows: traced, and a few of them run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import options as options_module
from benchmarks import train
from benchmarks.options import TARGETS, FlowOptions, LatticeOptions, LearnedOptions, MixedOptions, check
from benchmarks.runs import build
from tests.benchmarks.commands import TINY, arguments, strict_json


def variants():
    """`(target, changed options)`; each value of each choice at least once for each kind of target."""
    for name, kind in TARGETS.items():
        if kind is LearnedOptions:
            continue  # needs the folder of another command, whose tests load it
        yield name, {}
        if issubclass(kind, LatticeOptions):
            yield name, {"process": "uniform"}
            yield name, {"objective": "bootstrap"}
        if issubclass(kind, FlowOptions):
            yield name, {"process": "diffusion", "noise": 0.5, "objective": "bootstrap"}
            yield name, {"process": "flow+diffusion", "power": 2.0, "objective": "weighted"}
            yield name, {"process": "flow+jump", "bins": 6, "objective": "weighted"}
        if issubclass(kind, MixedOptions):
            yield name, {"symbols": "uniform", "site_conditionals": True}
    yield "ising", {"order": "raster"}
    yield "ising", {"order": "random", "local_fields": True}
    yield "ising", {"order": "raster", "objective": "likelihood"}
    yield "ising", {"objective": "weighted"}
    yield "potts", {"objective": "likelihood", "context": 2}
    yield "potts", {"network": "masked"}
    yield "ising", {"network": "transformer", "depth": 2}
    yield "spin-glass", {"network": "transformer"}
    yield "three-modes", {"objective": "log-variance"}
    yield "gb-rbm", {"process": "diffusion", "objective": "weighted", "mix": "log-variance", "mix_start": 0.5}
    yield "ising", {"objective": "likelihood", "mix": "log-variance", "mix_start": 0.5, "mix_weight": 1.0}
    yield "three-modes", {"mix": "weighted"}
    yield "ising", {"objective": "snis", "site_conditionals": True}
    yield "gmm40", {"variant": "jax", "dim": 5}
    yield "gb-rbm", {"integrate_gaussian": True}
    yield "funnel", {"integrate_gaussian": True, "network": "coordinates"}
    yield "three-peaks", {"process": "jump", "bins": 6}
    yield "three-modes", {"stepper": "euler"}


def test_defaults_go_with_the_order(tmp_path):
    """Coarse-to-fine by the kind's own; any other order by those of all lattices, or what the kind says of it."""
    out = ["--out", str(tmp_path / "run")]
    for name in ("ising", "potts", "spin-glass"):
        ordered = train.parse([name, *out])[1]
        assert (ordered.objective, ordered.iterations) == ("log-variance", 5_000)
        names = ("objective", "width", "depth", "iterations", "batch_size")
        expected = {n: getattr(LatticeOptions, n) for n in names} | TARGETS[name].in_any_order
        for words in (["--order", "random"], ["--objective", "weighted"]):
            options = train.parse([name, *out, *words])[1]
            assert {n: getattr(options, n) for n in expected} == expected
        attends = train.parse([name, *out, "--network", "transformer"])[1]
        assert (attends.objective, attends.width, attends.depth) == ("log-variance", 16, 2)
        chosen = train.parse([name, *out, "--order", "random", "--width", "7"])[1]
        assert (chosen.width, chosen.iterations) == (7, expected["iterations"])
    assert train.parse(["spin-glass", *out, "--order", "random"])[1].width == 256
    assert train.parse(["ising", *out, "--order", "random"])[1].depth == 1


def tiny(name, changes, tmp_path):
    kind = TARGETS[name]
    values = {**{k: v for k, v in TINY.items() if hasattr(kind, k)}, **changes}
    if issubclass(kind, LatticeOptions):
        values |= {"length": 3}
    if hasattr(kind, "num_wells"):
        values |= {"num_wells": 2}
    return kind(out=tmp_path, **values)


@pytest.mark.parametrize(("name", "changes"), list(variants()), ids=str)
def test_recipe_composes(name, changes, tmp_path):
    """Shapes of a training step and of a roll-out, without compiling either."""
    options = tiny(name, changes, tmp_path)
    check(options)
    setup = build(name, options)
    state = jax.eval_shape(lambda: setup.init(0))
    for phase in setup.phases:
        after, metrics = jax.eval_shape(phase.trainer.step, state)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        assert all(v.shape == () for v in metrics.values())
    rollout = jax.eval_shape(
        lambda params, k: setup.sampler.sample(k, setup.predictor(params)), state.params, jax.random.key(0)
    )
    assert rollout.log_weight.shape == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ising", {"process": "uniform", "num_steps": 8}),
        ("gb-rbm", {"process": "diffusion", "symbols": "uniform", "objective": "bootstrap"}),
        ("three-modes", {"refresh": 2, "objective": "weighted"}),
    ],
    ids=str,
)
def test_recipe_runs(name, changes, tmp_path):
    words = {"num_exact": 50, "length": 3 if issubclass(TARGETS[name], LatticeOptions) else None, **changes}
    flags = [f"--{k.replace('_', '-')}" for k, v in words.items() if v is True]
    words = {k: v for k, v in words.items() if v is not True}
    if issubclass(TARGETS[name], LatticeOptions) and "num_steps" not in words:
        words["num_steps"] = None
    train.main(arguments(name, tmp_path / "run", *flags, **words))
    report = strict_json((tmp_path / "run" / "report.json").read_text())
    exact = report["log_z"]["exact"]
    assert np.isfinite(report["log_z"]["estimate"])
    assert exact is None or report["log_z"]["elbo"] < exact + 1.0
    assert report["num_nonfinite"] == 0


@pytest.mark.slow
def test_what_is_integrated_out_is_in_the_samples(tmp_path):
    """Real coordinates come back by exact draws: states of the whole target, weighed as the symbols alone are."""
    train.main(arguments("gb-rbm", tmp_path / "run", "--integrate-gaussian", num_exact=100, num_samples=1000))
    report = strict_json((tmp_path / "run" / "report.json").read_text())
    with np.load(tmp_path / "run" / "samples.npz") as samples:
        v, h, log_weight = samples["x0"], samples["x1"], samples["log_weight"].astype(np.float64)
    assert v.shape == (1000, 2)
    assert h.shape == (1000, 3)
    residual = (
        v - h @ np.array([[5.0, 0.0, -5.0], [0.0, 5.0, 0.0]]).T
    )  # standard normal, whatever the network says
    assert np.all(np.abs(residual.mean(axis=0)) < 4 / np.sqrt(1000))
    assert np.all(np.abs(residual.var(axis=0) - 1) < 4 * np.sqrt(2 / 1000))
    weights = np.exp(log_weight)
    error = weights.std() / np.sqrt(1000)
    assert abs(weights.mean() - np.exp(report["log_z"]["exact"])) < 4 * error
    assert report["forward_ess_fraction"] is not None


def test_coordinates_are_for_real_spaces(tmp_path):
    with pytest.raises(ValueError, match=r"^network: "):
        build("gb-rbm", tiny("gb-rbm", {"network": "coordinates"}, tmp_path))


@pytest.mark.parametrize(
    ("name", "changes"),
    [("objective", {"objective": "bootstrap"}), ("bins", {"bins": 1}), ("bins", {"num_steps": 1})],
)
def test_jumps_refuse(name, changes, tmp_path):
    options = options_module.ThreePeaksOptions(out=tmp_path, process="jump", **changes)
    with pytest.raises(ValueError, match=f"^{name}"):
        check(options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise", 0.0),
        ("power", 0.5),
        ("power", float("inf")),
        ("power", float("nan")),
        ("bootstrap_step", -1.0),
        ("min_ess_fraction", 1.0),
        ("refresh", -1),
    ],
)
def test_bad_numbers_are_refused(name, value, tmp_path):
    options = options_module.ThreeModesOptions(out=tmp_path, **{name: value})
    with pytest.raises(ValueError, match=name):
        check(options)
