"""More certified samples from a finished run: the command and the function."""

import jax
import numpy as np
import pytest

from benchmarks import load, sample
from benchmarks.twisted_smc import draw_twisted
from egmjax.metrics import summarize_weights
from tests.benchmarks.commands import arguments, command, refused, snapshot, strict_json


def test_load(finished):
    run = load(finished("gb-rbm"))
    assert run.name == "gb-rbm"
    assert run.options.width == 8
    (v, h), log_weight = run.sample(jax.random.key(3), 1500)  # more than a chunk, and not a multiple
    assert v.shape == (1500, 2)
    assert h.shape == (1500, 3)
    assert log_weight.shape == (1500,)
    assert np.all(np.isfinite(v))
    assert set(np.unique(h)) <= {0, 1}
    assert len(np.unique(v[:, 0])) > 1490, "chunks differ"
    (again, _), log_weight_again = run.sample(jax.random.key(3), 1200)
    np.testing.assert_array_equal(again, v[:1200])
    np.testing.assert_array_equal(log_weight_again, log_weight[:1200])
    (other, _), _ = run.sample(jax.random.key(4), 1200)
    assert not np.array_equal(other, again)


def test_load_takes_a_string_and_gives_the_averaged_parameters(finished):
    folder = finished("ising")
    run = load(str(folder))
    assert run.setup.init(0).ema_params.keys() == run.params.keys()
    x, log_weight = run.sample(jax.random.key(0), 10)
    psi = jax.vmap(lambda s: run.setup.psi_fn(s, 1.0))(x)
    assert np.all(np.isfinite(log_weight - psi))
    moved = [
        np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (run.setup.init(0).ema_params, run.params)))
    ]
    assert any(moved)


@pytest.mark.parametrize("num", [0, -1])
def test_load_refuses_no_samples(num, finished):
    with pytest.raises(ValueError, match="num_samples"):
        load(finished("ising")).sample(jax.random.key(0), num)


def test_load_of_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        load(tmp_path / "nothing")


def test_load_of_a_run_without_a_checkpoint(a_run):
    import shutil

    shutil.rmtree(a_run / "checkpoints")
    with pytest.raises(ValueError, match="checkpoint: none"):
        load(a_run)


def test_the_command_writes_samples(a_run, capsys):
    sample.main([str(a_run), "--num", "1100"])
    out = capsys.readouterr().out
    file = a_run / "samples-1.npz"
    for word in ("1100 samples", str(file), "log Z", "ESS", "Pareto k"):
        assert word in out
    with np.load(file) as data:
        assert set(data) == {"x", "log_weight"}
        assert data["x"].shape == (1100, 9)
        assert data["log_weight"].shape == (1100,)
        first = data["x"].copy()

    before = snapshot(a_run)
    line = refused(sample.main, [a_run, "--num", "1100"], capsys)
    assert line.startswith("error: out: ")
    assert "--overwrite" in line
    assert snapshot(a_run) == before

    sample.main([str(a_run), "--num", "1100", "--overwrite"])  # the same seed, the same samples
    with np.load(file) as data:
        np.testing.assert_array_equal(data["x"], first)
    sample.main([str(a_run), "--num", "1100", "--seed", "2"])
    with np.load(a_run / "samples-2.npz") as data:
        assert not np.array_equal(data["x"], first)


def test_samples_of_a_product(finished, tmp_path):
    sample.main([str(finished("gb-rbm")), "--num", "40", "--out", str(tmp_path / "more.npz")])
    with np.load(tmp_path / "more.npz") as data:
        assert {k: data[k].shape for k in data} == {"x0": (40, 2), "x1": (40, 3), "log_weight": (40,)}


def test_a_file_name_without_a_suffix_is_protected_too(finished, tmp_path, capsys):
    run, file = finished("ising"), tmp_path / "more"
    words = [str(run), "--num", "40", "--out", str(file)]
    sample.main(words)
    [written] = tmp_path.iterdir()
    assert str(written) in capsys.readouterr().out
    before = snapshot(tmp_path)
    assert refused(sample.main, words, capsys).startswith("error: out: ")
    assert snapshot(tmp_path) == before


def test_refusals(a_run, tmp_path, capsys):
    before = snapshot(a_run)
    for num in ("0", "-3"):
        assert refused(sample.main, [a_run, "--num", num], capsys).startswith("error: num: ")
    assert "no config.json" in refused(sample.main, [tmp_path / "nothing"], capsys)
    (tmp_path / "file").write_text("")
    refused(sample.main, [tmp_path / "file"], capsys)
    line = refused(sample.main, [a_run, "--num", "5", "--out", tmp_path / "file" / "x.npz"], capsys)
    assert line.startswith("error: out: ")
    refused(sample.main, [a_run, "--num", "5", "--seed", 2**80], capsys)
    assert snapshot(a_run) == before


