"""Moves of one chain that leave a density as it is: from anywhere at once, and Langevin steps.

    w(x) = p(x) / q(x)
    independence Metropolis   x' ~ q, accepted with probability min(1, w(x') / w(x))
    i-SIR                     x_0 = x, x_1 ... x_{N-1} ~ q, one of them drawn in proportion to w
    Langevin                  x' = x + h grad log p(x) + sqrt(2 h) noise, accepted or not

A move carries nothing but the position, so no density can be out of date where parameters change between moves (what a
step has computed of a state is worthless after an update); it costs one evaluation more. Where `w` is unbounded chains
stick: give `q` a wide component (`proposals.defensive_mixture`). With `L = sup w / E_q[w]` a step contracts total
variation by `1 - 1 / L` (Metropolis) and `1 - (N - 1) / (2 L + N - 2)` (i-SIR; Samsonov et al., 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..proposals import Density

StateDensityFn = Callable[[jax.Array], jax.Array]  # x -> log p(x), unnormalised, a scalar, one state


class MoveInfo(NamedTuple):
    """`acceptance`: probability of having moved, or whether it has, in [0, 1]; mean over steps for Langevin moves.

    Of moves by a proposal: `log_weight [n]` at its fresh draws, `held_log_weight` at the state moved from; the two
    estimate log Z from below and above. Empty and zero for Langevin moves.
    """

    acceptance: jax.Array
    log_weight: jax.Array
    held_log_weight: jax.Array


MoveFn = Callable[[jax.Array, jax.Array, StateDensityFn], tuple[jax.Array, MoveInfo]]


def independence_metropolis(proposal: Density) -> MoveFn:
    """`move(key, x, log_density_fn) -> (x, info)`; a proposal whose weight is not finite is declined.

    Cost: a draw, and two densities of either kind.
    """

    def move(key: jax.Array, x: jax.Array, log_density_fn: StateDensityFn) -> tuple[jax.Array, MoveInfo]:
        key_draw, key_accept = jax.random.split(key)
        drawn = proposal.sample(key_draw, None, 0.0, 1.0)
        fresh = _log_weight(drawn, log_density_fn, proposal, fresh=True)
        held = _log_weight(x, log_density_fn, proposal)
        # both -inf: nothing is known to be better, so stay
        log_ratio = jnp.where(fresh > -jnp.inf, fresh - held, -jnp.inf)
        accepted = jnp.log(jax.random.uniform(key_accept)) < log_ratio
        info = MoveInfo(jnp.exp(jnp.minimum(log_ratio, 0.0)), fresh[None], held)
        return jnp.where(accepted, drawn, x), info

    return move


def i_sir(proposal: Density, num_candidates: int) -> MoveFn:
    """`move(key, x, log_density_fn) -> (x, info)` among `num_candidates`, the present state being one of them.

    Reversible for every number of candidates (Tjelmeland, 2004; Andrieu, Lee and Vihola, 2018). The present state is
    kept where the weights of all candidates vanish. Cost: `num_candidates` densities of either kind, one draw less.
    Raises `ValueError` for `num_candidates < 2`.
    """
    if num_candidates < 2:
        raise ValueError(f"num_candidates: at least 2, got {num_candidates}")

    def move(key: jax.Array, x: jax.Array, log_density_fn: StateDensityFn) -> tuple[jax.Array, MoveInfo]:
        key_draw, key_pick = jax.random.split(key)
        keys = jax.random.split(key_draw, num_candidates - 1)
        drawn = jax.vmap(lambda k: proposal.sample(k, None, 0.0, 1.0))(keys)
        fresh = jax.vmap(lambda y: _log_weight(y, log_density_fn, proposal, fresh=True))(drawn)
        held = _log_weight(x, log_density_fn, proposal)
        # the first of equal logits wins, so slot 0 does where all are -inf
        picked = jax.random.categorical(key_pick, jnp.concatenate([held[None], fresh]))
        moved = jnp.concatenate([x[None], drawn])[picked]
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


def _log_weight(
    x: jax.Array, log_density_fn: StateDensityFn, proposal: Density, fresh: bool = False
) -> jax.Array:
    """`log p(x) - log q(x)`, `-inf` where it is nan. Of a fresh draw `+inf` is an error too; a state held for which `q`
    underflows is one to stay at.
    """
    log_w = log_density_fn(x) - proposal.log_prob(x, None, 0.0, 1.0)
    bad = ~jnp.isfinite(log_w) if fresh else jnp.isnan(log_w)
    return jnp.where(bad, -jnp.inf, log_w)
