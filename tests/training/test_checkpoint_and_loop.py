"""Checkpoints that survive a crash and refuse what is not theirs; a loop that goes on where it was cut off."""

import gc
import json
import os
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.training import CheckpointError, Checkpoints, Trainer, TrainState, fit, write_atomically
from tests.training.cases import as_data, assert_identical, make

CONFIGURATION = {"target": "ising", "width": 8, "seed": 0, "radius": None, "beta": 0.4}

# reads that failed leave coroutines behind, which complain when they are collected
ORBAX = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def tree(shift=0.0):
    return {
        "key": jax.random.key(7 + int(shift)),
        "keys": jax.random.split(jax.random.key(3), 2),
        "params": (jnp.arange(6.0).reshape(2, 3) + shift, [jnp.asarray(2.5)]),
        "count": jnp.int32(4),
        "flag": jnp.asarray([True, False]),
    }


def truncate(folder):
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert files
    for file in files:
        file.write_bytes(b"")


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("checkpoint: ")
    for word in words:
        assert word in text


def test_round_trip(tmp_path):
    store = Checkpoints(tmp_path / "deep" / "checkpoints", CONFIGURATION)
    assert store.latest() is None
    store.save(3, tree())
    assert store.latest() == 3
    restored = store.restore(tree(shift=5.0))
    assert_identical(restored, tree())
    assert jax.random.key_impl(restored["key"]) == jax.random.key_impl(tree()["key"])
    jax.random.normal(restored["key"])  # a key, not its data


def test_the_newest_two_are_kept(tmp_path):
    store = Checkpoints(tmp_path, CONFIGURATION, keep=2)
    for iteration in (2, 9, 10, 100):  # numbers, not names, decide which is newest
        store.save(iteration, tree(shift=float(iteration)))
        assert store.latest() == iteration
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.is_dir()) == [10, 100]
    assert_identical(store.restore(tree()), tree(shift=100.0))
    # left-overs of a save that was cut off are not taken for a checkpoint
    (tmp_path / "200.orbax-checkpoint-tmp").mkdir()
    assert store.latest() == 100
    assert_identical(store.restore(tree()), tree(shift=100.0))
    store.save(300, tree(shift=300.0))
    assert store.latest() == 300


def test_a_save_leaves_no_objects_behind(tmp_path):
    """Nothing of ours and nothing of orbax's, of which version 0.12.8 keeps 290 a save; caches that fill keep 20."""
    store, num = Checkpoints(tmp_path, CONFIGURATION), 20

    def save(first):
        for iteration in range(first, first + num):
            store.save(iteration, tree())
        gc.collect()
        return sys.getallocatedblocks()

    before = save(0)
    assert save(num) - before < 100 * num


def test_none(tmp_path):
    with pytest.raises(CheckpointError) as error:
        Checkpoints(tmp_path / "nothing", CONFIGURATION).restore(tree())
    one_line(error, "none", "nothing")
    assert isinstance(error.value, ValueError)


def test_damaged(tmp_path):
    store = Checkpoints(tmp_path, CONFIGURATION)
    store.save(1, tree())
    store.save(2, tree())
    truncate(tmp_path / "2")
    with pytest.raises(CheckpointError) as error:
        store.restore(tree())
    one_line(error, str(tmp_path / "2"), "damaged")


