"""The suite of processes on one path: table, paired intervals, what each network serves, and the tiniest command."""

import numpy as np
import pytest
from scipy.stats import t as student

from benchmarks import gm, gm_tables, suite
from benchmarks.data_sets import digits, rows_to_learn, set_aside
from tests.benchmarks.commands import refused, strict_json

pytestmark = pytest.mark.slow  # compiles a lot

LEVELS = {"flow, Euler": 2.0, "flow, Heun": 1.5, "jump": 1.0, "residual flow, Heun": 3.0}


def made_up(spread=0.1):
    """Five seeds: an error shared by all methods, and one of their own, fifty times smaller."""
    rng = np.random.default_rng(0)
    shared, own = rng.standard_normal(5), rng.standard_normal((5, 4))
    return [
        {
            "experiment": "digits",
            "method": method,
            "seed": seed,
            "train_cpu_seconds": 20.0,
            "metrics": {
                name: {"value": level + shared[seed] + 0.02 * own[seed, i], "floor": 1.0}
                for name in ("frechet", "kernel_distance", "nearer")
            },
        }
        for seed in range(5)
        for i, (method, level) in enumerate(LEVELS.items())
    ]


def test_intervals_are_paired():
    """A difference is known fifty times better than either value, and its half-width is Student's."""
    rows = made_up()
    a, b = (gm_tables.by_seed(rows, method, "frechet") for method in ("jump", "flow, Euler"))
    mean, half = gm_tables.paired_interval(a, b)
    difference = np.array([a[seed] - b[seed] for seed in range(5)])
    assert mean == pytest.approx(difference.mean())
    assert half == pytest.approx(student.interval(0.95, 4, scale=difference.std(ddof=1) / np.sqrt(5))[1])
    assert abs(mean + 1.0) < 0.05
    assert half < 0.1
    shuffled = {seed: b[(seed + 1) % 5] for seed in b}
    assert gm_tables.paired_interval(a, shuffled)[1] > 5 * half  # the test can tell pairs from strangers


def test_table():
    lines = gm_tables.tabulate(made_up()).splitlines()
    assert [line.split(" | ")[0] for line in lines[4:]] == [
        *(f"| {method}" for method in LEVELS),
        "| floor",
    ]
    assert len({line.count("|") for line in lines[2:]}) == 1
    own = lines[4].split(" | ")
    assert own[5] == own[6] == "-"
    assert own[7].startswith("+0.5")
    assert "[nan" not in "".join(lines)
    one = gm_tables.tabulate([row for row in made_up() if row["seed"] == 0])
    assert "[" not in one
    assert "+-" not in one


@pytest.mark.parametrize("network", gm.NETWORKS)
def test_every_method_takes_as_many_steps(network):
    setup = gm.compose(network, gm.TINY).setup
    methods = gm.processes(setup.process)
    assert all(len(times) == gm.NUM_STEPS + 1 for _, times in methods.values())
    assert {process.prediction_shape() for process, _ in methods.values()} == {
        setup.process.prediction_shape()
    }


def test_validation_rows_are_training_rows():
    """Disjoint parts of them, and redrawn noise keeps every level; a shifted one is seen."""
    whole = digits()
    part = set_aside(whole)
    key = {row.tobytes() for row in whole.train}
    train, test = ({row.tobytes() for row in rows} for rows in (part.train, part.test))
    assert train | test == key
    assert not train & test
    levels = np.floor(17 * (whole.train + 1) / 2)
    rows = rows_to_learn(whole).reshape(-1, *whole.train.shape)
    assert np.all(np.floor(17 * (rows + 1) / 2) == levels)
    assert not np.any(rows[1] == rows[0])
    assert np.any(np.floor(17 * (rows + 1.05) / 2) != levels)


def test_unknown_networks_are_refused(tmp_path, capsys):
    line = refused(suite.main, ["gm", "--methods", "snis", "--out", tmp_path / "x"], capsys)
    assert line.startswith("error: methods: unknown ['snis'], expected some of bins, residual")


@pytest.mark.slow
def test_command(tmp_path, monkeypatch):
    monkeypatch.setattr(gm, "NUM_STEPS", 2)
    words = ["gm", "--tiny", "--seeds", "0", "--out", str(tmp_path / "gm")]
    suite.main(words)
    rows = [strict_json(line) for line in (tmp_path / "gm" / "rows.jsonl").read_text().splitlines()]
    assert len({row["method"] for row in rows}) == len(rows) == 9
    assert all(row["metrics"]["frechet"]["value"] > row["metrics"]["frechet"]["floor"] > 0 for row in rows)
    with np.load(tmp_path / "gm" / "digits-bins-0" / "jump.npz") as samples:
        assert samples["x"].shape == (599, 64)
    assert (tmp_path / "gm" / "digits.png").stat().st_size > 10_000
    monkeypatch.setattr(gm, "run", lambda *args, **kw: pytest.fail("made again"))
    suite.main(words)
