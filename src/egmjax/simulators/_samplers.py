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

from ..paths import GivenPath
from ..paths._base import Scalar, as_time
from ..processes import AmortizedProcess, MaskedProcess, PredictFn, Process, at_condition
from ..processes._masked import log_symbol_prob
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
        (x, total), observed = jax.lax.scan(advance, (xt, correction), (keys, clock[:-1], clock[1:]))
        return Rollout(x, total, observed)

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


def first_hitting_sampler(process: MaskedProcess | AmortizedProcess) -> Sampler:
    """Reveals one mask a network call, in the order of the path's exact hitting times; no time discretisation.

    Hitting times do not depend on symbols, so the chain is simulated exactly and its weight,
    `-sum_n log D_{i_n}(x[i_n] | revealed before)`, is exact for any order: random with a common clock, fixed with
    `paths.Ordered`. Sites given as evidence are known from the start and cost nothing in the weight. Cost: `sites`
    network calls a roll-out. The log-weight of given states evaluates all `sites` contexts at once. An
    `AmortizedProcess` of a masked process draws a condition first. Raises `ValueError` for other processes.
    """
    if isinstance(process, AmortizedProcess) and isinstance(process.process, MaskedProcess):
        return _amortized(process.given, first_hitting_sampler(process.process))
    if not isinstance(process, MaskedProcess):
        raise ValueError(f"process: first hitting needs a MaskedProcess, got {type(process).__name__}")
    path = process.path
    log_states = float(np.log(path.num_states))

    def sample(key: jax.Array, predict_fn: PredictFn, xt: Any = None, t: Scalar = 0.0) -> Rollout:
        key_prior, key_times, key_symbols = jax.random.split(key, 3)
        xt, correction = start_state(path, key_prior, xt)
        hitting = jnp.where(xt == path.mask, path.hitting_times(key_times, t), jnp.inf)
        order = jnp.argsort(hitting)
        noise = jax.random.gumbel(key_symbols, (path.sites, path.num_states))

        def reveal(carry: tuple, inputs: tuple) -> tuple:
            x, total = carry
            site, gumbel = inputs
            now = jnp.minimum(hitting[site], 1.0)
            logits = predict_fn(x, now)[site]
            symbol = jnp.argmax(logits + gumbel).astype(x.dtype)
            is_masked = x[site] == path.mask
            gain = -(jax.nn.log_softmax(logits)[symbol] + log_states)
            x = x.at[site].set(jnp.where(is_masked, symbol, x[site]))
            return (x, total + jnp.where(is_masked, gain, 0.0)), None

        (x, total), _ = jax.lax.scan(reveal, (xt, correction), (order, noise))
        return Rollout(x, total)

    def log_weight(key: jax.Array, predict_fn: PredictFn, x1: Any) -> jax.Array:
        hitting = path.hitting_times(key)
        rank = jnp.argsort(jnp.argsort(hitting))  # float32 times can be equal; ranks cannot
        earlier = rank[None, :] < rank[:, None]  # row i: what was known when site i was revealed
        x0, correction = start_state(path, key, None)
        hidden = x0 == path.mask
        contexts = jnp.where(earlier | ~hidden[None, :], x1[None, :], path.mask)
        logits = jax.vmap(predict_fn)(contexts, hitting)
        sites = jnp.arange(path.sites)
        gain = log_symbol_prob(logits[sites, sites], x1) + log_states
        agrees = jnp.all(hidden | (x1 == x0))  # no roll-out ends where the evidence is contradicted
        return jnp.where(agrees, correction - jnp.sum(jnp.where(hidden, gain, 0.0)), jnp.inf)

    return Sampler(sample, log_weight, path.sites, process.is_reversal)


def _amortized(given: GivenPath, sampler: Sampler) -> Sampler:
    """`sampler` at conditions drawn by `given`, for states `(c, x)`."""

    def sample(key: jax.Array, predict_fn: PredictFn, xt: Any = None, t: Scalar = 0.0) -> Rollout:
        key_given, key_rest = jax.random.split(key)
        c, x = (given.sample_prior(key_given), None) if xt is None else xt
        rollout = sampler.sample(key_rest, at_condition(predict_fn, c), x, t)
        return rollout._replace(x=(c, rollout.x))

    def log_weight(key: jax.Array, predict_fn: PredictFn, x1: Any) -> jax.Array:
        return sampler.log_weight(key, at_condition(predict_fn, x1[0]), x1[1])

    return Sampler(sample, log_weight, sampler.num_steps, sampler.is_reversal)


def check_grid(times: Any) -> np.ndarray:
    """`times` in float64; raises `ValueError` unless they increase from exactly 0 to exactly 1."""
    grid = np.asarray(times, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 2 or grid[0] != 0 or grid[-1] != 1 or np.any(np.diff(grid) <= 0):
        raise ValueError("times: expected increasing times from exactly 0 to exactly 1")
    return grid


def start_state(path: Any, key: jax.Array, xt: Any) -> tuple[Any, jax.Array]:
    if xt is not None:
        return xt, jnp.zeros(())
    x0 = path.sample_prior(key)
    return x0, path.log_reference(x0, 0.0) - path.prior_log_prob(x0)
