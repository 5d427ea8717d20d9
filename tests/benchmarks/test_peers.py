"""Peers compute what we compute, and one that is missing is reported in its row; rivals by themselves."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import rival_rates, rivals
from benchmarks.micro import _harness, flow_matching_peer, torchebm_peer
from tests.benchmarks.commands import refused

DATA = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)


def test_the_loss_is_that_of_the_velocity():
    """`mean |u(x_t, t) - (x_1 - x_0)|^2` over states and coordinates, without paths and processes."""
    parts = flow_matching_peer.Parts(8, DATA)
    rng = np.random.default_rng(1)
    x0, x1 = rng.normal(size=(2, 20, 2)).astype(np.float32)
    t = np.linspace(0.0, 0.99, 20, dtype=np.float32)
    h = np.concatenate([(1 - t)[:, None] * x0 + t[:, None] * x1, t[:, None]], axis=1).astype(np.float64)
    layers = parts._layers(parts.params)
    for kernel, bias in layers[:-1]:
        h = h @ kernel + bias
        h = h / (1 + np.exp(-h))
    velocity = h @ layers[-1][0] + layers[-1][1]
    expected = np.mean((velocity - (x1 - x0)) ** 2)
    np.testing.assert_allclose(parts.loss(parts.params, x0, x1, t), expected, rtol=1e-5)
    for x, time, u in zip(x0, t, jax.vmap(parts.network.apply, (None, 0, 0))(parts.params, x0, t)):
        flow = parts.process.generator(parts.apply(parts.params, x, time), x, time)
        np.testing.assert_allclose(flow.velocity, u, atol=1e-5)


def test_flow_matching_computes_the_same():
    pytest.importorskip("torch")
    pytest.importorskip("flow_matching")
    parts = flow_matching_peer.Parts(16, DATA)
    peer = parts.peer()
    found = parts.differences(peer, 32)
    assert max(found.values()) < 1e-5
    parts.params = jax.tree.map(lambda a: 1.001 * a, parts.params)
    with pytest.raises(ValueError, match="the same"):
        parts.differences(peer, 32)


def test_torchebm_has_the_same_energy_and_law():
    pytest.importorskip("torch")
    pytest.importorskip("torchebm")
    peer = torchebm_peer.make_peer()
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    np.testing.assert_allclose(peer.energy(x), jax.vmap(torchebm_peer.energy)(jnp.asarray(x)), rtol=1e-5)
    assert peer.sample(x, 3).shape == x.shape


SMALL = {
    flow_matching_peer: "--widths 8 --num-states 8 --num-samples 4 --num-steps 2",
    torchebm_peer: "--num-chains 4 --num-steps 2 --dim 2",
}


@pytest.mark.parametrize("module", SMALL, ids=lambda module: module.__name__.split(".")[-1])
def test_a_peer_that_is_missing_is_reported(module, monkeypatch):
    for name in ("torch_flow", "torch_langevin"):
        monkeypatch.setitem(sys.modules, f"benchmarks.peers.{name}", None)
    monkeypatch.setattr(_harness, "ROUND", 0.0)
    monkeypatch.setattr(flow_matching_peer, "ONE_THREAD", {"xla_of_another_version": True})
    found = module.main([*SMALL[module].split(), "--repeats", "5"])
    ours = [r for r in found if not r.error]
    unknown = [r for r in found if "No such compile option" in r.error]
    missing = [r for r in found if r.error and r not in unknown]
    assert len(ours) == {flow_matching_peer: 3, torchebm_peer: 2}[module]
    assert [r.case for r in unknown] == {
        flow_matching_peer: ["training step, 3x8, 8 a call, one thread"],
        torchebm_peer: [],
    }[module]
    assert all(r.median > 0 and r.ratio is None for r in ours)
    assert missing
    assert all("ModuleNotFoundError" in r.error and r.median is None for r in missing)


@pytest.mark.slow
def test_rivals_by_themselves(monkeypatch, capsys):
    monkeypatch.setattr(rivals, "NUM_CHAINS", 8)
    monkeypatch.setattr(rivals, "BLOCK", 20)
    monkeypatch.setattr(rivals, "NUM_ADAPT", 20)

    def broken(target, step_size):
        raise ModuleNotFoundError("No module named 'numpyro'")

    monkeypatch.setitem(rivals.RIVALS, "mixed-hmc", broken)
    words = ["gb-rbm", "--max-cpu-seconds", "0", "--only", "tempering", "mixed-hmc"]
    found = rival_rates.main(words)
    assert [row["method"] for row in found] == ["tempering", "mixed-hmc"]
    assert found[0]["observables"]["energy"]["ess_per_cpu_second"] > 0
    assert "No module named 'numpyro'" in capsys.readouterr().out


def test_what_rivals_refuse(capsys):
    assert "target" in refused(rival_rates.main, ["nothing"], capsys)
    assert "only" in refused(rival_rates.main, ["gb-rbm", "--only", "nuts"], capsys)
    assert "seconds" in refused(rival_rates.main, ["gb-rbm", "--seconds", "0"], capsys)
    assert "step_size" in refused(rival_rates.main, ["gb-rbm", "--step-size", "0"], capsys)
