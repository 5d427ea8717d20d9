"""Every target with every process and objective it allows: traced, and a few of them run."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.special import expit

from benchmarks import options as options_module
from benchmarks import setups, train
from benchmarks.checks import check
from benchmarks.options import (
    TARGETS,
    FlowOptions,
    LatticeOptions,
    LearnedOptions,
    Lj13Options,
    MixedOptions,
    recipe,
)
from benchmarks.report import FLOOR_SEED
from benchmarks.runs import build
from egmjax.targets import DW4, mean_free_basis
from tests.benchmarks.commands import TINY, arguments, strict_json

PEAKED = {
    "process": "diffusion",
    "objective": "weighted",
    "detail": 1.0,
    "energy_gradient": True,
    "temper_ramp": "geometric",
}


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
            network = {"network": "mlp"} if kind.network in ("particles", "vectors") else {}
            yield name, {"process": "flow+jump", "bins": 6, "objective": "weighted", **network}
        if issubclass(kind, MixedOptions):
            yield name, {"symbols": "uniform", "site_conditionals": True}
    yield "ising", {"order": "raster"}
    for name in ("ising", "potts", "spin-glass"):
        yield name, {"order": "random"}
    yield "potts", {"order": "random", "tied": False, "mix": "likelihood", "sites_per_step": (1, 2)}
    yield "ising", {"order": "random", "objective": "weighted", "local_fields": True}
    yield "ising", {"order": "random", "objective": "weighted", "network": "site"}
    yield "ising", {"order": "random", "objective": "log-variance", "network": "lattice"}
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
    yield "gmm40", {"dim": 5, **PEAKED}
    yield "gb-rbm", {"integrate_gaussian": True}
    yield "gb-rbm", {"sum_symbols": True, "site_conditionals": True}
    yield "joint-dw4", {"network": "mlp"}
    yield "joint-dw4", {"network": "particles", "sum_symbols": True}
    yield "funnel", {"integrate_gaussian": True, "network": "coordinates"}
    yield "funnel", {"dim": 3, "num_reference": 50, "objective": "weighted"}
    yield "lj13", {"factor": 0.5, "refresh": 2}
    yield "dw4", {"num_chains": 8, "pairing": "aligned"}
    yield "three-modes", {"objective": "weighted", "num_chains": 8}
    yield "three-peaks", {"process": "jump", "bins": 6}
    yield "three-modes", {"stepper": "euler"}
    yield "three-modes", {"schedule": "straight", "process": "diffusion", "optimizer": "muon"}
    yield "gb-rbm", {"schedule": "straight", "objective": "bootstrap"}


def test_muon_takes_steps_of_the_size_of_adams(tmp_path):
    """Matrices by all their singular vectors alike, at a root mean square of .2 rates; the rest as Adam does."""
    words = ["three-modes", "--out", str(tmp_path / "run"), "--clip-norm", "1000"]
    rules = {n: setups.make_optimizer(train.parse([*words, "--optimizer", n])[1]) for n in ("adam", "muon")}
    rng = np.random.default_rng(0)
    params = {"kernel": np.zeros((8, 16), np.float32), "bias": np.zeros(16, np.float32)}
    gradient = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), params)
    moved = {n: rule.update(gradient, rule.init(params), params)[0] for n, rule in rules.items()}
    rate = train.parse(words)[1].learning_rate
    np.testing.assert_allclose(np.abs(moved["adam"]["bias"]), rate, rtol=1e-3)
    # Nesterov's momentum in the one and not in the other
    ratio = moved["muon"]["bias"] / moved["adam"]["bias"]
    assert np.ptp(ratio) < 1e-3
    assert 0.5 < ratio[0] < 2.0
    values = np.linalg.svd(moved["muon"]["kernel"], compute_uv=False)
    assert values.max() < 1.3 * 0.2 * rate * math.sqrt(16)
    assert values.min() > 0.5 * values.max()
    assert np.vdot(moved["muon"]["kernel"], gradient["kernel"]) < 0
    assert np.ptp(np.linalg.svd(gradient["kernel"], compute_uv=False)) > 2.0


def test_defaults_go_with_the_order(tmp_path):
    """Perceptrons of sites by the kind's own, coarse-to-fine or what it says of any order; coupled layers by those of
    all lattices, or what the kind says of them."""
    out = ["--out", str(tmp_path / "run")]
    for name in ("ising", "potts", "spin-glass"):
        ordered = train.parse([name, *out])[1]
        assert (ordered.objective, ordered.iterations) == ("log-variance", 5_000)
        names = ("objective", "width", "depth", "iterations", "batch_size")
        expected = {n: getattr(LatticeOptions, n) for n in names} | TARGETS[name].by_lattice
        for words in (["--order", "random", "--network", "lattice"], ["--objective", "weighted"]):
            options = train.parse([name, *out, *words])[1]
            assert {n: getattr(options, n) for n in expected} == expected
        for words in (["--order", "random"], ["--order", "raster", "--network", "site"]):
            options = train.parse([name, *out, *words])[1]
            assert {n: getattr(options, n) for n in options.by_sites} == options.by_sites
            assert options.objective == "log-variance"
        for words in (["--objective", "likelihood"], ["--mix", "None"]):
            assert train.parse([name, *out, "--order", "random", *words])[1].mix is None
        attends = train.parse([name, *out, "--network", "transformer"])[1]
        assert (attends.objective, attends.width, attends.depth) == ("log-variance", 16, 2)
        chosen = train.parse([name, *out, "--objective", "weighted", "--width", "7"])[1]
        assert (chosen.width, chosen.iterations) == (7, expected["iterations"])
    assert train.parse(["spin-glass", *out, "--objective", "weighted"])[1].width == 256
    assert train.parse(["ising", *out, "--objective", "weighted"])[1].depth == 1


def test_jumps_are_not_by_particles(tmp_path):
    words = ["joint-dw4", "--out", str(tmp_path / "run"), "--process", "flow+jump"]
    assert train.parse(words)[1].network == "mlp"
    with pytest.raises(ValueError, match=r"^network: "):
        train.parse([*words, "--network", "particles"])


def tiny(name, changes, tmp_path):
    kind = TARGETS[name]
    values = {**{k: v for k, v in TINY.items() if hasattr(kind, k)}, **changes}
    if issubclass(kind, LatticeOptions):
        values |= {"length": 3}
    if hasattr(kind, "num_wells"):
        values |= {"num_wells": 2}
    if kind is Lj13Options:
        values = {**recipe(kind(out=tmp_path, **values)), **values}
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
        ("three-modes", {**PEAKED, "num_steps": 8}),
        ("funnel", {"dim": 3, "num_reference": 200, "objective": "weighted"}),
        ("three-modes", {"num_chains": 16, "chain_step": 0.1, "objective": "weighted"}),
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
def test_particles_are_held_against_their_distances(tmp_path, capsys):
    """Draws to learn from are others than those that the report compares with; no energy is spent on them."""
    words = {"num_exact": 50, "num_reference": 300, "num_samples": 300}
    train.main(arguments("dw4", tmp_path / "run", **words))
    assert "learned from 300 draws of the target" in capsys.readouterr().out
    report = strict_json((tmp_path / "run" / "report.json").read_text())
    assert report["energy_evaluations"] == 300
    assert {"energy_w1", "energy_w2", "x_w2", "distance_w1", "distance_w2"} <= set(report["metrics"])
    assert np.isfinite(report["log_z"]["estimate"])
    with np.load(tmp_path / "run" / "samples.npz") as samples:
        y = samples["x"].astype(np.float64)
    exact = np.asarray(DW4().sample(jax.random.key(FLOOR_SEED), 300), np.float64)
    pooled = [
        np.concatenate([pdist(x) for x in (a @ mean_free_basis(4, 2).T).reshape(-1, 4, 2)])
        for a in (y, exact)
    ]
    first, second = (np.sort(values) for values in pooled)  # of sets of equal size: sorted values are paired
    entries = report["metrics"]
    assert entries["distance_w1"]["value"] == pytest.approx(np.mean(np.abs(first - second)), rel=1e-3)
    assert entries["distance_w2"]["value"] == pytest.approx(np.sqrt(np.mean((first - second) ** 2)), rel=1e-3)
    energies = [
        np.sort(np.asarray(jax.vmap(DW4().energy)(a.astype(np.float32)), np.float64)) for a in (y, exact)
    ]
    wanted = np.sqrt(np.mean((energies[0] - energies[1]) ** 2))
    assert entries["energy_w2"]["value"] == pytest.approx(wanted, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--integrate-gaussian", "--sum-symbols"])
def test_what_is_integrated_out_is_in_the_samples(option, tmp_path):
    """It comes back by exact draws, whatever the network says: states of the whole target, weighed as the rest is."""
    train.main(arguments("gb-rbm", tmp_path / "run", option, num_exact=100, num_samples=1000))
    report = strict_json((tmp_path / "run" / "report.json").read_text())
    with np.load(tmp_path / "run" / "samples.npz") as samples:
        v, h, log_weight = samples["x0"], samples["x1"], samples["log_weight"].astype(np.float64)
    assert v.shape == (1000, 2)
    assert h.shape == (1000, 3)
    weights_of_units = np.array([[5.0, 0.0, -5.0], [0.0, 5.0, 0.0]])
    if option == "--integrate-gaussian":
        residual = v - h @ weights_of_units.T  # standard normal
        assert np.all(np.abs(residual.mean(axis=0)) < 4 / np.sqrt(1000))
        assert np.all(np.abs(residual.var(axis=0) - 1) < 4 * np.sqrt(2 / 1000))
    else:
        probs = expit(v @ weights_of_units - 12.0)  # of the units, independent given v
        spread = np.sqrt(np.sum(probs * (1 - probs), axis=0))
        assert np.all(np.abs(np.sum(h - probs, axis=0)) < 4 * spread)
        assert spread[1] > 3, "where units are undecided"
    weights = np.exp(log_weight)
    error = weights.std() / np.sqrt(1000)
    assert abs(weights.mean() - np.exp(report["log_z"]["exact"])) < 4 * error
    assert report["forward_ess_fraction"] is not None


@pytest.mark.parametrize("network", ["coordinates", "particles"])
def test_networks_are_for_their_spaces(network, tmp_path):
    with pytest.raises(ValueError, match=r"^network: "):
        build("gb-rbm", tiny("gb-rbm", {"network": network}, tmp_path))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("detail", {"detail": 1.0}),
        ("detail", {"process": "diffusion", "detail": -1.0}),
        ("energy_gradient", {"energy_gradient": True}),
        ("temper_start", {"temper_ramp": "geometric", "temper_start": 0.0}),
    ],
)
def test_what_is_for_diffusions_or_ramps_is_refused(name, changes, tmp_path):
    with pytest.raises(ValueError, match=f"^{name}: "):
        check(tiny("three-modes", changes, tmp_path))


def test_gradients_are_of_real_coordinates_alone(tmp_path):
    with pytest.raises(ValueError, match=r"^energy_gradient: "):
        build("gb-rbm", tiny("gb-rbm", {**PEAKED, "detail": None}, tmp_path))


def test_gradients_are_counted(tmp_path):
    """One for a step of each roll-out and for each example; two a step where the backward kernel predicts too."""
    plain = build("three-modes", tiny("three-modes", {**PEAKED, "energy_gradient": False}, tmp_path))
    for noise, calls in ((1.0, 100), (0.5, 200)):
        informed = build("three-modes", tiny("three-modes", {**PEAKED, "noise": noise}, tmp_path))
        more = informed.phases[0].energies_per_iteration - plain.phases[0].energies_per_iteration
        assert more == TINY["num_rollouts"] * calls + TINY["updates_per_iteration"] * TINY["batch_size"]
        assert informed.energies_per_sample == 1 + calls


def test_gradients_of_chains_are_counted(tmp_path):
    """Two iterations of ten trajectories of 25 steps, and a start of 200 steps up and a hundred trajectories."""
    options = {"objective": "weighted", "num_chains": 8, "iterations": 2}
    setup = build("three-modes", tiny("three-modes", options, tmp_path))
    assert setup.training_energies == 8 * (200 + 100 * 26 + 2 * (1 + 10 * 26))


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("dw4", {"num_reference": 1}, "^num_reference: 0, or"),
        ("dw4", {"num_reference": 50, "objective": "snis"}, "^num_reference: weighted and"),
        ("dw4", {"num_reference": 50, "refresh": 1}, "^num_reference: or --refresh"),
        ("dw4", {"process": "jump"}, "^network: "),
        ("gmm40", {"schedule": "straight"}, "^power: straight lines"),
        ("dw4", {"num_chains": -1}, "^num_chains: at least 0"),
        ("dw4", {"num_chains": 8, "chain_step": 0.0}, "^chain_step: "),
        ("dw4", {"num_chains": 8, "objective": "snis"}, "^num_chains: their states have no weights"),
        ("dw4", {"num_chains": 8, "mix": "log-variance"}, "^num_chains: their states have no weights"),
        ("dw4", {"num_chains": 8, "num_reference": 50}, "^num_reference: or --num-chains"),
        ("dw4", {"num_chains": 8, "refresh": 1}, "^refresh: or --num-chains"),
        ("dw4", {"pairing": "aligned", "process": "diffusion"}, "^pairing: for --process flow"),
        ("dw4", {"pairing": "aligned", "objective": "snis"}, "^pairing: for --objective weighted"),
    ],
)
def test_what_does_not_go_together_is_refused(name, changes, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        check(tiny(name, changes, tmp_path))


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("lj13", {"num_reference": 50, "factor": 2.0}, "^num_reference: there are no draws"),
        ("gb-rbm", {"num_chains": 8, "objective": "weighted"}, "^num_chains: for real coordinates alone"),
        (
            "three-modes",
            {"pairing": "aligned", "objective": "weighted"},
            "^pairing: a GaussianMixture has no",
        ),
        ("funnel", {"dim": 1}, "^dim: "),
    ],
)
def test_what_cannot_be_built_is_refused(name, changes, sentence, tmp_path):
    options = tiny(name, changes, tmp_path)
    with pytest.raises(ValueError, match=sentence):
        build(name, options)


def test_symbols_or_gaussian_coordinates_are_summed_out(tmp_path):
    with pytest.raises(ValueError, match=r"^sum_symbols: "):
        check(tiny("gb-rbm", {"sum_symbols": True, "integrate_gaussian": True}, tmp_path))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("objective", {"objective": "bootstrap"}),
        ("bins", {"bins": 1}),
        ("bins", {"num_steps": 1}),
        ("network", {"network": "particles"}),
    ],
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
