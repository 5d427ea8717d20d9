"""Roll-outs in a fixed order, one site after another and the last ones together."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._precision import highest
from ..paths._base import Scalar
from ..processes import DecodeFn, MaskedProcess, PredictFn, SitewisePredictor, StepFn, site_order
from ..processes._masked import log_symbol_prob
from ._samplers import Rollout, Sampler, start_state


def ordered_sampler(process: MaskedProcess) -> Sampler:
    """Reveals the sites of a `paths.Ordered` schedule by rank: `log_weight = -sum_i log D_i(x_i | earlier)`.

    An autoregressive model: the weight is exact, whatever the key, and so is the density `q(x) = exp(-log_weight)`.
    Every rank has one site, except that the last may have several, which are drawn independently of each other given
    all before (for `processes.sitewise` with an energy that is their exact law). With a `SitewisePredictor` a roll-out
    costs a row of the network for each site and the log-weight of a given state one call of it; with any other
    `predict_fn` a call for each rank, given states in parallel. Evidence is known from the start. Raises `ValueError`
    for another process, or as `processes.site_order` does.

    Roll-outs take one row after another and densities all at once: two programs, which are one law as far as their
    arithmetic agrees. So both have products at the highest precision, and the network's layers are to be float32.
    """
    if not isinstance(process, MaskedProcess):
        raise ValueError(f"process: an order needs a MaskedProcess, got {type(process).__name__}")
    path = process.path
    rank, first, last = site_order(path)
    num_ranks = len(first) + 1
    log_states = float(np.log(path.num_states))
    # the middle of each rank: any time at which its clocks run
    times = (np.arange(num_ranks) + 0.5) / num_ranks

    def sitewise(predict_fn: PredictFn) -> tuple[list[int], DecodeFn, Any]:
        """Where blocks of rows begin and end, how they are decoded, and the rows of the last rank."""
        if isinstance(predict_fn, SitewisePredictor):
            size = predict_fn.block_size or max(1, len(first))
            bounds = [*range(0, len(first), size), len(first)]
            return bounds, predict_fn.decode, predict_fn.last
        clock, sites = jnp.asarray(times, float), jnp.asarray(first)

        def decode(x: jax.Array, memory: Any, start: int, stop: int) -> tuple[Any, StepFn]:
            return None, lambda memory, y, n: (predict_fn(y, clock[n])[sites[n]], None)

        return [0, len(first)], decode, lambda x: predict_fn(x, times[-1])[last]

    def sample(key: jax.Array, predict_fn: PredictFn, xt: Any = None, t: Scalar = 0.0) -> Rollout:
        key_prior, key_symbols = jax.random.split(key)
        xt, correction = start_state(path, key_prior, xt)
        bounds, decode, last_fn = sitewise(predict_fn)
        noise = jax.random.gumbel(key_symbols, (path.sites, path.num_states))

        def reveal(step_fn: StepFn, carry: tuple, inputs: tuple) -> tuple:
            x, total, memory = carry
            n, site, gumbel = inputs
            logits, memory = step_fn(memory, x, n)
            symbol = jnp.argmax(logits + gumbel).astype(x.dtype)
            hidden = x[site] == path.mask
            gain = jax.nn.log_softmax(logits)[symbol] + log_states
            x = x.at[site].set(jnp.where(hidden, symbol, x[site]))
            return (x, total - jnp.where(hidden, gain, 0.0), memory), None

        x, total, memory = xt, jnp.zeros(()), None
        for start, stop in itertools.pairwise(bounds):
            memory, step_fn = decode(x, memory, start, stop)
            steps = (jnp.arange(start, stop), first[start:stop], noise[start:stop])
            (x, total, memory), _ = jax.lax.scan(
                functools.partial(reveal, step_fn), (x, total, memory), steps
            )
        logits = last_fn(x)
        symbols = jnp.argmax(logits + noise[num_ranks - 1 :], axis=-1).astype(x.dtype)
        hidden = x[last] == path.mask
        gain = log_symbol_prob(logits, symbols) + log_states
        x = x.at[last].set(jnp.where(hidden, symbols, x[last]))
        return Rollout(x, correction + (total - jnp.sum(jnp.where(hidden, gain, 0.0))))

    def log_weight(key: jax.Array, predict_fn: PredictFn, x1: Any) -> jax.Array:
        x0, correction = start_state(path, key, None)
        hidden = x0 == path.mask
        if isinstance(predict_fn, SitewisePredictor):
            logits = predict_fn.predict(x1)
        else:
            earlier = rank[None, :] < np.arange(num_ranks)[:, None]
            contexts = jnp.where(earlier | ~hidden[None, :], x1[None, :], path.mask)
            logits = jax.vmap(predict_fn)(contexts, jnp.asarray(times, float))[rank, np.arange(path.sites)]
        gain = log_symbol_prob(logits, x1) + log_states
        agrees = jnp.all(hidden | (x1 == x0))  # no roll-out ends where the evidence is contradicted
        return jnp.where(agrees, correction - jnp.sum(jnp.where(hidden, gain, 0.0)), jnp.inf)

    # with evidence states that contradict it have none
    has_density = path.evidence is None
    return Sampler(highest(sample), highest(log_weight), num_ranks, process.is_reversal, has_density)
