"""`benchmarks.train` on several devices and by several processes: the run of one, and one report."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import train
from tests.benchmarks.commands import ROOT, arguments, refused


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--coordinator", "localhost:1"], "coordinator: needs --num-processes and --process-id"),
        (["--coordinator", "localhost:1", "--num-processes", "2"], "coordinator: needs"),
        (["--num-processes", "2", "--process-id", "0"], "coordinator: HOST:PORT goes with"),
        (["--coordinator", "auto", "--process-id", "0"], "coordinator: HOST:PORT goes with"),
        (["--coordinator", "localhost:1", "--num-processes", "2", "--process-id", "2"], "coordinator: "),
        (["--proposal-devices", "2"], "proposal_devices: there are proposals to share with"),
        (["--proposal-devices", "2", "--order", "random", "--objective", "snis"], "proposals: must divide"),
        (["--proposal-devices", "0"], "proposal_devices: at least 1"),
    ],
)
def test_what_cannot_be_spread(words, line, capsys, tmp_path):
    assert f"error: {line}" in refused(train.main, ["ising", *words, "--out", tmp_path / "x"], capsys)
    assert not (tmp_path / "x").exists()


def start(*words, devices=1, module=("-m", "benchmarks.train")):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return subprocess.Popen(
        [sys.executable, *module, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(*words):
    with socket.socket() as server:
        server.bind(("localhost", 0))
        address = f"localhost:{server.getsockname()[1]}"
    places = ("--coordinator", address, "--num-processes", 2, "--process-id")
    return [start(*words, *places, i) for i in range(2)]


def rows(folder):
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def assert_same_rows(given, wanted, rtol):
    assert [row["iteration"] for row in given] == [row["iteration"] for row in wanted]
    for name, factor in (("loss", 1), ("grad_norm", 10), ("log_z", 1), ("elbo", 1)):
        a, b = ([row[name] for row in run] for run in (given, wanted))
        np.testing.assert_allclose(a, b, rtol=factor * rtol, err_msg=name)


ODD = """
import sys
from benchmarks import amortized, discrete_likelihood, mixed_likelihood, train
for main, words in (
    (train.main, ["four-modes", "--dim", "2", "--method", "balanced-mle", "--num-data", "99", "--num-chains", "15"]),
    (train.main, ["two-modes", "--dim", "2", "--method", "dsm", "--num-data", "99", "--noised-batch", "15"]),
    (discrete_likelihood.main, ["--num-data", "99", "--num-chains", "15"]),
    (mixed_likelihood.main, ["--num-data", "99", "--batch-size", "15"]),
    (amortized.main, ["--num-rollouts", "15"]),
):
    try:
        main([*words, "--out", sys.argv[1]])
    except SystemExit as stop:
        assert stop.code == 2, stop.code
"""


@pytest.mark.slow
def test_commands_without_processes_use_all_devices(tmp_path):
    """Seen by what cannot be dealt to two; that the losses are those of one is tested where they are made."""
    pytest.importorskip("distrax")
    process = start("-c", ODD, tmp_path / "x", devices=2, module=())
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err[-2000:]
    lines = err.strip().splitlines()
    names = ("num_chains", "noised_batch", "num_chains", "batch_size", "num_rollouts")
    assert len(lines) == len(names), err[-2000:]
    for line, name in zip(lines, names):
        assert line.startswith(f"error: {name}")
        assert line.endswith("a multiple of the number of devices, 2, got 15")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_proposals_over_two_devices(tmp_path):
    options = {"num_proposals": 256, "iterations": 4}
    other = start(*arguments("three-modes", tmp_path / "two", **options), "--proposal-devices", 2, devices=2)
    train.main(arguments("three-modes", tmp_path / "one", **options))
    _, err = other.communicate(timeout=500)
    assert other.returncode == 0, err[-2000:]
    assert_same_rows(rows(tmp_path / "two"), rows(tmp_path / "one"), 1e-5)
    with np.load(tmp_path / "two" / "samples.npz") as a, np.load(tmp_path / "one" / "samples.npz") as b:
        np.testing.assert_allclose(a["x"], b["x"], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_two_processes_are_killed_and_one_goes_on(tmp_path):
    """The metrics of a run by one process to rounding; then the report of two, of which one writes."""
    folder, options = tmp_path / "two", {"iterations": 30, "checkpoint_every": 2}
    both = start_two(*arguments("ising", folder, **options))
    deadline = time.monotonic() + 400
    while len(rows(folder)) < 7 and time.monotonic() < deadline:
        assert all(process.poll() is None for process in both), both[0].communicate()[1][-2000:]
        time.sleep(0.003)
    for process in both:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    before = rows(folder)
    assert 7 <= len(before) < 30, "killed in the middle"

    train.main(arguments("ising", tmp_path / "one", **options))
    wanted = rows(tmp_path / "one")
    assert_same_rows(before[:6], wanted[:6], 1e-5)
    report = train.main(arguments("ising", folder, "--resume", **options))
    assert_same_rows(rows(folder), wanted, 1e-3)

    (folder / "report.json").unlink()
    texts = [
        process.communicate(timeout=500)
        for process in start_two(*arguments("ising", folder, "--resume", **options))
    ]
    assert "wrote" in texts[0][0], texts[0][1][-2000:]
    assert all(line.startswith("[Gloo]") for line in texts[1][0].splitlines()), "one process prints"
    again = json.loads((folder / "report.json").read_text())
    assert again["log_z"]["estimate"] == pytest.approx(report["log_z"]["estimate"], rel=1e-5)
    assert again["config"] == report["config"]
