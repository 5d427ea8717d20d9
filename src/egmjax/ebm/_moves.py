"""Moves of one chain that leave a density as it is: from anywhere at once, Langevin steps, Gibbs sweeps.

    w(x) = p(x) / q(x)
    independence Metropolis   x' ~ q, accepted with probability min(1, w(x') / w(x))
    i-SIR                     x_0 = x, x_1 ... x_{N-1} ~ q, one of them drawn in proportion to w
    Langevin                  x' = x + h grad log p(x) + sqrt(2 h) noise, accepted or not
    Gibbs                     every symbol in turn from its law given the others
    both in turn              Langevin moves of the reals given the symbols, then a Gibbs sweep given the reals

A move carries nothing but the position, so no density can be out of date where parameters change between moves (what a
step has computed of a state is worthless after an update); it costs one evaluation more. Where `w` is unbounded chains
stick: give `q` a wide component (`proposals.defensive_mixture`). With `L = sup w / E_q[w]` a step contracts total
variation by `1 - 1 / L` (Metropolis) and `1 - (N - 1) / (2 L + N - 2)` (i-SIR; Samsonov et al., 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..mcmc import gibbs, mala_within_gibbs
from ..proposals import Density
from ..states import Space
from ._path_proposals import PathProposal, as_path_proposal

StateDensityFn = Callable[[Any], jax.Array]  # x -> log p(x), unnormalised, a scalar, one state


class MoveInfo(NamedTuple):
    """`acceptance`: probability of having moved, or whether it has, in [0, 1]; mean over steps for Langevin moves, over
    sites for Gibbs sweeps; of both in turn that of the Langevin moves.

    Of moves by a proposal: `log_weight [n]` at its fresh draws, `held_log_weight` at the state moved from; the two
    estimate log Z from below and above. Empty and zero for local moves.
    """

    acceptance: jax.Array
    log_weight: jax.Array
    held_log_weight: jax.Array


MoveFn = Callable[[jax.Array, Any, StateDensityFn], tuple[Any, MoveInfo]]


def independence_metropolis(proposal: Density | PathProposal) -> MoveFn:
    """`move(key, x, log_density_fn) -> (x, info)`; a proposal whose weight is not finite is declined.

    Any state. Cost: a draw, and two densities (or ratios) of either kind.
    """
    paths = as_path_proposal(proposal)

    def move(key: jax.Array, x: Any, log_density_fn: StateDensityFn) -> tuple[Any, MoveInfo]:
        key_draw, key_accept, key_back = jax.random.split(key, 3)
        drawn, log_ratio = paths.sample(key_draw)
        fresh = _log_weight(log_density_fn(drawn), log_ratio, fresh=True)
        held = _log_weight(log_density_fn(x), paths.log_ratio(key_back, x))
        # both -inf: nothing is known to be better, so stay
        log_ratio = jnp.where(fresh > -jnp.inf, fresh - held, -jnp.inf)
        accepted = jnp.log(jax.random.uniform(key_accept)) < log_ratio
        info = MoveInfo(jnp.exp(jnp.minimum(log_ratio, 0.0)), fresh[None], held)
        return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), drawn, x), info

    return move


def i_sir(proposal: Density | PathProposal, num_candidates: int) -> MoveFn:
    """`move(key, x, log_density_fn) -> (x, info)` among `num_candidates`, the present state being one of them.

    Reversible for every number of candidates (Tjelmeland, 2004; Andrieu, Lee and Vihola, 2018). The present state is
    kept where the weights of all candidates vanish. Any state. Cost: `num_candidates` densities (or ratios) of either
    kind, one draw less. Raises `ValueError` for `num_candidates < 2`.
    """
    if num_candidates < 2:
        raise ValueError(f"num_candidates: at least 2, got {num_candidates}")

    paths = as_path_proposal(proposal)

    def move(key: jax.Array, x: Any, log_density_fn: StateDensityFn) -> tuple[Any, MoveInfo]:
        key_draw, key_pick, key_back = jax.random.split(key, 3)
        drawn, log_ratio = jax.vmap(paths.sample)(jax.random.split(key_draw, num_candidates - 1))
        fresh = _log_weight(jax.vmap(log_density_fn)(drawn), log_ratio, fresh=True)
        held = _log_weight(log_density_fn(x), paths.log_ratio(key_back, x))
        # the first of equal logits wins, so slot 0 does where all are -inf
        picked = jax.random.categorical(key_pick, jnp.concatenate([held[None], fresh]))
        moved = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b])[picked], x, drawn)
        return moved, MoveInfo((picked > 0).astype(held.dtype), fresh, held)

    return move


def langevin(step_size: float | jax.Array, *, num_steps: int = 1, adjusted: bool = True) -> MoveFn:
    """`move(key, x, log_density_fn) -> (x, info)`: `num_steps` Langevin moves with `h = step_size`, blackjax's.

    Args:
        step_size: In squared units of the state; may be traced.
        num_steps: At least 1.
        adjusted: Accept or decline (MALA); otherwise all steps are taken (ULA), which leaves another law invariant,
            except those that are not finite.

    Raises `ValueError` for a count below one or a step not above zero. Cost: `num_steps + 1` gradients (adjusted) or
    `num_steps`. Needs blackjax.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: at least 1, got {num_steps}")
    if not isinstance(step_size, jax.core.Tracer) and not float(step_size) > 0:
        raise ValueError(f"step_size: must be positive, got {float(step_size)}")
    from blackjax.mcmc import diffusions, mala

    kernel = mala.build_kernel()

    def move(key: jax.Array, x: jax.Array, log_density_fn: StateDensityFn) -> tuple[jax.Array, MoveInfo]:
        unadjusted = diffusions.overdamped_langevin(jax.value_and_grad(log_density_fn))

        def step(state: mala.MALAState, key: jax.Array) -> tuple[mala.MALAState, jax.Array]:
            if adjusted:
                state, info = kernel(key, state, log_density_fn, step_size)
                return state, jnp.nan_to_num(info.acceptance_rate)
            new = mala.MALAState(*unadjusted(key, state, step_size))
            fine = jnp.all(jnp.isfinite(new.position)) & jnp.all(jnp.isfinite(new.logdensity_grad))
            kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, state)
            return kept, fine.astype(x.dtype)

        state, rates = jax.lax.scan(step, mala.init(x, log_density_fn), jax.random.split(key, num_steps))
        return state.position, MoveInfo(jnp.mean(rates), jnp.zeros(0, x.dtype), jnp.zeros((), x.dtype))

    return move


