"""Tiny runs of the commands, in this process and in another one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("ising", "three-modes", "gmm25", "gb-rbm")
TINY = {
    "iterations": 3,
    "num_rollouts": 64,
    "batch_size": 32,
    "updates_per_iteration": 2,
    "num_samples": 500,
    "num_exact": 100,
    "num_proposals": 16,
    "num_bootstrap_proposals": 8,
    "width": 8,
    "depth": 1,
}
SHORT_FLOW = {"num_steps": 6}


def arguments(target, out, *flags, **options):
    """Command-line arguments of a tiny run; `None` leaves an option at its default."""
    values = {**TINY, **({} if target == "ising" else SHORT_FLOW), **options}
    if target == "ising" and "length" not in values:
        values["length"] = 3
    pairs = [(f"--{k.replace('_', '-')}", str(v)) for k, v in values.items() if v is not None]
    return [target, "--out", str(out), *(word for pair in pairs for word in pair), *flags]


def option_words(out, values):
    """`--out OUT` and `--name value` for each of the values."""
    return ["--out", str(out), *(w for k, v in values.items() for w in (f"--{k.replace('_', '-')}", str(v)))]


def refused(main, words, capsys):
    """The command ends with code 2 and one line `error: NAME: ...`, which is returned."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert lines[0].count(": ") >= 2, "an error names what it is about"
    return lines[0]


def command(module, *words, cwd=ROOT, **kwargs):
    """`python -m benchmarks.MODULE` in its own process."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
        **kwargs,
    )


def snapshot(folder):
    """Content and time of every file, to tell whether anything was touched."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def strict_json(text):
    """Standard JSON: `NaN` and `Infinity` are refused."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)
