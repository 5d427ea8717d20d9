"""What it costs a masked sampler to reveal several sites at once: total correlations, in a report of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from egmjax import metrics
from egmjax.estimators import total_correlation
from egmjax.processes import MaskedProcess

from .options import LatticeOptions
from .report import FLOOR_SEED
from .runs import LoadedRun, weigh
from .setups import Setup

BATCH = 100  # states at a time, each with a call of the network for every site


def measure_total_correlation(
    setup: Setup, params: Any, key: jax.Array, states: Any, log_weight: Any, sites_per_step: Sequence[int]
) -> dict[str, Any]:
    """`total` and `per_step` of the network's own, in nats, with standard errors, over `num` weighted `states`.

    Orders are those of `runs.weigh` with this key: on exact states, whose log-weights are 0, `total` is the EUBO less
    that of one site a step, up to rounding.
    """
    process = setup.process
    assert isinstance(process, MaskedProcess)

    @jax.jit
    def measure(params: Any, keys: jax.Array, states: Any) -> jax.Array:
        def of_one(given: tuple[jax.Array, jax.Array]) -> jax.Array:
            predict_fn = setup.predictor(params)
            return total_correlation(
                *given, process=process, predict_fn=predict_fn, sites_per_step=sites_per_step
            )

        return jax.lax.map(of_one, (keys, states), batch_size=BATCH)

    num = len(log_weight)
    values = jax.device_get(measure(params, jax.random.split(key, num), states))
    total, steps = (metrics.weighted_mean(v, log_weight) for v in (values.sum(axis=1), values))
    return {
        "total": total.mean,
        "stderr": total.stderr,
        "per_step": np.asarray(steps.mean).tolist(),
        "per_step_stderr": np.asarray(steps.stderr).tolist(),
        "num": num,
    }


def sample_in_blocks(run: LoadedRun, key: jax.Array, num: int) -> tuple[Any, np.ndarray, dict[str, Any]]:
    """Samples of a lattice, their log-weights, and a report of what several sites a step cost and save.

    Seconds are without compilation. Exact states, where the target has them, and their orders do not depend on the
    number of sites a step.
    """
    setup, params, options = run.setup, run.params, run.options
    assert isinstance(options, LatticeOptions)
    key_draw, key_weigh = jax.random.split(key)
    run.sample(key_draw, 1)  # compiles
    started, cpu_started = time.perf_counter(), time.process_time()
    x, log_weight = run.sample(key_draw, num)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert log_weight is not None
    summary = metrics.summarize_weights(log_weight)
    log_z = {"estimate": summary.log_z, "stderr": summary.log_z_stderr, "elbo": summary.elbo}
    exact = setup.target.sample(jax.random.key(FLOOR_SEED + options.seed), options.num_exact)
    if exact is None:
        forward_ess, states = None, (x[: options.num_exact], log_weight[: options.num_exact])
    else:
        upper = weigh(setup, params, key_weigh, exact)
        forward = metrics.summarize_forward_weights(upper)
        forward_ess, states = forward.ess_fraction, (exact, np.zeros(options.num_exact))
        log_z |= {"eubo": forward.eubo, "eubo_stderr": np.std(upper) / math.sqrt(options.num_exact)}
    report = {
        "sites_per_step": list(options.sites_per_step),
        "num_steps": setup.sampler.num_steps,
        "num_samples": num,
        "ess_fraction": summary.ess_fraction,
        "forward_ess_fraction": forward_ess,
        "log_z": log_z | {"exact": setup.target.log_z},
        "total_correlation": measure_total_correlation(
            setup, params, key_weigh, *states, options.sites_per_step
        ),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }
    return x, log_weight, report
