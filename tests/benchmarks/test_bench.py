"""Records round-trip, are compared with their like, and make the tables of a document without touching the rest."""

import importlib
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from benchmarks import bench, commands, compare
from benchmarks.micro import _harness, buffer, published
from benchmarks.records import Record, append, newest_run, read, table, write_tables
from tests.benchmarks.commands import arguments, command, refused


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch):
    monkeypatch.setattr(_harness, "ROUND", 0.0)


def record(**changes):
    values = {
        "benchmark": "estimator",
        "case": "snis",
        "run": "2026-01-01T00:00:00Z",
        "commit": "abc",
        "python": "3.11.7",
        "jax": "0.10.1",
        "jaxlib": "0.10.1",
        "device": "cpu (any)",
        "num_cores": 2,
        "shapes": {"states": 3, "proposals": 7},
        "dtype": "float32",
        "num_repeats": 5,
        "load_average": 0.5,
        "compile_seconds": 1.5,
        "median": 0.25,
        "fastest": 0.125,
        "slowest": 0.5,
        "cpu_median": 0.3,
    }
    return Record(**{**values, **changes})


def test_a_record_round_trips(tmp_path):
    file = tmp_path / "deeper" / "records.jsonl"
    first = record(others={"RMSE": 0.1}, peak_mib=12.5, run_mib=2.5, baseline="snis", ratio=1.0)
    second = record(case="torch", median=None, error="ImportError: no torch")
    append(file, [first])
    append(file, [second])
    assert read(file) == [first, second]
    file.write_text(file.read_text() + "{}\n")
    with pytest.raises(ValueError, match="line 3"):
        read(file)


DOCUMENT = (
    b"# Title \r\n\n<!-- bench:estimator -->\nold\nlines\n<!-- /bench -->\n\ttext | with | bars\xc3\xa9  \n"
    b"<!-- bench:absent -->\nstays\n<!-- /bench -->\nno newline at the end"
)


def test_tables_leave_the_rest_of_a_document_alone(tmp_path):
    file = tmp_path / "README.md"
    file.write_bytes(DOCUMENT)
    made = table([record(), record(case=r"a \1 b", ratio=0.5, baseline="snis")])
    assert write_tables(file, {"estimator": made, "nowhere": "lost"}) == ["estimator"]
    text = file.read_bytes()
    assert text == DOCUMENT.replace(b"old\nlines\n", made.encode())
    assert b"250 ms" in text
    assert rb"a \1 b" in text
    write_tables(file, {"estimator": made})
    assert file.read_bytes() == text


def test_tables_are_made_of_the_newest_run(tmp_path):
    old = [record(case="gone"), record()]
    new = [record(run="2026-02-01T00:00:00Z", median=0.75)]
    other = record(benchmark="other", run="2026-03-01T00:00:00Z")
    assert newest_run([*old, *new, other], "estimator") == new
    file, document = tmp_path / "records.jsonl", tmp_path / "README.md"
    append(file, [*old, *new, other])
    document.write_bytes(DOCUMENT)
    bench.main(["--tables-only", "--record", str(file), "--document", str(document)])
    assert b"750 ms" in document.read_bytes()
    assert b"gone" not in document.read_bytes()


@pytest.mark.parametrize(
    ("median", "limit", "code", "mark"),
    [(0.25, "1.25", 0, False), (0.3, "1.25", 0, False), (0.32, "1.25", 1, True), (0.32, "1.5", 0, True)],
)
def test_compare_marks_what_is_slower(median, limit, code, mark, tmp_path, capsys):
    stored, new = tmp_path / "stored", tmp_path / "new"
    append(stored, [record(median=9.0), record(), record(device="gpu", median=0.001)])
    append(
        new,
        [record(median=median), record(case="new", median=99.0), record(median=None, error="x", case="y")],
    )
    words = [str(stored), str(new), "--limit", limit]
    if code:
        with pytest.raises(SystemExit) as stop:
            compare.main(words)
        assert stop.value.code == code
    else:
        compare.main(words)
    out = capsys.readouterr().out
    assert ("slower" in out) == mark
    assert len(out.strip().splitlines()) == 2


def test_compare_one_file_with_its_own_past(tmp_path, capsys):
    file = tmp_path / "records"
    append(file, [record(median=0.1), record(median=0.3), record(shapes={"states": 4})])
    with pytest.raises(SystemExit) as stop:
        compare.main([str(file)])
    assert stop.value.code == 1
    assert "3.00" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(tmp_path, capsys):
    file = tmp_path / "records"
    append(file, [record()])
    assert "no case" in refused(compare.main, [file], capsys)
    assert "limit" in refused(compare.main, [file, "--limit", "0"], capsys)
    assert "only" in refused(bench.main, ["--only", "nothing"], capsys)