@ORBAX
def test_one_damaged_array_is_noticed(tmp_path):
    store = Checkpoints(tmp_path, CONFIGURATION)
    big = {"x": jnp.asarray(np.random.default_rng(0).normal(size=20_000))}
    store.save(1, big)
    largest = max((p for p in (tmp_path / "1").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(CheckpointError) as error:
        store.restore(big)
    one_line(error, "damaged")
    gc.collect()


@pytest.mark.parametrize("field", ["width", "beta", "target", "radius"])
def test_another_configuration(tmp_path, field):
    Checkpoints(tmp_path, CONFIGURATION).save(1, tree())
    changed = {**CONFIGURATION, field: 3}
    with pytest.raises(CheckpointError) as error:
        Checkpoints(tmp_path, changed).restore(tree())
    one_line(error, "another configuration", field)
    assert not any(name in str(error.value).split("differs in")[1] for name in CONFIGURATION if name != field)


def test_a_field_more_or_less_is_another_configuration(tmp_path):
    Checkpoints(tmp_path, CONFIGURATION).save(1, tree())
    fewer = {k: v for k, v in CONFIGURATION.items() if k != "seed"}
    for other, name in ((fewer, "seed"), ({**CONFIGURATION, "extra": 1}, "extra")):
        with pytest.raises(CheckpointError, match=name):
            Checkpoints(tmp_path, other).restore(tree())


def test_configurations_are_compared_as_json(tmp_path):
    Checkpoints(tmp_path, {"shape": (2, 3)}).save(1, tree())
    assert_identical(Checkpoints(tmp_path, {"shape": [2, 3]}).restore(tree()), tree())


def test_a_save_does_not_join_the_run_of_another_configuration(tmp_path):
    Checkpoints(tmp_path, CONFIGURATION).save(1, tree())
    with pytest.raises(CheckpointError, match="width"):
        Checkpoints(tmp_path, {**CONFIGURATION, "width": 9}).save(2, tree())
    assert Checkpoints(tmp_path, CONFIGURATION).latest() == 1


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", None])
def test_a_damaged_fingerprint(tmp_path, text):
    store = Checkpoints(tmp_path, CONFIGURATION)
    store.save(1, tree())
    fingerprint = tmp_path / "configuration.json"
    fingerprint.unlink() if text is None else fingerprint.write_text(text)
    with pytest.raises(CheckpointError) as error:
        store.restore(tree())
    one_line(error, "configuration.json")


@ORBAX
def test_another_structure(tmp_path):
    store = Checkpoints(tmp_path, CONFIGURATION)
    store.save(1, tree())
    for other in (
        {"x": jnp.zeros(3)},
        {**tree(), "more": jnp.zeros(2)},
        {**tree(), "flag": jnp.zeros((7, 7))},
    ):
        with pytest.raises(CheckpointError) as error:
            store.restore(other)
        one_line(error)
    gc.collect()


def test_write_atomically(tmp_path):
    file = tmp_path / "a.json"
    write_atomically(file, "one")
    write_atomically(file, "two")
    assert file.read_text() == "two"
    assert os.listdir(tmp_path) == ["a.json"]


class Toy(NamedTuple):
    """A trainer whose step compiles at once: parameters take a random walk."""

    trainer: Trainer

    def init(self):
        return self.trainer.init(jax.random.key(0), jnp.zeros((3,)))


def toy(elbo=0.5):
    def init(key, params):
        zero = jnp.zeros((), jnp.int32)
        return TrainState(params, params + 0.0, (), jnp.zeros((4,)), key, zero, zero + 0)

    def step(state):
        key, key_step = jax.random.split(state.key)
        params = state.params + jax.random.normal(key_step, (3,))
        ema = 0.9 * state.ema_params + 0.1 * params
        new = TrainState(params, ema, (), state.buffer + 1.0, key, state.iteration + 1, state.num_updates + 2)
        return new, {"loss": jnp.sum(params**2), "elbo": jnp.asarray(elbo), "num_nonfinite": jnp.int32(0)}

    return Toy(Trainer(init, step))


@pytest.fixture
def case():
    return toy()


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_fit_writes_a_row_an_iteration(tmp_path, case):
    file, seen = tmp_path / "metrics.jsonl", []
    result = fit(
        case.trainer, case.init(), 3, metrics_file=file, energies_per_iteration=7, on_metrics=seen.append
    )
    assert int(result.state.iteration) == 3
    written = rows(file)
    assert written == result.history == seen
    assert [row["iteration"] for row in written] == [1, 2, 3]
    assert [row["energy_evaluations"] for row in written] == [7, 14, 21]
    assert 0 < written[0]["seconds"] <= written[1]["seconds"] <= written[2]["seconds"]
    assert result.train_seconds == written[-1]["seconds"]
    assert result.compile_seconds > 0
    for name in ("loss", "elbo", "num_nonfinite"):
        assert all(np.isfinite(row[name]) for row in written)


def test_fit_equals_a_bare_loop(case):
    result = fit(case.trainer, case.init(), 3)
    state, step = case.init(), jax.jit(case.trainer.step)
    for _ in range(3):
        state, metrics = step(state)
    assert_identical(result.state, state)
    assert result.history[-1]["loss"] == float(metrics["loss"])


def test_nothing_left_to_do(tmp_path, case):
    file = tmp_path / "metrics.jsonl"
    result = fit(case.trainer, case.init(), 2, metrics_file=file)
    before = file.read_text()
    again = fit(case.trainer, result.state, 2, metrics_file=file)
    assert again.history == result.history
    assert again.compile_seconds == 0
    assert file.read_text() == before


@pytest.mark.parametrize("torn", ['{"iteration": 7, "lo', "", '{"iteration": 5}', "\n"])
def test_interrupted_toy(tmp_path, case, torn):
    interrupted_equals_uninterrupted(tmp_path, case, torn)


@pytest.mark.slow
def test_interrupted_training(tmp_path):
    interrupted_equals_uninterrupted(tmp_path, make("masked"), "{")


def interrupted_equals_uninterrupted(tmp_path, case, torn):
    """Six iterations, checkpoints at 2 and 4; then from the checkpoint at 4 to 10, with a torn last line."""
    whole = fit(case.trainer, case.init(), 10, metrics_file=tmp_path / "whole.jsonl")

    store, file = Checkpoints(tmp_path / "checkpoints", CONFIGURATION), tmp_path / "metrics.jsonl"

    class Killed(Exception):
        pass

    def kill(row):
        if row["iteration"] == 6:
            raise Killed

    options = {"checkpoints": store, "checkpoint_every": 2, "metrics_file": file}
    with pytest.raises(Killed):
        fit(case.trainer, case.init(), 10, **options, on_metrics=kill)
    assert store.latest() == 4
    assert [row["iteration"] for row in rows(file)] == [1, 2, 3, 4, 5, 6]
    with file.open("a") as stream:
        stream.write(torn)

    state = store.restore(case.init())
    assert int(state.iteration) == 4
    result = fit(case.trainer, state, 10, **options)
    assert_identical(result.state, whole.state)
    assert store.latest() == 10
    assert_identical(store.restore(case.init()), whole.state)
    timeless = lambda file: [{k: v for k, v in row.items() if k != "seconds"} for row in rows(file)]  # noqa: E731
    assert timeless(file) == timeless(tmp_path / "whole.jsonl")
    assert [row["iteration"] for row in result.history] == list(range(1, 11))
    seconds = [row["seconds"] for row in rows(file)]
    assert seconds == sorted(seconds)


def test_rows_of_an_earlier_run_are_dropped_at_the_start(tmp_path, case):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"iteration": 1, "loss": -1.0, "seconds": 50.0}\n')
    result = fit(case.trainer, case.init(), 1, metrics_file=file)
    assert [row["iteration"] for row in rows(file)] == [1]
    assert rows(file)[0]["loss"] != -1.0
    assert result.train_seconds < 50


def test_the_last_iteration_is_saved_off_the_grid_too(tmp_path, case):
    store = Checkpoints(tmp_path, CONFIGURATION)
    result = fit(case.trainer, case.init(), 3, checkpoints=store, checkpoint_every=2)
    assert store.latest() == 3
    assert_identical(store.restore(case.init()), result.state)
    assert as_data(result.state.key).dtype == np.uint32


def test_rows_are_strict_json_even_where_energies_are_not_finite(tmp_path):
    """A roll-out of weight zero makes the ELBO minus infinity, for which JSON has no number."""
    bad, file = toy(elbo=-np.inf), tmp_path / "metrics.jsonl"
    fit(bad.trainer, bad.init(), 2, metrics_file=file)
    fit(bad.trainer, bad.init()._replace(iteration=jnp.int32(2)), 3, metrics_file=file)  # and are read again

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    for line in file.read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("every", [0, -1])
def test_checkpoint_every_must_be_positive(case, every):
    with pytest.raises(ValueError, match="checkpoint_every"):
        fit(case.trainer, case.init(), 1, checkpoint_every=every)