def gibbs_sweep(space: Space) -> MoveFn:
    """`move(key, x, log_density_fn) -> (x, info)`: one sweep of `mcmc.gibbs` over the sites of a `Categorical` space.

    Cost: `sites * num_states` densities. Raises `ValueError` for other spaces.
    """
    gibbs(lambda x: jnp.zeros(()), space)  # refuses here, not in use

    def move(key: jax.Array, x: jax.Array, log_density_fn: StateDensityFn) -> tuple[jax.Array, MoveInfo]:
        kernel = gibbs(lambda y: -log_density_fn(y), space)
        state, info = kernel.step(key, kernel.init(x))
        share = info.num_changed.astype(float) / x.shape[0]
        return state.position, MoveInfo(share, jnp.zeros(0, share.dtype), jnp.zeros_like(share))

    return move


def mala_gibbs(space: Space, step_size: float | jax.Array, *, num_mala: int = 1) -> MoveFn:
    """`move(key, x, log_density_fn) -> (x, info)`: a step of `mcmc.mala_within_gibbs`, `num_mala` Langevin moves of the
    reals given the symbols, then one sweep over the symbols given the reals.

    Arguments, errors and cost are those of `mcmc.mala_within_gibbs`; `space` is a tuple of one `Real` and one
    `Categorical`. Needs blackjax.
    """
    settings: dict[str, Any] = {"step_size": step_size, "num_mala": num_mala}
    mala_within_gibbs(lambda x: jnp.zeros(()), space, **settings)  # refuses here, not in use

    def move(key: jax.Array, x: Any, log_density_fn: StateDensityFn) -> tuple[Any, MoveInfo]:
        kernel = mala_within_gibbs(lambda y: -log_density_fn(y), space, **settings)
        state, info = kernel.step(key, kernel.init(x))
        rate = info.acceptance_rate
        return state.position, MoveInfo(rate, jnp.zeros(0, rate.dtype), jnp.zeros_like(rate))

    return move


def _log_weight(log_density: jax.Array, log_ratio: jax.Array, fresh: bool = False) -> jax.Array:
    """`log p(x) + log_ratio`, `-inf` where it is nan. Of a fresh draw `+inf` is an error too; a state held for which
    the proposal's density underflows is one to stay at.
    """
    log_w = log_density + log_ratio
    bad = ~jnp.isfinite(log_w) if fresh else jnp.isnan(log_w)
    return jnp.where(bad, -jnp.inf, log_w)
