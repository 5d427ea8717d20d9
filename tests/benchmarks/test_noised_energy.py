"""The study of learned noised energies runs, and compares at an equal number of energies."""

import numpy as np
import pytest

from benchmarks.micro import noised_energy

pytestmark = pytest.mark.slow  # trains twice


def test_both_ways_learn_something(capsys):
    rows = noised_energy.main(["--tiny"])
    assert [row.noised_energy for row in rows] == ["regression", "contrast"]
    regression, contrast = rows
    assert contrast.iterations > regression.iterations
    assert 0.9 * regression.num_energies < contrast.num_energies <= regression.num_energies
    for row in rows:
        assert 0 < row.ess_fraction <= 1
        assert np.isfinite([row.bias, row.spread]).all()
        assert row.step == 0.2
    assert len(capsys.readouterr().out.splitlines()) == 4