def test_a_damaged_run(a_run, capsys):
    for file in (a_run / "checkpoints" / "3").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert refused(sample.main, [a_run], capsys).startswith("error: checkpoint: ")
    (a_run / "config.json").write_text("[]")
    assert "config.json" in refused(sample.main, [a_run], capsys)


def test_help_and_exit_codes_of_the_process(tmp_path):
    done = command("sample", "--help")
    assert done.returncode == 0
    assert "20000" in done.stdout
    done = command("sample", tmp_path / "nothing")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: run: ")


def test_averaged_over_symmetries(a_run, finished, capsys):
    """A higher ESS and the same Z; the run's own number is one."""
    log_weights = [load(a_run, average=num).sample(jax.random.key(3), 4000)[1] for num in (None, 1, 8)]
    np.testing.assert_array_equal(log_weights[0], log_weights[1])
    plain, averaged = (summarize_weights(w) for w in log_weights[1:])
    assert averaged.ess_fraction > plain.ess_fraction + 0.01
    log_z = load(a_run).setup.target.log_z
    assert abs(averaged.log_z - log_z) < 4 * averaged.log_z_stderr
    sample.main([str(a_run), "--num", "500", "--average", "8"])
    assert "500 samples" in capsys.readouterr().out
    for words, line in (
        ([a_run, "--average", "73"], "average: at most the 72"),
        ([a_run, "--average", "0"], "average: at least 1"),
        ([a_run, "--average", "2", "--smc", "10"], "average: particles"),
        ([finished("gb-rbm"), "--average", "2"], "average: an option of lattices"),
    ):
        words = [*words, "--out", a_run / "other.npz"]
        assert refused(sample.main, words, capsys).startswith(f"error: {line}")


@pytest.mark.parametrize("kind", ["metropolis", "i-sir"])
def test_chains_of_a_run_are_exact(kind, a_run, capsys):
    """A sampler after three iterations is far off, its chains are not; their report is beside them."""
    words = ["--chains", kind, "--num-chains", "64", "--num-steps", "300", "--burn-in", "40"]
    words += ["--candidates", "4", "--local-moves", "1" if kind == "metropolis" else "0"]
    sample.main([str(a_run), *words])
    assert "R-hat" in capsys.readouterr().out
    run = load(a_run)
    target = run.setup.target
    with np.load(a_run / "samples-1.npz") as data:
        assert data["x"].shape == (64, 300, 9)
        energies = np.asarray(jax.vmap(target.energy)(data["x"].reshape(-1, 9)), np.float64)
    report = strict_json((a_run / "samples-1.chains.json").read_text())
    energy = report["observables"]["energy"]
    assert energy["mean"] == pytest.approx(energies.mean(), rel=1e-4)
    assert abs(energy["mean"] - target.mean_energy) < 4 * energy["stderr"]
    assert energy["stderr"] < 0.1 * target.energy_std
    assert 0 < report["lowest_acceptance"] <= report["acceptance"] < 1
    x, _ = run.sample(jax.random.key(9), 2000)
    raw = np.asarray(jax.vmap(target.energy)(x)).mean()
    assert abs(raw - target.mean_energy) > 20 * energy["stderr"], "the test can tell"


def test_chains_are_refused(a_run, capsys):
    for flag, value in (("--num-chains", 1), ("--num-steps", 3), ("--candidates", 1), ("--local-step", 0)):
        line = refused(sample.main, [a_run, "--chains", "i-sir", flag, value], capsys)
        assert line.startswith(f"error: {flag[2:].replace('-', '_')}: ")


@pytest.mark.slow
def test_particles_of_a_run_estimate_log_z(tmp_path, finished, capsys):
    """Unbiased whatever was learned; without a learned noised energy there is nothing to twist by."""
    from benchmarks import train

    folder = tmp_path / "run"
    words = arguments("ising", folder, objective="bootstrap", num_steps=12)
    train.main(words)
    run = load(folder)
    found = draw_twisted(run, jax.random.key(0), 500, 20_000)
    assert found.log_weight.shape == (20_000,)
    assert abs(found.log_z - run.setup.target.log_z) < 4 * found.log_z_stderr + found.log_z_stderr**2
    assert found.log_z_stderr < 0.1
    assert found.num_resampled >= 1
    capsys.readouterr()
    sample.main([str(folder), "--smc", "100", "--num", "150", "--out", str(tmp_path / "x.npz")])
    assert "400 particles" in capsys.readouterr().out
    assert refused(sample.main, [finished("ising"), "--smc", 100], capsys).startswith("error: smc: ")
    line = refused(sample.main, [folder, "--smc", 100, "--chains", "i-sir"], capsys)
    assert line.startswith("error: smc: ")
