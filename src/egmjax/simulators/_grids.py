"""Grids of times from exactly 0 to exactly 1, as one function of the number of steps and a spacing.

    uniform   t_k = k / n
    log       -log(1 - t_k) uniform up to log(1 / last), then 1:  the hazard 1 / (1 - t) of a jump is shared evenly
    edm       sigma_k^(1 / rho) uniform from sigma_max to sigma_min, then 0;  t = time_of(sigma)
    scale     uniform up to where the reference's belief about x_1 has a given scale: the last step of jumps on R^d

A spacing maps `num_steps` to the first `num_steps` times; the last one is 1. No spacing is best for everything: with
exact finite-step kernels the uniform one often wins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from ..paths import GaussianPath

Spacing = Callable[[int], np.ndarray]


def uniform_spacing(num_steps: int) -> np.ndarray:
    """`k / num_steps`."""
    return np.linspace(0.0, 1.0, num_steps + 1)[:-1]


def time_grid(num_steps: int, spacing: Spacing = uniform_spacing) -> np.ndarray:
    """`num_steps + 1` increasing times from exactly 0 to exactly 1, float64.

    `spacing` is `uniform_spacing`, `log_spacing()`, `edm_spacing()`, or any function from `num_steps` to the first
    `num_steps` times; what it says of the first one is replaced by 0. Raises `ValueError` below one step and for times
    that do not increase inside `[0, 1)`.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: at least 1, got {num_steps}")
    times = np.append(np.asarray(spacing(num_steps), dtype=np.float64), 1.0)
    times[0] = 0.0
    if times.shape != (num_steps + 1,) or np.any(np.diff(times) <= 0):
        raise ValueError(f"spacing: expected {num_steps} increasing times in [0, 1), got {times[:-1]}")
    return times


def log_spacing(last: float = 1e-3) -> Spacing:
    """Uniform in `-log(1 - t)` until `t = 1 - last`, from which the last step goes to 1.

    Raises `ValueError` unless `0 < last < 1`.
    """
    if not 0 < last < 1:
        raise ValueError(f"last: expected the length of the last step, between 0 and 1, got {last}")
    return lambda num_steps: -np.expm1(np.linspace(0.0, np.log(last), num_steps))


def edm_spacing(
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    *,
    time_of: Callable[[np.ndarray], np.ndarray] = lambda sigma: 1.0 / (1.0 + sigma),
) -> Spacing:
    """Noise levels `sigma^(1/rho)` equally spaced from `sigma_max` to `sigma_min` (Karras et al., 2022).

    `time_of(sigma)` is the time at which noise over signal is `sigma`, that of `paths.CondOT` unless given; for
    `paths.Trigonometric` it is `1 - 2 arctan(sigma) / pi`. Raises `ValueError` unless `rho > 0` and
    `0 < sigma_min < sigma_max`.
    """
    if not rho > 0:
        raise ValueError(f"rho: must be positive, got {rho}")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_min: expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")

    def spacing(num_steps: int) -> np.ndarray:
        ends = sigma_max ** (1.0 / rho), sigma_min ** (1.0 / rho)
        return np.asarray(time_of(np.linspace(*ends, num_steps) ** rho), dtype=np.float64)

    return spacing


def scale_spacing(path: GaussianPath, last_scale: float) -> Spacing:
    """Equal steps up to where the reference's belief about `x_1` has scale `last_scale`; there the last one starts.

    `last_scale` is in units of the reference's own scale: about the width of a bin for jumps on R^d. Raises
    `ValueError` for a scale outside `(0, 1)`.
    """
    if not 0 < last_scale < 1:
        raise ValueError(f"last_scale: a number in (0, 1), got {last_scale}")
    last = brentq(lambda t: float(np.max(path.angle(t).cos)) - last_scale, 0.0, 1.0)
    return lambda num_steps: np.linspace(0.0, last, num_steps)
