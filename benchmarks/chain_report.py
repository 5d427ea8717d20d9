"""What chains tell of the mean of an observable, and of whether they have mixed."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike


def summarize_series(values: ArrayLike) -> dict[str, float]:
    """Of `values [chains, steps]`: `mean`, `stderr`, `ess`, `tau_int`, `r_hat`.

        ESS = n / (2 tau_int),  n = chains * steps,  tau_int = 1/2 + sum of autocorrelations,  stderr = std / sqrt(ESS)

    By Geyer's initial monotone sequence over all chains (blackjax), where chains that disagree count against the
    ESS; it is 0 and `tau_int` infinite where no chain moves. `r_hat` is Gelman and Rubin's for the halves of the
    chains, 1 where they agree. Raises `ValueError` for fewer than two chains of four steps.
    """
    from blackjax.diagnostics import effective_sample_size, potential_scale_reduction

    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 4:
        raise ValueError(f"values: expected at least two chains of four steps, got {list(values.shape)}")
    num_chains, num_steps = values.shape
    mean, std = values.mean(), values.std()
    scaled = jnp.asarray((values - mean) / (std if std > 0 else 1.0))  # float32 has no digits to lose
    ess = float(effective_sample_size(scaled))
    half = num_steps // 2
    halves = scaled[:, : 2 * half].reshape(2 * num_chains, half)
    return {
        "mean": float(mean),
        "stderr": float(std / math.sqrt(ess)) if ess > 0 else math.inf,
        "ess": ess,
        "tau_int": values.size / (2 * ess) if ess > 0 else math.inf,
        "r_hat": float(potential_scale_reduction(halves)),
    }
