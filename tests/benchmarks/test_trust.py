"""What the suite of trust says: tests that can tell, jointly corrected; rivals that sample; and rows at its tiniest."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import rivals, smc_rival, suite, train, trust, trust_tables
from benchmarks.chain_report import summarize_series
from benchmarks.law_tests import hold_against_laws
from egmjax.targets import Funnel, GaussianBernoulliRBM, GaussianMixture, Ising
from tests.benchmarks.commands import strict_json

TARGET = Ising(length=4, beta=0.4)


def test_autocorrelation_time_of_an_autoregressive_process():
    """`x' = a x + noise`: tau_int = (1 + a) / (2 (1 - a)); independent draws have 1/2."""
    rng = np.random.default_rng(0)
    for a in (0.0, 0.8):
        x = np.zeros((8, 4_000))
        x[:, 0] = rng.normal(size=8) / np.sqrt(1 - a**2)
        for t in range(1, 4_000):
            x[:, t] = a * x[:, t - 1] + rng.normal(size=8)
        found = summarize_series(7.0 + x)
        exact = (1 + a) / (2 * (1 - a))
        assert found["tau_int"] == pytest.approx(exact, rel=0.12)
        assert found["ess"] == pytest.approx(x.size / (2 * found["tau_int"]))
        assert abs(found["mean"] - 7) < 4 * found["stderr"]
        assert found["r_hat"] < 1.02
    apart = summarize_series(x + np.arange(8)[:, None])  # chains that disagree
    assert apart["r_hat"] > 1.2
    assert apart["ess"] < 100
    still = summarize_series(np.tile(np.arange(3.0)[:, None], 10))
    assert (still["ess"], still["tau_int"], still["stderr"]) == (0, np.inf, np.inf)
    with pytest.raises(ValueError, match=r"^values: "):
        summarize_series(np.zeros((1, 10)))


@pytest.fixture(scope="module")
def exact_states():
    return TARGET.sample(jax.random.key(0), 10_000)


def test_exact_samples_pass_and_wrong_ones_do_not(exact_states):
    zeros = np.zeros(10_000)
    found = hold_against_laws(TARGET, exact_states, zeros)
    assert found["num"] == 10_000
    assert set(found["p_values"]) == {"energy", "cells", "sign"}
    for entry in found["p_values"].values():
        assert min(entry.values()) > 1e-3
    for entry in found["effect_sizes"].values():
        assert max(abs(v) for v in entry.values()) < 4 / np.sqrt(10_000)
    # seeded fault: samples at another temperature, and the same ones weighted back
    other = Ising(length=4, beta=0.37)
    x = other.sample(jax.random.key(1), 10_000)
    log_weight = np.asarray(jax.vmap(lambda s: other.energy(s) - TARGET.energy(s))(x))
    found = hold_against_laws(TARGET, x, log_weight)
    assert found["p_values"]["energy"]["raw"] < 1e-6
    assert found["p_values"]["cells"]["raw"] < 1e-6
    assert min(entry["weighted"] for entry in found["p_values"].values()) > 1e-3
    assert abs(found["effect_sizes"]["energy"]["raw"]) > 0.1
    assert abs(found["effect_sizes"]["abs_magnetization"]["weighted"]) < 0.05
    # and one sign alone
    up = jnp.where(jnp.mean(exact_states, axis=1, keepdims=True) < 0.5, 1 - exact_states, exact_states)
    assert hold_against_laws(TARGET, up, zeros)["p_values"]["sign"]["raw"] == 0


def test_modes_take_the_place_of_a_magnetisation():
    target = GaussianMixture.three_modes()
    x = target.sample(jax.random.key(0), 4_000)
    found = hold_against_laws(target, x, np.zeros(4_000), x)
    assert set(found["p_values"]) == {"energy", "cells"}
    assert found["p_values"]["cells"]["raw"] > 1e-3
    assert "sign" not in found
    assert "x0" in found["effect_sizes"]


def row(experiment, p):
    entry = {"raw": p, "weighted": None}
    return {"experiment": experiment, "seed": 0, "exactness": {"p_values": {"energy": entry}}}


def test_correction_is_over_all_rows():
    """Each alone is below .05; of three the largest two are not rejected."""
    adjusted = trust_tables.adjust([row("a", 0.03), row("b", 0.04), row("c", 0.001)])
    assert {k[0]: q for k, (_, q) in adjusted.items()} == pytest.approx({"a": 0.06, "b": 0.06, "c": 0.003})


MIXED = GaussianBernoulliRBM(np.array([[1.0, -1.5]]), np.zeros(1), np.zeros(2))
CURVED = Funnel(dim=3, scale=0.7)
RIVALS_OF = [
    (name, target)
    for target in (TARGET, MIXED, CURVED)
    for name in rivals.rivals_of(target)
    if name != "tempering" or target is TARGET
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), RIVALS_OF, ids=[name for name, _ in RIVALS_OF])
def test_rivals_sample_the_target(name, target, monkeypatch):
    if name in rivals.OPTIONAL:
        pytest.importorskip("thrml" if name == "thrml" else "numpyro")
    monkeypatch.setattr(rivals, "NUM_CHAINS", 32)
    monkeypatch.setattr(rivals, "NUM_ADAPT", 200)
    made = rivals.RIVALS[name]
    found = rivals.run_rival(made, target, jax.random.key(0), 60.0, step_size=0.8, max_cpu_seconds=0.0)
    observables = found["observables"]
    energy = observables["energy"]
    assert abs(energy["score"]) < 4
    assert energy["stderr"] < 0.05 * target.energy_std
    assert max(entry["r_hat"] for entry in observables.values()) < 1.1


def test_every_rival_has_targets():
    assert {name for name, _ in RIVALS_OF} == set(rivals.RIVALS)
    assert rivals.rivals_of(Ising(length=4, beta=0.4, field=0.1)) == ("tempering", "thrml")


@pytest.mark.slow
def test_sequential_monte_carlo_knows_log_z(monkeypatch):
    """Where the Gaussian at its start has the target's scale times two; a wrong start would shift log Z."""
    monkeypatch.setattr(smc_rival, "NUM_PARTICLES", 200)
    found = smc_rival.run_smc(CURVED, jax.random.key(0), 60.0, scale=2.0, step_size=0.1, max_cpu_seconds=0.0)
    assert found["num_runs"] == smc_rival.LEAST_RUNS
    assert abs(found["log_z"]["score"]) < 4
    assert found["log_z"]["stderr"] < 0.1
    energy = found["observables"]["energy"]
    assert abs(energy["score"]) < 4
    assert energy["stderr"] == pytest.approx(CURVED.energy_std / np.sqrt(energy["ess"]), rel=0.3)
    with pytest.raises(ValueError, match=r"^target: "):
        smc_rival.run_smc(TARGET, jax.random.key(0), 1.0, scale=1.0, step_size=0.1, max_cpu_seconds=0.0)


