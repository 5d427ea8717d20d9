"""A run that is killed and resumed ends with the very parameters of one that was not."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from benchmarks import load
from tests.benchmarks.commands import ROOT, arguments, command

OPTIONS = {"iterations": 60, "checkpoint_every": 2, "num_samples": 50, "num_exact": 20}


def rows(file):
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    """SIGKILL twice, wherever it falls: in a step, in writing a line, in saving a checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    flags, cut_at = (), []
    for after in (7, 23):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.train", *arguments("ising", killed, *flags, **OPTIONS)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 200
        while len(rows(killed / "metrics.jsonl")) < after and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[0][-2000:]
            time.sleep(0.003)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        cut_at.append(len(rows(killed / "metrics.jsonl")))
        flags = ("--resume",)
    assert cut_at[-1] < OPTIONS["iterations"], "killed in the middle"
    assert not (killed / "report.json").exists()

    done = command("train", *arguments("ising", killed, "--resume", **OPTIONS))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resuming after iteration" in done.stdout
    done = command("train", *arguments("ising", whole, **OPTIONS))
    assert done.returncode == 0, done.stderr[-2000:]

    assert len(rows(killed / "metrics.jsonl")) == OPTIONS["iterations"]
    a, b = load(killed), load(whole)
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params)):
        np.testing.assert_array_equal(x, y)
    with np.load(killed / "samples.npz") as x, np.load(whole / "samples.npz") as y:
        np.testing.assert_array_equal(x["x"], y["x"])
        np.testing.assert_array_equal(x["log_weight"], y["log_weight"])
    complete = {p.name for p in (killed / "checkpoints").iterdir() if p.is_dir()}
    assert {"58", "60"} <= complete
