"""The soak finds what it looks for: stand-ins of the training command, each with a fault of its own."""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import soak
from tests.benchmarks.commands import refused

STAND_IN = """
import json, random, shutil, sys, time
from pathlib import Path

FAULT = {fault!r}
words = dict(zip(sys.argv[1:], sys.argv[2:]))
folder = Path(words["--out"])
store = folder / "checkpoints"
file = folder / "metrics.jsonl"
is_first = words.get("--process-id", "0") == "0"
if is_first:
    store.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{{}}")
    done = max((int(p.name) for p in store.iterdir()), default=0) if "--resume" in sys.argv else 0
    if FAULT == "checkpoint" and done:
        shutil.rmtree(store / str(done))
        done -= 2
    if "--resume" in sys.argv and done:
        print("resuming after iteration", done, flush=True)
    if FAULT == "ends" and done:
        raise SystemExit("it cannot go on")
    lines = file.read_text().splitlines(keepends=True)[:done] if file.exists() else []
    file.write_text("".join(lines))
i = done if is_first else 0
while True:
    time.sleep(0.02)
    i += 2 if FAULT == "gap" and i == 3 else 1
    if not is_first:
        continue
    loss = random.random() if FAULT == "losses" else 1 / i
    with file.open("a") as out:
        out.write(json.dumps({{"iteration": i, "loss": loss}}) + "\\n")
    if i % 2 == 0 and FAULT != "losses":
        (store / str(i)).mkdir()
"""


def run(tmp_path, monkeypatch, fault, **options):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.format(fault=fault))
    monkeypatch.setattr(soak, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setattr(soak, "SHAPES", ((1, 1), (2, 1)))
    monkeypatch.setattr(soak, "NOTICE", 0.1)
    monkeypatch.setattr(soak, "_look", lambda folder: {})
    given = {"minutes": 0.07, "longest": 1.5, "seed": 3, "run": ("ising",)} | options
    return soak.soak(soak.SoakOptions(out=tmp_path / "out", **given))


def test_a_run_without_faults(tmp_path, monkeypatch):
    found = run(tmp_path, monkeypatch, "")
    assert found["num_faults"] == 0
    assert found["num_rounds"] > 3
    assert found["iterations"] > 20
    assert found["one_of_several_killed"] > 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "rounds.jsonl").read_text().splitlines()]
    assert len(rows) == found["num_rounds"]
    assert all(
        later["resumed"] is None or later["resumed"] >= row["newest"]
        for row, later in itertools.pairwise(rows)
    )
    assert (tmp_path / "out" / "soak.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("checkpoint", "was complete, and the run went on from"),
        ("losses", "the same shape, going on from 0, has other losses"),
        ("gap", "metrics.jsonl has a gap"),
        ("ends", "a process ended by itself: "),
    ],
)
def test_faults_are_found(tmp_path, monkeypatch, capsys, fault, says):
    assert run(tmp_path, monkeypatch, fault)["num_faults"] > 0
    assert says in capsys.readouterr().out


def test_nothing_goes_on_when_it_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
    started, handler = [], signal.getsignal(signal.SIGTERM)

    def end(processes, *_):
        started.extend(processes)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    monkeypatch.setattr(soak, "_watch", end)
    with pytest.raises(SystemExit, match="143"):
        soak.main(["--out", str(tmp_path / "out"), "--minutes", "1"])
    assert [process.returncode for process in started] == [-signal.SIGKILL] * len(started)
    assert started
    assert signal.getsignal(signal.SIGTERM) == handler


def test_growth_of_memory():
    at = np.arange(0, 200, 0.5)
    steady = [(t, 500 + 5 * np.sin(t)) for t in at]
    assert abs(soak.memory_growth(steady)) < 0.01
    warming = [(t, 500 - 300 * max(0, 1 - t / 15)) for t in at]
    assert soak.memory_growth(warming) == 0
    leaking = [(t, 500 + t) for t in at]
    assert soak.memory_growth(leaking) == pytest.approx(120 / (500 + 50), abs=0.02)
    assert soak.memory_growth(steady[:100]) == 0  # too short to say
    assert soak.memory_growth([]) == 0


def test_a_line_that_was_cut_off_is_no_fault(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert soak.read_losses(file) == ({}, [])
    file.write_text('{"iteration": 1, "loss": 2.0}\n{"iteration": 2, "lo')
    assert soak.read_losses(file) == ({1: 2.0}, [])
    file.write_text('{"iteration": 1, "lo\n{"iteration": 2, "loss": 1.0}\n')
    assert soak.read_losses(file)[1]


def test_bad_input(tmp_path, capsys):
    out = tmp_path / "out"

    def says(*words):
        return refused(soak.main, ["--out", str(out), *words], capsys)

    assert "minutes:" in says("--minutes", "0")
    assert "run: --iterations is chosen here" in says("--run", "ising", "--iterations", "3")
    assert "target: unknown 'isnig'" in says("--run", "isnig")
    assert "run: expected the words" in says("--run")
    out.mkdir()
    (out / "mine").write_text("")
    assert "out:" in says()


def test_memory_is_looked_at_from_the_first_line_of_the_round(monkeypatch):
    """Not from where lines past the checkpoint were cut off, before anything was compiled."""
    sizes, seconds = iter([300, 300, 200, 200, 250, 250]), iter(range(1, 100))
    monkeypatch.setattr(soak, "_size", lambda path: next(sizes))
    monkeypatch.setattr(
        soak, "time", SimpleNamespace(monotonic=lambda: float(next(seconds)), sleep=lambda _: None)
    )
    memory, faults = soak._watch([], Path("metrics.jsonl"), 0.0, 6.0, [])
    assert memory == [(4.0, 0), (5.0, 0)]
    assert not faults