def test_colours_are_independent_and_cover_all_sites():
    found = rivals.colours(Ising(length=5, beta=0.4))
    assert np.all(np.sum(found, axis=0) == 1)
    assert len(found) <= 4
    for colour in found:
        grid = colour.reshape(5, 5)
        assert not np.any(grid & np.roll(grid, 1, 0)) | np.any(grid & np.roll(grid, 1, 1))


@pytest.mark.slow
def test_a_tiny_suite(tmp_path, monkeypatch):
    monkeypatch.setattr(rivals, "NUM_CHAINS", 8)
    monkeypatch.setattr(rivals, "BLOCK", 20)

    def broken(target, step_size):
        raise ModuleNotFoundError("No module named 'thrml'")

    monkeypatch.setitem(rivals.RIVALS, "thrml", broken)
    name, out = f"ising-5-{trust.CRITICAL}", tmp_path / "trust"
    suite.main(["trust", "--tiny", "--seeds", "0", "--experiments", name, "--out", str(out)])
    rows = [strict_json(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [r["method"] for r in rows] == ["swendsen-wang", "tempering", "thrml", "sampler"]
    sampler = rows[-1]
    assert set(sampler["coverage"]) >= {"fraction", "low", "high"}
    assert sampler["log_z"]["score"] is not None
    assert sampler["exactness"]["num"] == 200
    assert sampler["wall_seconds"] >= sampler["train_seconds"] + sampler["sample_seconds"]
    energy = rows[0]["observables"]["energy"]
    assert energy["ess_per_cpu_second"] < energy["ess"] / rows[0]["cpu_seconds"]
    text = (out / "tables.md").read_text()
    for word in ("### Certificate", "### Tests", "### Cost", "### Coverage", "No module named 'thrml'"):
        assert word in text
    assert json.loads((out / "suite.json").read_text())["suite"] == "trust"


def test_defaults_are_those_of_the_command(tmp_path):
    """Options that go with an order, too."""
    words = [
        "ising",
        "--length",
        "10",
        "--beta",
        "0.4407",
        "--order",
        "random",
        "--out",
        str(tmp_path),
        "--seed",
        "3",
    ]
    case = trust.CASES["ising-10-any-order"]
    assert trust._options(case, tmp_path, 3, {}) == train.parse(words)[1]
