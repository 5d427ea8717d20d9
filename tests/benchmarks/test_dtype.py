"""Runs with bfloat16 layers, refusals where weights would be wrong, chunks of proposals, and chunks that trace once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import load, sample, train
from benchmarks.runs import CHUNK, chunk_of, compile_roll_out, draw, weigh
from egmjax.states import Categorical, Real
from tests.benchmarks.commands import arguments, refused
from tests.core.products import products
from tests.training.test_retraces import traces


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["gb-rbm", "--dtype", "bfloat16"], "dtype: the log-determinant"),
        (["three-modes", "--process", "flow+diffusion", "--dtype", "bfloat16"], "dtype: the log-determinant"),
        (["moons", "--dtype", "bfloat16"], "dtype: the log-determinant"),
        (["ising", "--dtype", "bfloat16"], "dtype: in this order"),
        (["ising", "--chunk-size", "32"], "chunk_size: there are proposals"),
        (["gb-rbm", "--chunk-size", "0"], "chunk_size: at least 1"),
        (["ising", "--order", "random", "--objective", "snis", "--chunk-size", "33"], "chunk_size: expected"),
    ],
)
def test_refusals(words, line, capsys, tmp_path):
    assert f"error: {line}" in refused(train.main, [*words, "--out", tmp_path / "x"], capsys)
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrow") / "run"
    options = {"order": "random", "objective": "snis", "dtype": "bfloat16", "chunk_size": 32}
    return folder, train.main(arguments("ising", folder, num_proposals=64, **options))


def test_a_run(narrow, capsys, tmp_path):
    """Its network multiplies in bfloat16; parameters, log-weights and metrics are what they always are."""
    folder, report = narrow
    assert report["config"]["dtype"] == "bfloat16"
    assert np.isfinite(report["log_z"]["estimate"])
    run = load(folder)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(run.params)} == {"float32"}
    x = jnp.zeros(9, jnp.int32)
    found = products(run.setup.predictor(run.params), x, jnp.zeros(()))
    assert [str(eqn.outvars[0].aval.dtype) for eqn in found].count("bfloat16") == 2  # of spins and of gates
    _, log_weight = run.sample(jax.random.key(0), 100)
    assert log_weight.dtype == np.float32
    words = [folder, "--chains", "metropolis", "--out", tmp_path / "chains.npz"]
    assert "error: chains: paths are drawn and weighed" in refused(sample.main, words, capsys)


def test_another_type_is_another_run(narrow, capsys):
    folder, _ = narrow
    options = {"order": "random", "objective": "snis", "dtype": "float32", "chunk_size": 32}
    words = arguments("ising", folder, "--resume", num_proposals=64, **options)
    assert "dtype" in refused(train.main, words, capsys)


def test_chunks_of_samples_trace_once(narrow):
    """However many there are, roll-outs as well as log-weights of given states."""
    run, key = load(narrow[0]), jax.random.key(0)
    roll_out, seen = compile_roll_out(run.setup), traces()
    draw(roll_out, run.params, key, CHUNK)
    before = len(seen)
    x, _ = draw(roll_out, run.params, key, 3 * CHUNK - 1)
    assert seen[before:] == []

    calls = []

    def counted(params, xt, t):
        calls.append(1)
        return run.setup.apply_fn(params, xt, t)

    log_weight = weigh(run.setup._replace(apply_fn=counted), run.params, key, x)
    assert log_weight.shape == (3 * CHUNK - 1,)
    assert len(calls) == 1


def test_roll_outs_at_a_time_go_with_the_size_of_a_state():
    sizes = {sites: chunk_of(Categorical(sites, 2)) for sites in (9, 4096, 10_000, 10**7)}
    assert sizes == {9: 1000, 4096: 1000, 10_000: 256, 10**7: 1}
    assert chunk_of((Real((5_000,)), Categorical(5_000, 3))) == 256
    assert [chunk_of(Real((dim,)), with_jacobian=True) for dim in (16, 36)] == [CHUNK, 128]
