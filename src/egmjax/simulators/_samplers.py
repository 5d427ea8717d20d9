"""Samplers: roll-outs of a process from prior to data, with their exact log-weights.

    sample(key, predict_fn)             Rollout(x, log_weight),   log w = psi(x, 1) + log_weight,   E[w] = Z
    log_weight(key, predict_fn, x1)     the same log-weight along one draw of the backward chain from `x1`

`predict_fn(xt, t)` is the raw network output for one state. With draws of the target for `x1` the second gives
the EUBO and the forward ESS, which see modes that a sampler's own draws cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..paths._base import Scalar, as_time
from ..processes import PredictFn, Process
from ._corrector import CorrectorFn, corrected_moves, plain_moves

Observer = Callable[[Any, jax.Array], Any]  # (x, t) -> anything, stacked over times


class Rollout(NamedTuple):
    """One finished state, its log-weight relative to the path's reference, and what the observer saw."""

    x: Any
    log_weight: jax.Array
    observed: Any = None


class Sampler(NamedTuple):
    """Two pure functions; see the module docstring. `num_steps` counts the steps of one roll-out.

    `sample(key, predict_fn, xt, t)` starts from `xt` at time `t`; its log-weight is then that of the rest of
    the chain. Where `is_reversal`, `exp(psi(x, 1) + log_weight)` is an unbiased estimate of `exp(psi(xt, t))`:
    the backward kernels of the process are the path's `p_{t|s}` and compose to `p_{t|1}(xt | x_1)`. Those of a flow,
    or of a diffusion at another noise, compose to another law of `xt`, and so does their estimate. Where `has_density`,
    `log_weight` is the same for every key, and `exp(-log_weight)` is the probability of every state of symbols.
    """

    sample: Callable[..., Rollout]
    log_weight: Callable[[jax.Array, PredictFn, Any], jax.Array]
    num_steps: int
    is_reversal: bool = False
    has_density: bool = False


def grid_sampler(
    process: Process,
    times: Any,
    *,
    observer: Observer | None = None,
    corrector_fn: CorrectorFn | None = None,
    num_corrections: int = 1,
) -> Sampler:
    """Steps a process along `times [num_steps + 1]`; one scan, its cost `num_steps` steps of the process.

    `corrector_fn(t)`, where given, is the amount `c_t >= 0` of predictor-corrector: after a step of length `h` to
    `s` the chain goes back by `c_s h` and forth again, `num_corrections` times (see `_corrector`). Where it is zero
    nothing moves; let it vanish towards `t=0`, e.g. `lambda t: 12 t^2 (1 - t)^(1/4)`. Each correction costs two to
    three steps of the process and keeps the weights exact, those of roll-outs from the prior. For a flow it does
    nothing; for a diffusion it adds noise. From a start at `t` the grid is compressed into `[t, 1]`.

    A gradient of `log_weight` keeps the state of each step and computes the rest of it anew, so its memory does not
    grow with the network times `num_steps`; that is also faster, by what is not written and read.

    Raises `ValueError` unless times increase from exactly 0 to exactly 1, as the weights would be those of another
    density otherwise, and for `num_corrections < 1`.
    """
    if num_corrections < 1:
        raise ValueError(f"num_corrections: at least 1, got {num_corrections}")
    moves = (
        plain_moves(process)
        if corrector_fn is None
        else corrected_moves(process, corrector_fn, num_corrections)
    )
    grid, path = check_grid(times), process.path

    def at(t: Scalar) -> jax.Array:
        u = jnp.asarray(grid, dtype=float)
        return jnp.where(u == 0, t, 1.0 - (1.0 - as_time(t)) * (1.0 - u))  # exactly 1 at the end

    def sample(key: jax.Array, predict_fn: PredictFn, xt: Any = None, t: Scalar = 0.0) -> Rollout:
        key_prior, key_steps = jax.random.split(key)
        xt, correction = start_state(path, key_prior, xt)
        clock = at(t)

        def advance(carry: tuple, inputs: tuple) -> tuple:
            x, total = carry
            key_n, now, later = inputs
            seen = observer(x, now) if observer is not None else None
            x, increment = moves.advance(key_n, x, predict_fn, now, later)
            return (x, total + increment), seen

        keys = jax.random.split(key_steps, len(grid) - 1)
        observed: Any
        start = (xt, jnp.zeros(()))
        (x, total), observed = jax.lax.scan(advance, start, (keys, clock[:-1], clock[1:]))
        return Rollout(x, correction + total, observed)

    def log_weight(key: jax.Array, predict_fn: PredictFn, x1: Any) -> jax.Array:
        clock = at(0.0)

        def retreat(carry: tuple, inputs: tuple) -> tuple:
            xs, total = carry
            key_n, now, later = inputs
            xt, increment = moves.retreat(key_n, xs, predict_fn, now, later)
            return (xt, total + increment), None

        keys = jax.random.split(key, len(grid) - 1)
        start = (x1, jnp.zeros(()))
        body = jax.checkpoint(retreat, prevent_cse=False)
        (x0, total), _ = jax.lax.scan(body, start, (keys, clock[:-1], clock[1:]), reverse=True)
        return total + path.log_reference(x0, 0.0) - path.prior_log_prob(x0)

    # corrected roll-outs from the middle compose to another backward kernel than the path's
    is_reversal = process.is_reversal and corrector_fn is None
    return Sampler(sample, log_weight, len(grid) - 1, is_reversal)


def check_grid(times: Any) -> np.ndarray:
    """`times` in float64; raises `ValueError` unless they increase from exactly 0 to exactly 1."""
    grid = np.asarray(times, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 2 or grid[0] != 0 or grid[-1] != 1 or np.any(np.diff(grid) <= 0):
        raise ValueError("times: expected increasing times from exactly 0 to exactly 1")
    return grid


def start_state(path: Any, key: jax.Array, xt: Any) -> tuple[Any, jax.Array]:
    """`xt` or a draw of the prior, and `log reference_0 - log p_0` of the latter.

    That is large, `sites log S` for masks: added to the increments before their sum, it would have each of them rounded
    to its own last digit.
    """
    if xt is not None:
        return xt, jnp.zeros(())
    x0 = path.sample_prior(key)
    return x0, path.log_reference(x0, 0.0) - path.prior_log_prob(x0)
