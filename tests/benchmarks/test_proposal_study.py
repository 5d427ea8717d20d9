"""The study of proposals runs from its command line; on a torus of 16 sites exact answers are at hand."""

import numpy as np
import pytest

from benchmarks.micro import proposals

pytestmark = pytest.mark.slow  # compiles a lot


def test_a_tiny_study(capsys):
    rows = proposals.main(["--tiny", "--seed", "3"])
    names = list(dict.fromkeys(row.name for row in rows))
    assert names[0] == "flat"
    assert len(names) == 9
    assert {row.t for row in rows} == {0.3, 0.7}
    for row in rows:
        assert np.all(np.isfinite(row[2:])), row
        assert 40 <= row.num_energies <= 48
        assert 0 <= row.rmse < 0.5
        assert row.ess <= row.num_energies
    flat = [row for row in rows if row.name == "flat"]
    assert all(row.ratio == 1 for row in flat)
    assert flat[0].ess > 1.5
    out = capsys.readouterr().out
    for word in (*names, "energies of training", "t = 0.7", "psi RMSE"):
        assert word in out