def test_ratios_are_of_rounds_measured_in_turn(monkeypatch):
    """Short runs as often as fill a round, by what they take after a first call, which is slow."""
    calls, now = [], [0.0]
    clock = types.SimpleNamespace(
        sleep=lambda s: None, perf_counter=lambda: now[0], process_time=lambda: 2.0 * now[0]
    )
    monkeypatch.setattr(_harness, "time", clock)
    monkeypatch.setattr(_harness, "ROUND", 0.1)

    def run(name, seconds):
        now[0] += seconds if name in calls else 9.0
        calls.append(name)

    timings = _harness.time_in_turn({"a": lambda: run("a", 0.03), "b": lambda: run("b", 0.2)}, 5)
    assert "".join(calls) == "aabb" + "aaaab" * 5
    for name, seconds in {"a": 0.03, "b": 0.2}.items():
        np.testing.assert_allclose(timings[name].seconds, [seconds] * 5)
        np.testing.assert_allclose(timings[name].cpu_seconds, [2.0 * seconds] * 5)
    slow, fast = _harness.Timing(None, (2.0, 30.0, 4.0)), _harness.Timing(None, (1.0, 10.0, 2.0))
    assert slow.ratio(fast) == 2.0
    with pytest.raises(ValueError, match="repeats"):
        _harness.time_in_turn({}, 4)


def test_too_few_rounds_are_refused_first(capsys):
    assert refused(buffer.main, ["--repeats", "4"], capsys) == "error: repeats: at least 5, got 4"


def test_a_measurement_is_recorded(tmp_path):
    file = tmp_path / "records"
    words = ["--capacity", "8", "--num-rollouts", "4", "--batch-size", "4", "--sites", "3", "--repeats", "5"]
    found = buffer.main([*words, "--record", str(file)])
    assert read(file) == found
    assert {r.benchmark for r in found} == {"buffer"}
    assert all(0 < r.fastest <= r.median <= r.slowest and r.compile_seconds > 0 for r in found)


def test_a_peer_that_is_missing_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    sizes = [
        "--length",
        "3",
        "--num-states",
        "4",
        "--num-proposals",
        "8",
        "--num-samples",
        "4",
        "--num-steps",
        "2",
    ]
    found = published.main([*sizes, "--no-memory", "--no-rmse", "--only", "sampling"])
    assert [r.case for r in found] == ["sampling", "sampling, PyTorch"]
    assert found[0].median is not None
    assert found[0].ratio is None
    assert found[1].median is None
    assert "ModuleNotFoundError" in found[1].error


@pytest.mark.slow
@pytest.mark.parametrize("enabled", ["1", "0"])
def test_commands_keep_what_they_compile(enabled, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", enabled)
    done = command("train", *arguments("ising", tmp_path / "run", num_rollouts=8, batch_size=8))
    assert done.returncode == 0, done.stderr
    assert bool(list(tmp_path.glob("egmjax/*/*"))) == (enabled == "1")


def test_a_given_cache_goes_before_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    given = jax.config.jax_compilation_cache_dir
    commands.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == given


TINY_SIZES = {
    "snis": "--length 3 --num-states 4 --num-proposals 32 --many-proposals 0 --map-batch 2",
    "train_step": "--length 3 --num-states 4 --num-proposals 32 --lengths 3 4",
    "steppers": "--num-samples 3 --num-steps 2 --sites 3 --dim 2 --width 4",
    "weights": "--num-samples 64 --dim 2",
    "jump_laws": "--num 8",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY_SIZES)
def test_every_measurement_runs(name):
    found = importlib.import_module(f"benchmarks.micro.{name}").main(
        [*TINY_SIZES[name].split(), "--repeats", "5"]
    )
    assert len(found) > 3
    assert all(r.median > 0 and r.cpu_median >= 0 and not r.error for r in found)


@pytest.mark.parametrize(("sizes", "num_params"), [((25, 8, 32, 75), 14_179), ((25, 4, 256, 1), 354_829)])
def test_the_published_network(sizes, num_params):
    """Its numbers of parameters, and its layers one after another in place of their products."""
    sites, _, width, _ = sizes
    network = published.PublishedMLP(*sizes)
    x, t = np.arange(sites) % 3, 0.37
    params = network.init(jax.random.key(0), jnp.asarray(x), t)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_params
    key, leaves = jax.random.key(1), jax.tree.leaves(params)
    moved = [a + 0.1 * jax.random.normal(jax.random.fold_in(key, i), a.shape) for i, a in enumerate(leaves)]
    params = jax.tree.unflatten(jax.tree.structure(params), moved)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)["params"]

    def gelu(h):
        return h * norm.cdf(h)

    angles = t * 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    clock = np.concatenate([np.sin(angles), np.cos(angles)])
    clock = (
        gelu(clock @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]) @ p["Dense_1"]["kernel"]
        + p["Dense_1"]["bias"]
    )
    h = np.concatenate([p["embedding"][x].ravel(), clock])
    h = gelu(h @ p["first_kernel"] + p["first_bias"])
    h = (h @ p["second_kernel"] + p["second_bias"]) @ p["third_kernel"] + p["third_bias"]
    h = gelu(gelu(h)) @ p["last_kernel"] + p["last_bias"]
    np.testing.assert_allclose(network.apply(params, jnp.asarray(x), t), h, rtol=2e-4, atol=2e-4)


def test_the_second_process_loads_what_the_first_compiled(monkeypatch):
    """It is that one whose memory is reported."""
    folders = []

    def child(module, case, *words):
        folder = Path(words[words.index("--cache") + 1])
        folders.append((folder, (folder / "program").exists()))
        (folder / "program").touch()
        return _harness.Peak(100.0 * len(folders), 1.0)

    monkeypatch.setattr(published, "peak_in_child", child)
    assert published._peak_from_cache(published.PublishedOptions(), "sampling") == 200.0
    assert [is_there for _, is_there in folders] == [False, True]
    assert not folders[0][0].exists()
