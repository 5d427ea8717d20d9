"""The measurement of coverage itself: right weights pass, wrong ones fail, the table covers every process.

With 40 runs a coverage of .95 falls below .8 with probability 6e-4; the mean of 40 z-scores has standard error .16.
"""

import jax
import numpy as np
import pytest

from benchmarks.micro.coverage import CASES, Case, main, measure

pytestmark = pytest.mark.slow  # compiles a lot

REPEATS, NUM = 40, 500


@pytest.mark.parametrize(
    "name",
    ["flow, euler", "diffusion, noise .3", "masked, first hitting, fixed order", "mixture, other prior"],
)
def test_right_weights_cover(name):
    found = measure(CASES[name](), jax.random.key(1), REPEATS, NUM)
    assert found.fraction >= 0.8
    assert found.low <= found.fraction <= found.high
    assert abs(found.mean_score) < 0.8  # four standard errors, and the bias of a logarithm
    assert 0.6 < found.score_std < 1.6
    assert found.num_nonfinite == 0
    assert found.ess_fraction < 0.9, "the network is to be wrong"


def spoiled(case: Case, change) -> Case:
    """`case` with its log-weights changed."""

    def sample(key, predict_fn):
        rollout = case.sampler.sample(key, predict_fn)
        return rollout._replace(log_weight=change(rollout.log_weight))

    return case._replace(sampler=case.sampler._replace(sample=sample))


@pytest.mark.parametrize(
    "change", [lambda w: w + np.log(1.3), lambda w: 0.8 * w], ids=["constant", "increments"]
)
def test_wrong_weights_do_not(change):
    case = spoiled(CASES["masked, grid, random order"](), change)
    found = measure(case, jax.random.key(1), REPEATS, NUM)
    assert found.fraction < 0.5
    assert found.high < 0.9


def test_weights_that_are_not_finite_are_counted():
    case = spoiled(CASES["masked, grid, random order"](), lambda w: w * np.nan)
    found = measure(case, jax.random.key(1), 4, 20)
    assert found.num_nonfinite == 80
    assert found.fraction == 0


def test_every_kind_of_process_is_measured():
    for kind in ("flow", "diffusion", "superposition", "masked", "mixture", "product"):
        assert any(name.startswith(kind) for name in CASES)


def test_command(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["coverage", "--tiny", "--only", "flow, euler"])
    main()
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "20 runs of 200 roll-outs"
    assert len(lines) == 3
    assert 0.5 < float(lines[2].split()[2]) <= 1
