"""The train command: help, exit codes, one-line errors, and folders that are never lost or mixed up."""

import json
import shutil

import pytest

from benchmarks import train
from tests.benchmarks.commands import TARGETS, arguments, command, refused, snapshot


def test_list_and_help(capsys):
    for flag in ("--list", "--help", "-h"):
        with pytest.raises(SystemExit) as stop:
            train.main([flag])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert all(target in out for target in TARGETS)
    with pytest.raises(SystemExit) as stop:
        train.main([])
    assert stop.value.code == 2


LAWS = ("two-modes", "forty-modes", "four-modes", "rings", "digits-skewed")


def test_energies_are_listed(capsys):
    with pytest.raises(SystemExit):
        train.main(["--list"])
    listed = capsys.readouterr().out.split("energies learned from data")[1]
    assert all(name in listed for name in LAWS)
    assert all(method in listed for method in ("dsm", "diffclf", "tsm", "balanced-mle", "pcd", "flow"))


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["two-modes"], ("--num-levels", "further ones go with other methods", "--method M --help")),
        (["rings", "--method", "dsm"], ("--num-levels", "--num-steps", "--resume")),
        (["rings", "--method=pcd"], ("--num-chains", "--step-size")),
        (["rings"], ("--pairing", "--method M --help")),
        (["digits-skewed"], ("--num-annealed", "(default: 64)", "(default: 600)")),
    ],
)
def test_help_of_energies(words, own, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main([*words, "--help"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert all(word in out for word in own)
    assert "--target" not in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["two-mode"], "target: unknown 'two-mode'; did you mean 'two-modes'?"),
        (["two-modes", "--method", "dfclf"], "method: unknown 'dfclf'; did you mean 'diffclf'?"),
        (["rings", "--method"], "method: unknown '--out'"),
        (["moons", "--method", "dsm"], "method: moons has none"),
        (["rings", "--method", "dsm", "--dim", "3"], "dim: rings are in the plane, got 3"),
    ],
)
def test_what_cannot_be_learned(words, line, capsys, tmp_path):
    assert f"error: {line}" in refused(train.main, [*words, "--out", tmp_path / "x"], capsys)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_help_shows_defaults(target, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main([target, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in ("--iterations", "--num-samples", "--out", "--resume", "--overwrite", "20000"):
        assert word in out
    own = {"ising": ("--beta", "0.4"), "three-modes": ("--scale", "5.0"), "gmm25": ("1024", "8.0")}
    assert all(word in out for word in own.get(target, ("--stepper", "heun")))


@pytest.mark.parametrize(
    ("given", "meant"),
    [("isng", "ising"), ("three_modes", "three-modes"), ("gmm52", "gmm25"), ("rbm", "gb-rbm")],
)
def test_an_unknown_target(given, meant, capsys, tmp_path):
    line = refused(train.main, [given, "--out", tmp_path / "x"], capsys)
    assert repr(given) in line
    assert repr(meant) in line
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "words", [["--no-such-option", "3"], ["--iterations", "many"], ["--objective", "other"], ["stray"]]
)
def test_a_wrong_option(words, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        train.main(["ising", "--out", str(tmp_path / "x"), *words])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert words[0].strip("-") in (captured.err + captured.out).replace("_", "-")
    assert not (tmp_path / "x").exists()


def test_out_is_required(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["ising"])
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err


SENSELESS = [
    *[
        ("ising", name, value)
        for name in (
            "iterations",
            "updates_per_iteration",
            "batch_size",
            "num_rollouts",
            "buffer_rollouts",
            "num_proposals",
            "num_bootstrap_proposals",
            "width",
            "depth",
            "num_samples",
            "num_exact",
            "checkpoint_every",
        )
        for value in (0,)
    ],
    ("three-modes", "num_proposals", -1),
    ("three-modes", "num_steps", 0),
    ("three-modes", "scale", 0),
    ("gb-rbm", "scale", "nan"),
    ("gmm25", "scale", "inf"),
    ("ising", "learning_rate", 0),
    ("ising", "learning_rate", "nan"),
    ("ising", "learning_rate", "inf"),
    ("ising", "clip_norm", -1),
    ("ising", "ema_decay", 1.5),
    ("ising", "ema_decay", "nan"),
    ("ising", "temper_start", -0.1),
    ("ising", "temper_fraction", 2),
    ("ising", "length", 2),
    ("ising", "radius", -1),
    ("ising", "beta", "nan"),
    ("ising", "beta", "inf"),
    ("ising", "coupling", "nan"),
    ("ising", "field", "inf"),
    ("ising", "seed", 2**80),
]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ising", "--order", "random"], "average: needs the density of a fixed order"),
        (["spin-glass"], "average: no symmetries of the sites of a SpinGlass are known"),
        (["ising", "--length", "3"], "average: at most the 72 symmetries of the lattice, got 100"),
    ],
)
def test_what_cannot_be_averaged(words, line, capsys, tmp_path):
    assert f"error: {line}" in refused(
        train.main, [*words, "--average", "100", "--out", tmp_path / "x"], capsys
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("target", "name", "value"), SENSELESS)
def test_senseless_values(target, name, value, capsys, tmp_path):
    line = refused(train.main, arguments(target, tmp_path / "x", **{name: value}), capsys)
    assert line.startswith(f"error: {name}: ")
    assert not (tmp_path / "x").exists()


def test_exit_codes_of_the_process(tmp_path):
    """What a shell sees: no traceback, one line on stderr."""
    done = command("train", "ising", "--out", tmp_path / "x", "--num-proposals", "0")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: num_proposals: at least 1, got 0"]
    assert done.stdout == ""


def test_an_existing_folder_is_left_alone(a_run, capsys):
    before = snapshot(a_run)
    line = refused(train.main, arguments("ising", a_run), capsys)
    assert line.startswith("error: out: ")
    assert "--resume" in line
    assert "--overwrite" in line
    line = refused(train.main, arguments("ising", a_run, "--resume", "--overwrite"), capsys)
    assert line.startswith("error: resume: ")
    assert snapshot(a_run) == before


@pytest.mark.slow
def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "run").mkdir()
    train.main(arguments("ising", tmp_path / "run", iterations=1, num_samples=20, num_exact=20))
    assert (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize("flags", [(), ("--overwrite",), ("--resume",)])
def test_a_path_that_cannot_be_written(flags, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("content")
    for out in (file / "run", file):
        line = refused(train.main, arguments("ising", out, *flags), capsys)
        assert str(file) in line
    assert file.read_text() == "content"


def test_overwrite_refuses_what_is_not_a_run(tmp_path, capsys):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    line = refused(train.main, arguments("ising", folder, "--overwrite"), capsys)
    assert line.startswith("error: overwrite: ")
    line = refused(train.main, arguments("ising", folder, "--resume"), capsys)
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert len(list(folder.iterdir())) == 1


def test_overwrite_refuses_a_folder_with_another_programs_config(tmp_path, capsys):
    """`config.json` is a common name; only one of ours marks a run."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "config.json").write_text('{"editor": "dark"}')
    (folder / "thesis.tex").write_text("years of work")
    line = refused(train.main, arguments("ising", folder, "--overwrite"), capsys)
    assert line.startswith("error: overwrite: ")
    assert (folder / "thesis.tex").exists()


def test_a_refused_overwrite_deletes_nothing(a_run, capsys):
    before = snapshot(a_run)
    refused(train.main, arguments("ising", a_run, "--overwrite", beta="nan"), capsys)
    refused(train.main, arguments("ising", a_run, "--overwrite", length=2), capsys)
    assert snapshot(a_run) == before


def test_overwrite_starts_anew(a_run):
    (a_run / "leftover").write_text("old")
    train.main(arguments("ising", a_run, "--overwrite", iterations=1, num_samples=20, num_exact=20))
    assert not (a_run / "leftover").exists()
    assert json.loads((a_run / "config.json").read_text())["iterations"] == 1
    assert [p.name for p in (a_run / "checkpoints").iterdir() if p.is_dir()] == ["1"]
    assert len((a_run / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("changed", [{"width": 16}, {"seed": 1}, {"beta": 0.3}, {"iterations": 4}], ids=str)
def test_resume_with_another_configuration(changed, a_run, capsys):
    before = snapshot(a_run)
    line = refused(train.main, arguments("ising", a_run, "--resume", **changed), capsys)
    assert line.startswith("error: resume: ")
    assert next(iter(changed)) in line, "the option that differs is named"
    assert snapshot(a_run) == before


def test_resume_with_another_target(a_run, capsys):
    before = snapshot(a_run)
    assert refused(train.main, arguments("gb-rbm", a_run, "--resume"), capsys).startswith("error: resume: ")
    assert snapshot(a_run) == before


def test_resume_with_a_damaged_checkpoint(a_run, capsys):
    for file in (a_run / "checkpoints" / "3").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    line = refused(train.main, arguments("ising", a_run, "--resume"), capsys)
    assert line.startswith("error: checkpoint: ")
    assert str(a_run / "checkpoints" / "3") in line


def test_resume_with_a_damaged_configuration(a_run, capsys):
    (a_run / "config.json").write_text("{")
    assert "config.json" in refused(train.main, arguments("ising", a_run, "--resume"), capsys)


def test_resuming_a_finished_run_makes_the_same_report(a_run):
    before = snapshot(a_run)
    report = json.loads((a_run / "report.json").read_text())
    (a_run / "report.json").unlink()
    (a_run / "samples.npz").unlink()
    train.main(arguments("ising", a_run, "--resume"))
    after = snapshot(a_run)
    for name in ("config.json", "metrics.jsonl"):
        assert after[name][0] == before[name][0]
    again = json.loads((a_run / "report.json").read_text())
    times = ("seconds", "cpu_seconds", "redraw")
    assert {k: v for k, v in again.items() if k not in times} == {
        k: v for k, v in report.items() if k not in times
    }
    assert again["seconds"]["train"] == report["seconds"]["train"]


@pytest.mark.slow
def test_resume_of_a_run_killed_before_its_first_checkpoint(a_run):
    with_report = json.loads((a_run / "report.json").read_text())
    shutil.rmtree(a_run / "checkpoints")
    for name in ("report.json", "report.png", "samples.npz"):
        (a_run / name).unlink()
    train.main(arguments("ising", a_run, "--resume"))
    again = json.loads((a_run / "report.json").read_text())
    assert again["log_z"] == with_report["log_z"]
    assert len((a_run / "metrics.jsonl").read_text().splitlines()) == 3
