"""Jump processes simulated from their rates alone: tau-leaping, and exact thinning.

    leap       a site jumps within [t, s] with probability 1 - exp(-(s - t) lambda_i(x_t, t)), to y ~ Q[i, y] / lambda_i
    thinning   events of a Poisson clock of rate B >= sum_i lambda_i are accepted with probability sum_i lambda_i / B

Any generator of jumps may be followed, combinations of several included (`generators.predictor_corrector`,
`metropolis`, `gibbs`, `superpose`). There are no weights: for certified samples see `grid_sampler`. The last step,
where rates are infinite, draws `x_1` from the posterior of the process, all sites at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ..generators import Jump
from ..paths._base import Scalar
from ..processes import JumpProcess, MaskedProcess, PredictFn
from ._samplers import check_grid

RatesFn = Callable[[PredictFn, jax.Array, Scalar], Jump]
BoundFn = Callable[[Scalar, Scalar], jax.Array]  # (t, s) -> upper bound of the total rate in [t, s]
BOUND_TIMES = 9


class RateRollout(NamedTuple):
    """The end state, and for each step of the grid: network calls, jumps made, and broken bounds.

    `num_exceeded` counts events at which the total rate was above the bound of thinning; any such event means
    that the chain is not exact. `num_calls` counts evaluations of the rates.
    """

    x: jax.Array
    num_calls: jax.Array
    num_jumps: jax.Array
    num_exceeded: jax.Array
    observed: Any = None


class RateSampler(NamedTuple):
    """`sample(key, predict_fn, x0=None) -> RateRollout`; `num_steps` counts those of the grid."""

    sample: Callable[..., RateRollout]
    num_steps: int


def rate_sampler(
    process: JumpProcess,
    times: Any,
    *,
    method: Literal["leap", "thinning"] = "leap",
    rates_fn: RatesFn | None = None,
    bound_fn: BoundFn | None = None,
    observer: Callable[[jax.Array, jax.Array], Any] | None = None,
) -> RateSampler:
    """Simulates the rates of a process along `times` from 0 to 1.

    Args:
        process: Gives prior, rates and the posterior of the last step.
        times: The grid. Thinning is exact whatever it is, except for the last step; leaping has an error of the
            order of the step, and misses whatever a site would do after its first jump in a step.
        method: "leap", one evaluation of the rates a step; "thinning", one for each event of the clock.
        rates_fn: `(predict_fn, x, t) -> Jump` in place of the process's own generator.
        bound_fn: `(t, s)` to an upper bound of the total rate, for thinning; by default the hazards of a masked
            path, at several times of each step. Broken bounds are counted.
        observer: `(x, t)` to anything, stacked over times.

    A site whose rate is infinite at `t=0` (`MixtureProcess`, the time reversal of its noising) is better served by
    `grid_sampler`. Thinning runs for as long as its slowest state under `vmap` and has no reverse derivative.
    Raises `ValueError` for a process that is not a `JumpProcess`, bad times, an unknown method, or thinning without
    a bound.
    """
    if not isinstance(process, JumpProcess):
        raise ValueError(f"process: expected a JumpProcess, got {type(process).__name__}")
    if method not in ("leap", "thinning"):
        raise ValueError(f'method: expected "leap" or "thinning", got {method!r}')
    if method == "thinning" and bound_fn is None:
        if not isinstance(process, MaskedProcess) or rates_fn is not None:
            raise ValueError("bound_fn: thinning needs a bound of the total rate for these rates")
        bound_fn = _hazard_bound(process)
    grid, path = check_grid(times), process.path

    def rates(predict_fn: PredictFn, x: jax.Array, t: Scalar) -> jax.Array:
        """Off-diagonal rates `[sites, symbols]`."""
        if rates_fn is None:
            jump = process.generator(predict_fn(x, t), x, t)
        else:
            jump = rates_fn(predict_fn, x, t)
        here = x[:, None] == jnp.arange(jump.intensities.shape[-1])[None, :]
        return jnp.where(here, 0.0, jump.intensities)

    def leap(key: jax.Array, x: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar) -> tuple:
        key_jump, key_symbol = jax.random.split(key)
        q = rates(predict_fn, x, t)
        prob = -jnp.expm1(-(s - t) * jnp.sum(q, axis=-1))
        jumps = jax.random.uniform(key_jump, x.shape) < prob
        moved = jnp.where(jumps, _categorical(key_symbol, q), x).astype(x.dtype)
        return moved, jnp.int32(1), jnp.sum(jumps, dtype=jnp.int32), jnp.int32(0)

    def thin(key: jax.Array, x: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar) -> tuple:
        assert bound_fn is not None
        bound = bound_fn(t, s)

        def wait(key: jax.Array, now: jax.Array) -> jax.Array:
            return now + jax.random.exponential(key) / bound

        def event(state: tuple) -> tuple:
            key, now, x, calls, jumps, exceeded = state
            key, key_wait, key_accept, key_which = jax.random.split(key, 4)
            q = rates(predict_fn, x, now)
            total = jnp.sum(q)
            accept = jax.random.uniform(key_accept) * bound < total
            which = _categorical(key_which, q.reshape(-1))
            moved = x.at[which // q.shape[-1]].set((which % q.shape[-1]).astype(x.dtype))
            return (
                key,
                wait(key_wait, now),
                jnp.where(accept, moved, x),
                calls + 1,
                jumps + accept.astype(jnp.int32),
                exceeded + (total > bound * (1.0 + 1e-5)).astype(jnp.int32),
            )

        key, key_wait = jax.random.split(key)
        zero = jnp.int32(0)
        start = (key, wait(key_wait, jnp.asarray(t)), x, zero, zero, zero)
        final = jax.lax.while_loop(lambda state: state[1] < s, event, start)
        return final[2:]

    move = leap if method == "leap" else thin

    def sample(key: jax.Array, predict_fn: PredictFn, x0: jax.Array | None = None) -> RateRollout:
        key_prior, key_steps, key_end = jax.random.split(key, 3)
        x0 = path.sample_prior(key_prior) if x0 is None else x0
        clock = jnp.asarray(grid, dtype=float)

        def step(x: jax.Array, inputs: tuple) -> tuple:
            key_n, t, s = inputs
            seen = observer(x, t) if observer is not None else None
            x, *counts = move(key_n, x, predict_fn, t, s)
            return x, (*counts, seen)

        keys = jax.random.split(key_steps, len(grid) - 2)
        calls: Any
        jumps: Any
        exceeded: Any
        observed: Any
        x, (calls, jumps, exceeded, observed) = jax.lax.scan(step, x0, (keys, clock[:-2], clock[1:-1]))
        last = clock[-2]
        x1 = process.sample_endpoint(key_end, predict_fn(x, last), x, last)
        if observer is not None:
            observed = jax.tree.map(lambda a, b: jnp.append(a, b[None], axis=0), observed, observer(x, last))
        return RateRollout(
            x1,
            jnp.append(calls, 1),
            jnp.append(jumps, jnp.sum(x1 != x, dtype=jnp.int32)),
            jnp.append(exceeded, 0),
            observed,
        )

    return RateSampler(sample, len(grid) - 1)


def _hazard_bound(process: MaskedProcess) -> BoundFn:
    """All sites masked, at the largest hazard of a few times of the step."""

    def bound(t: Scalar, s: Scalar) -> jax.Array:
        times = t + (s - t) * jnp.linspace(0.0, 1.0, BOUND_TIMES)
        return jnp.sum(jnp.max(jax.vmap(process.path.hazard)(times), axis=0))

    return bound


def _categorical(key: jax.Array, mass: jax.Array) -> jax.Array:
    """A draw along the last axis in proportion to `mass >= 0`; anything where all of it is zero."""
    positive = mass > 0
    logits = jnp.where(positive, jnp.log(jnp.where(positive, mass, 1.0)), -jnp.inf)
    return jax.random.categorical(key, logits, axis=-1)
