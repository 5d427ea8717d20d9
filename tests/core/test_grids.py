"""Grids of times: closed forms of the three spacings, exact ends, refusals."""

import numpy as np
import pytest

from egmjax.simulators import edm_spacing, log_spacing, time_grid, uniform_spacing

SPACINGS = {"uniform": uniform_spacing, "log": log_spacing(1e-3), "edm": edm_spacing()}


@pytest.mark.parametrize("name", SPACINGS)
def test_grids_go_from_zero_to_one(name):
    for num in (1, 2, 7, 50):
        times = time_grid(num, SPACINGS[name])
        assert times.shape == (num + 1,)
        assert times.dtype == np.float64
        assert times[0] == 0
        assert times[-1] == 1
        assert np.all(np.diff(times) > 0)


def test_closed_forms():
    np.testing.assert_allclose(time_grid(4), [0, 0.25, 0.5, 0.75, 1], atol=1e-15)
    log = time_grid(4, log_spacing(1e-3))  # three equal factors of 1 - t
    np.testing.assert_allclose(1 - log, [1, 0.1, 0.01, 0.001, 0], atol=1e-12)
    edm = time_grid(18, edm_spacing())
    np.testing.assert_allclose(edm[-2], 1 / 1.002, rtol=1e-12)
    sigma = (80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(edm[5], 1 - sigma / (1 + sigma), rtol=1e-12)
    turned = time_grid(3, edm_spacing(1.0, 1.0, 3.0, time_of=lambda s: 1 - 2 * np.arctan(s) / np.pi))
    np.testing.assert_allclose(turned[2], 0.5, rtol=1e-12)


def test_refusals():
    for arguments, match in (
        ((0,), "num_steps"),
        ((3, lambda n: np.linspace(0, 1, n)), "spacing"),
        ((3, lambda n: np.linspace(0, 0.9, n + 1)), "spacing"),
    ):
        with pytest.raises(ValueError, match=match):
            time_grid(*arguments)
    for last in (0.0, 1.0):
        with pytest.raises(ValueError, match="last"):
            log_spacing(last)
    with pytest.raises(ValueError, match="rho"):
        edm_spacing(0.0)
    with pytest.raises(ValueError, match="sigma_min"):
        edm_spacing(7.0, 3.0, 2.0)
