"""Sequential Monte Carlo along a process, with a twist for every time: particles that know what is to come.

    log w  +=  increment(x_t, x_s) + psi(x_s, s) - psi(x_t, t)

Intermediate targets are `exp(psi(x, t) + log_reference(x, t))`, the last one is the target. Increments are
relative to the reference, so `psi` is all that is added; with the exact `psi` and a step of the reversed
noising the two cancel but for the error of the step. Without resampling the intermediate `psi` cancel
altogether: that is diffusion annealed importance sampling, whose weights do not depend on them. With
resampling they decide who survives: right ones are worth it, and ones with wrong weights for separate modes
lose a mode while the ESS looks fine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..mcmc import RefreshFn
from ..metrics import resample
from ..paths._base import Scalar
from ..processes import PredictFn

TwistFn = Callable[[Any, Scalar], jax.Array]  # (x, t) -> psi(x, t)


class Particles(NamedTuple):
    """`x` stacked, `log_weight [n]`, and over the steps `ess [num_steps]` as a fraction, before any
    resampling.

    `mean(exp(log_weight))` is unbiased for `Z`, also after resampling, which leaves every weight at their
    mean: `metrics.summarize_weights` applies, but its standard error knows nothing of common ancestors.
    `num_resampled` counts.
    """

    x: Any
    log_weight: jax.Array
    ess: jax.Array
    num_resampled: jax.Array


class Stepper(Protocol):
    """What of a process is used: its path, and steps with increments. A `Process` is one."""

    @property
    def path(self) -> Any: ...

    def step(
        self, key: jax.Array, xt: Any, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> tuple[Any, jax.Array]: ...


class SMC(NamedTuple):
    """`sample(key, predict_fn, psi_fn) -> Particles`, pure; `num_steps` steps of `num_particles`
    particles."""

    sample: Callable[[jax.Array, PredictFn, TwistFn], Particles]
    num_steps: int
    num_particles: int


def smc_sampler(
    process: Stepper,
    times: Any,
    *,
    num_particles: int,
    threshold: float = 0.5,
    move_fn: RefreshFn | None = None,
    keep_last: int = 0,
) -> SMC:
    """Moves particles along `times [num_steps + 1]`, from exactly 0 to the time whose density is wanted.

    At its end `E[mean(exp(log_weight) f(x))] = int exp(psi(x, T) + log_reference(x, T)) f(x) dx`, `T` the
    last time, 1 for an energy: there `psi_fn` must be that of the energy (`estimators.psi_from_energy`,
    `ebm.with_energy`).

    Systematic resampling where the ESS falls below `threshold` times `num_particles`; 0 never resamples. In
    the last `keep_last` steps nothing is resampled. `move_fn(key, x, log_density_fn)`, e.g.
    `mcmc.refreshing_moves`, moves every particle after each step by a kernel that leaves the intermediate
    target alone. Cost: `num_steps num_particles` steps of the process and values of `psi_fn`. Particles whose
    weight is not finite are given weight zero.

    Raises `ValueError` unless times increase from exactly 0 to at most 1, for `num_particles < 1`, a
    `threshold` outside `[0, 1]`, and a negative `keep_last`.
    """
    grid = np.asarray(times, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 2 or grid[0] != 0 or grid[-1] > 1 or np.any(np.diff(grid) <= 0):
        raise ValueError("times: expected increasing times from exactly 0 to at most 1")
    if num_particles < 1:
        raise ValueError(f"num_particles: at least 1, got {num_particles}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: a fraction in [0, 1], got {threshold}")
    if keep_last < 0:
        raise ValueError(f"keep_last: at least 0, got {keep_last}")
    path, num_steps = process.path, len(grid) - 1

    def sample(key: jax.Array, predict_fn: PredictFn, psi_fn: TwistFn) -> Particles:
        key_prior, key_steps = jax.random.split(key)
        clock = jnp.asarray(grid, dtype=float)

        def twist(x: Any, t: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                return jax.vmap(lambda y: psi_fn(y, t))(x)

        def start(key_n: jax.Array) -> tuple[Any, jax.Array]:
            x = path.sample_prior(key_n)
            return x, path.log_reference(x, 0.0) - path.prior_log_prob(x)

        def advance(carry: tuple, inputs: tuple) -> tuple:
            x, psi, log_w, count = carry
            key_n, now, later, may_resample = inputs
            key_step, key_resample, key_move = jax.random.split(key_n, 3)
            keys = jax.random.split(key_step, num_particles)
            x, increment = jax.vmap(lambda k, y: process.step(k, y, predict_fn, now, later))(keys, x)
            new = twist(x, later)
            log_w = log_w + increment + new - psi
            log_w = jnp.where(jnp.isfinite(log_w), log_w, -jnp.inf)
            total = jax.nn.logsumexp(log_w)
            alive = jnp.isfinite(total)
            squares = jax.nn.logsumexp(2.0 * log_w)
            ess = jnp.where(alive, jnp.exp(2.0 * jnp.where(alive, total, 0.0) - squares), 0.0) / num_particles
            collapse = may_resample & alive & (ess < threshold)
            index = resample(key_resample, log_w, num_particles)
            index = jnp.where(collapse, index, jnp.arange(num_particles))
            x, new = jax.tree.map(lambda a: a[index], (x, new))
            log_w = jnp.where(collapse, total - jnp.log(num_particles), log_w)
            if move_fn is not None:
                density = lambda y: psi_fn(y, later) + path.log_reference(y, later)  # noqa: E731
                keys = jax.random.split(key_move, num_particles)
                x = jax.vmap(lambda k, y: move_fn(k, y, density))(keys, x)
                new = twist(x, later)
            return (x, new, log_w, count + collapse), ess

        x, log_w = jax.vmap(start)(jax.random.split(key_prior, num_particles))
        psi = twist(x, clock[0])
        may_resample = jnp.arange(num_steps) < num_steps - keep_last
        keys = jax.random.split(key_steps, num_steps)
        ess: jax.Array
        (x, _, log_w, count), ess = jax.lax.scan(
            advance,
            (x, psi, log_w + psi, jnp.int32(0)),
            (keys, clock[:-1], clock[1:], may_resample),
        )
        return Particles(x, log_w, ess, count)

    return SMC(sample, num_steps, num_particles)
