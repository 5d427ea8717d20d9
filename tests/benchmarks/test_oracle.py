"""The oracle benchmark: rules that are exact and that are not. W1 of 20,000 exact samples: .005 to .02."""

import jax
import numpy as np
import pytest

from benchmarks.micro.oracle import RULES, TARGET, compile_rule, coupled_step, distance, main

pytestmark = pytest.mark.slow  # compiles a lot


def test_the_coupling_is_exact_at_every_number_of_steps_and_euler_is_not():
    coupled, euler = (compile_rule(RULES[name], 20_000) for name in ("jump, maximal coupling", "flow, Euler"))
    for steps, published in [(2, 0.512), (5, 0.225), (10, 0.109)]:
        assert coupled(steps, 0) < 0.03
        assert abs(euler(steps, 0) - published) < 0.03


def test_distance_is_that_of_a_shift():
    x = TARGET.sample(jax.random.key(0), 20_000)[:, 0]
    assert distance(x) < 0.03
    np.testing.assert_allclose(distance(x + 1.0), 1.0, atol=0.03)


def test_a_fault_is_detected():
    def late(key, x, t, s):
        return coupled_step(is_exact=True)(key, x, 0.9 * t, s)

    assert compile_rule(late, 20_000)(5, 0) > 0.03


def test_command(capsys, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["oracle", "--num-samples", "500", "--steps", "2", "3", "--only", "flow, Heun"]
    )
    main()
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 4
    assert 0.1 < float(lines[2].split()[2]) < 0.5
