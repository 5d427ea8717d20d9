"""Sequential Monte Carlo from a Gaussian to a target, by blackjax: a rival that knows log Z.

    p_b(x) ~ N(x; 0, scale^2 I)^(1 - b) exp(-b E(x)),     b from 0 to 1 in steps that keep half of the ESS

Particles are resampled and moved by Langevin steps at each temperature (Del Moral et al., 2006). Particles of one run
have ancestors in common, so errors come from the differences of independent runs.
"""

from __future__ import annotations

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from egmjax.states import Real
from egmjax.targets import Target

NUM_PARTICLES = 1_000
NUM_MOVES = 10  # Langevin steps at each temperature
TARGET_ESS = 0.5
LEAST_RUNS = 10


def run_smc(
    target: Target, key: jax.Array, seconds: float, *, scale: float, step_size: float, max_cpu_seconds: float
) -> dict[str, Any]:
    """As many runs as go into `seconds` of wall-clock time or `max_cpu_seconds`, `LEAST_RUNS` at least.

    `log_z` has `estimate` (the log of the mean over runs, each unbiased for Z), `stderr`, `exact`, `score`. Of the
    energy and each observable `mean`, `stderr`, and as effective samples how many independent ones would be as close,

        ESS = runs * Var f / Var(mean of f over a run),

    with rates as those of `rivals.run_rival`. Langevin steps are `step_size` long at every temperature. Raises
    `ValueError` for a target that is not of reals.
    """
    if not isinstance(target.space, Real):
        raise ValueError(f"target: expected reals, got {target.space}")
    functions = {"energy": target.energy, **target.observables}
    started = time.perf_counter()
    run = jax.jit(lambda key: _one_run(target, key, functions, scale, step_size)).lower(key).compile()
    compile_seconds = time.perf_counter() - started
    started, cpu_started, cpu = time.perf_counter(), time.process_time(), 0.0
    left = seconds - compile_seconds
    found: list[Any] = []
    while len(found) < LEAST_RUNS or (time.perf_counter() - started < left and cpu < max_cpu_seconds):
        found.append(jax.device_get(run(jax.random.fold_in(key, len(found)))))
        cpu = time.process_time() - cpu_started
    spent = time.perf_counter() - started

    num, share = len(found), max(left, 0.0) / seconds
    log_z, num_temperatures, _ = (np.asarray(part) for part in zip(*found))
    observables: dict[str, dict[str, float | None]] = {}
    for name in functions:
        means, squares = (np.asarray([moments[name][i] for *_, moments in found], np.float64) for i in (0, 1))
        variance = squares.mean() - means.mean() ** 2
        between = means.var(ddof=1)
        ess = num * variance / between if between > 0 else 0.0
        observables[name] = {
            "mean": float(means.mean()),
            "stderr": float(math.sqrt(between / num)),
            "ess": float(ess),
            "tau_int": float(num * NUM_PARTICLES / (2 * ess)) if ess > 0 else math.inf,
            "r_hat": None,
            "ess_per_second": float(share * ess / spent),
            "ess_per_cpu_second": float(share * ess / cpu),
        }
    energy = observables["energy"]
    if target.mean_energy is not None and energy["stderr"]:
        energy["score"] = (energy["mean"] - target.mean_energy) / energy["stderr"]  # type: ignore[operator]
    top = log_z.max()
    z = np.exp(np.asarray(log_z - top, np.float64))
    estimate, stderr = float(top + np.log(z.mean())), float(z.std(ddof=1) / z.mean() / math.sqrt(num))
    return {
        "observables": observables,
        "log_z": {
            "estimate": estimate,
            "stderr": stderr,
            "exact": target.log_z,
            "score": None if target.log_z is None or stderr == 0 else (estimate - target.log_z) / stderr,
        },
        "num_runs": num,
        "num_particles": NUM_PARTICLES,
        "num_temperatures": float(num_temperatures.mean()),
        "compile_seconds": compile_seconds,
        "equal_seconds": seconds,
        "wall_seconds": spent,
        "cpu_seconds": cpu,
    }


def _one_run(target: Target, key: jax.Array, functions: Any, scale: float, step_size: float) -> Any:
    """`(log Z, number of temperatures, {name: (mean, mean of squares)})`."""
    from blackjax import adaptive_tempered_smc
    from blackjax.mcmc import mala
    from blackjax.smc import extend_params, resampling

    assert isinstance(target.space, Real)
    shape = target.space.shape
    dim = math.prod(shape)

    def log_prior(x: jax.Array) -> jax.Array:
        return -0.5 * jnp.sum((x / scale) ** 2) - dim * (math.log(scale) + 0.5 * math.log(2.0 * math.pi))

    smc = adaptive_tempered_smc(
        log_prior,
        lambda x: -target.energy(x) - log_prior(x),
        mala.build_kernel(),
        mala.init,
        extend_params({"step_size": jnp.asarray(step_size)}),
        resampling.systematic,
        TARGET_ESS,
        num_mcmc_steps=NUM_MOVES,
    )
    key_start, key = jax.random.split(key)
    start = smc.init(scale * jax.random.normal(key_start, (NUM_PARTICLES, *shape)))
    start = start._replace(tempering_param=jnp.asarray(start.tempering_param, dtype=float))

    def advance(carry: Any) -> Any:
        state, log_z, count = carry
        state, info = smc.step(jax.random.fold_in(key, count), state)
        return state, log_z + info.log_likelihood_increment, count + 1

    def unfinished(carry: Any) -> jax.Array:
        return carry[0].tempering_param < 1.0

    state, log_z, count = jax.lax.while_loop(unfinished, advance, (start, jnp.zeros(()), jnp.int32(0)))

    def moments(fn: Any) -> tuple[jax.Array, jax.Array]:
        values = jax.vmap(fn)(state.particles)
        return jnp.sum(state.weights * values), jnp.sum(state.weights * values**2)

    return log_z, count, {name: moments(fn) for name, fn in functions.items()}
