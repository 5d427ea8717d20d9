"""Sequential Monte Carlo along a trained sampler, twisted by the noised energy that was learned beside it.

    log w  +=  increment(x_t, x_s) + psi(x_s, s) - psi(x_t, t),     psi(., 1) that of the energy

For a sampler whose own weights have a low ESS: particles are resampled on the way, where theirs falls below a half.
Whatever has been learned, `mean(exp(log_weight))` is unbiased for Z. Particles of one run have ancestors in common,
which standard errors of weights do not see, so there are several independent runs, and errors come from their
differences.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from egmjax.ebm import with_energy
from egmjax.simulators import Particles, smc_sampler

from .runs import LoadedRun
from .setups import grid_of

THRESHOLD = 0.5
LEAST_RUNS = 4


class Twisted(NamedTuple):
    """Of all runs together: `x` and `log_weight [n]`, log Z and its standard error, the lowest ESS of a step as a
    fraction (mean over runs), and how often a run was resampled.
    """

    x: Any
    log_weight: np.ndarray
    log_z: float
    log_z_stderr: float
    lowest_ess_fraction: float
    num_resampled: float


def draw_twisted(run: LoadedRun, key: jax.Array, num_particles: int, num: int) -> Twisted:
    """At least `num` particles, in runs of `num_particles`, of which there are at least `LEAST_RUNS`.

    Cost: a step of the process and a value of the learned energy for each particle and time. Raises `ValueError` for
    fewer than two particles, and where no noised energy was learned.
    """
    setup = run.setup
    noised_energy = setup.noised_energy_fn
    if num_particles < 2:
        raise ValueError(f"smc: at least 2 particles, got {num_particles}")
    if noised_energy is None:
        raise ValueError("smc: this run has learned no noised energy (--objective bootstrap does)")
    process, target = setup.process, setup.sampled
    smc = smc_sampler(
        process, grid_of(run.options, process), num_particles=num_particles, threshold=THRESHOLD
    )

    @jax.jit
    def one(params: Any, key: jax.Array) -> Particles:
        psi = with_energy(process.path, functools.partial(noised_energy, params), target.energy)
        return smc.sample(key, setup.predictor(params), psi)

    num_runs = max(LEAST_RUNS, -(-num // num_particles))
    runs = [jax.device_get(one(run.params, k)) for k in jax.random.split(key, num_runs)]
    x, log_weight = jax.tree.map(lambda *a: np.concatenate(a), *[(r.x, r.log_weight) for r in runs])
    x = setup.complete(jax.random.fold_in(key, 1), x)
    weights = np.stack([r.log_weight for r in runs]).astype(np.float64)
    top = weights.max()
    means = np.exp(weights - top).mean(axis=1) if np.isfinite(top) else np.zeros(num_runs)
    mean = means.mean()
    return Twisted(
        x,
        log_weight,
        float(top + math.log(mean)) if mean > 0 else -math.inf,
        float(means.std(ddof=1) / math.sqrt(num_runs) / mean) if mean > 0 else math.inf,
        float(np.mean([r.ess.min() for r in runs])),
        float(np.mean([r.num_resampled for r in runs])),
    )
