"""Roll-outs that reveal masks in the order of exact hitting times, one or several a network call.

    log w = -sum_b sum_(i in B_b) log D_i(x_i | x of B_1 .. B_(b-1))

`B_1, B_2, ...` are blocks of the next sites in that order, `sites_per_step` of them. Sites of a block are drawn
independently of each other given what was known before it: the weight is exact, and what independence costs is in it;
see `estimators.total_correlation`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..paths import GivenPath, MaskedPath, Ordered
from ..paths._base import Scalar
from ..processes import AmortizedProcess, MaskedProcess, PredictFn, RowwisePredictor, at_condition
from ..processes._masked import log_symbol_prob
from ._samplers import Rollout, Sampler, start_state

SitesPerStep = int | Sequence[int]


def first_hitting_sampler(
    process: MaskedProcess | AmortizedProcess, *, sites_per_step: SitesPerStep = 1
) -> Sampler:
    """Reveals `sites_per_step` masks a network call, in the order of the path's exact hitting times.

    Hitting times do not depend on symbols, so with one site a step the chain is simulated exactly, without
    discretisation of time. With more, exactly as many are revealed at a step, where a grid of times reveals a random
    number; the weight of the module's formula is exact all the same, for any order: random with a common clock, fixed
    with `paths.Ordered`. Sites given as evidence are known from the start and cost nothing in it.

    `sites_per_step`: of every step, or of the first, the second, and so on, the last one for all later steps: as sites
    depend on each other most while little is known, `(1, 1, 2, 4, 8)` loses less than its mean would. Of the last step
    only what is left. No step goes beyond a rank of `Ordered`, which is then to be concrete, and each rank starts anew:
    with `path.sites` every rank is one step (`targets.coloring`).

    Cost: `num_steps` network calls a roll-out, and for the log-weight of a given state, where they are made at once;
    with a `RowwisePredictor` a row for each site, and one call.
    An `AmortizedProcess` of a masked process draws a condition first. Raises `ValueError` for other processes, and
    unless numbers of sites are from 1 to all of them and the last one is reached.
    """
    if isinstance(process, AmortizedProcess) and isinstance(process.process, MaskedProcess):
        inner = first_hitting_sampler(process.process, sites_per_step=sites_per_step)
        return _amortized(process.given, inner)
    if not isinstance(process, MaskedProcess):
        raise ValueError(f"process: first hitting needs a MaskedProcess, got {type(process).__name__}")
    path = process.path
    blocks = _blocks(path, sites_per_step)
    log_states = float(np.log(path.num_states))

    def sample(key: jax.Array, predict_fn: PredictFn, xt: Any = None, t: Scalar = 0.0) -> Rollout:
        key_prior, key_times, key_symbols = jax.random.split(key, 3)
        xt, correction = start_state(path, key_prior, xt)
        hitting = path.hitting_times(key_times, t)
        order = _order(path, hitting, xt == path.mask)
        noise = jax.random.gumbel(key_symbols, (path.sites, path.num_states))

        def reveal(carry: tuple, inputs: tuple) -> tuple:
            x, total = carry
            sites, is_site, gumbel = inputs
            logits = _rows(predict_fn, x, hitting[sites[0]], sites)
            symbols = jnp.argmax(logits + gumbel, axis=-1).astype(x.dtype)
            is_new = is_site & (x[sites] == path.mask)
            gain = log_symbol_prob(logits, symbols) + log_states
            x = x.at[jnp.where(is_new, sites, path.sites)].set(symbols, mode="drop")
            return (x, total - jnp.sum(jnp.where(is_new, gain, 0.0))), None

        places = np.minimum(blocks, path.sites - 1)
        steps = (order[places], blocks < path.sites, noise[places])
        (x, total), _ = jax.lax.scan(reveal, (xt, jnp.zeros(())), steps)
        return Rollout(x, correction + total)

    def log_weight(key: jax.Array, predict_fn: PredictFn, x1: Any) -> jax.Array:
        x0 = path.sample_prior(key)
        log_prob, _ = block_log_probs(key, process, predict_fn, x1, sites_per_step)
        # no roll-out ends where the evidence is contradicted
        agrees = jnp.all((x0 == path.mask) | (x1 == x0))
        return jnp.where(agrees, -jnp.sum(log_prob), jnp.inf)

    return Sampler(sample, log_weight, len(blocks), process.is_reversal)


def block_log_probs(
    key: jax.Array, process: MaskedProcess, predict_fn: PredictFn, x1: jax.Array, sites_per_step: SitesPerStep
) -> tuple[jax.Array, jax.Array]:
    """`log D_i(x_i | x of earlier steps)` and the step that reveals it, of all sites: float, int `[sites]`.

    In an order drawn with `key`, the same for every `sites_per_step`. Evidence is certain, whatever `x1` says: 0.
    """
    path = process.path
    blocks = _blocks(path, sites_per_step)
    hidden = path.sample_prior(key) == path.mask
    hitting = path.hitting_times(key)
    order = _order(path, hitting, hidden)
    step_of_place = np.repeat(np.arange(len(blocks)), np.sum(blocks < path.sites, axis=1))
    step = jnp.asarray(step_of_place, jnp.int32)[jnp.argsort(order)]

    def contexts(at: jax.Array) -> jax.Array:
        known = (step[None, :] < at[:, None]) | ~hidden[None, :]
        return jnp.where(known, x1[None, :], path.mask)

    if isinstance(predict_fn, RowwisePredictor):
        logits = predict_fn.each(contexts(step))
    else:
        logits = jax.vmap(predict_fn)(contexts(jnp.arange(len(blocks))), hitting[order[blocks[:, 0]]])
        logits = logits[step, jnp.arange(path.sites)]
    return jnp.where(hidden, log_symbol_prob(logits, x1), 0.0), step


def _rows(predict_fn: PredictFn, x: jax.Array, t: Scalar, sites: jax.Array) -> jax.Array:
    """Logits `[k, S]` of some sites."""
    if isinstance(predict_fn, RowwisePredictor):
        return jax.vmap(predict_fn.row, (None, 0))(x, sites)
    return predict_fn(x, t)[sites]


def _blocks(path: MaskedPath, sites_per_step: SitesPerStep) -> np.ndarray:
    """Places in the order that each step reveals, `[num_steps, width]`; `sites` fills up where there are fewer."""
    sizes = np.atleast_1d(sites_per_step)
    is_count = sizes.ndim == 1 and np.issubdtype(sizes.dtype, np.integer)
    if not is_count or not 1 <= min(sizes) <= max(sizes) <= path.sites:
        raise ValueError(f"sites_per_step: from 1 to the {path.sites} sites, got {sites_per_step}")
    if np.sum(sizes[:-1]) >= path.sites:
        raise ValueError(f"sites_per_step: the last of {sites_per_step} comes after all {path.sites} sites")
    if max(sizes) == 1:  # whatever the ranks, which may be traced
        return np.arange(path.sites)[:, None]
    rank = path.schedule.rank if isinstance(path.schedule, Ordered) else np.zeros(path.sites, int)
    ends = np.cumsum([0, *np.bincount(np.asarray(rank))])
    starts = np.cumsum([0, *sizes, *[sizes[-1]] * path.sites])
    bounds = [
        np.append(first + starts[starts < stop - first], stop) for first, stop in itertools.pairwise(ends)
    ]
    blocks = [np.arange(*block) for of_rank in bounds for block in itertools.pairwise(of_rank)]
    table = np.full((len(blocks), max(map(len, blocks))), path.sites)
    for row, block in zip(table, blocks):
        row[: len(block)] = block
    return table


def _order(path: MaskedPath, hitting: jax.Array, hidden: jax.Array) -> jax.Array:
    """All sites, by rank, hidden ones first, then by hitting times: float32 times can be equal, places cannot."""
    rank = path.schedule.rank if isinstance(path.schedule, Ordered) else jnp.zeros(path.sites, jnp.int32)
    return jnp.lexsort((hitting, ~hidden, rank))


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
