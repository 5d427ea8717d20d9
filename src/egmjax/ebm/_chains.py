"""Negative samples for maximum likelihood: chains of the present model, moved on once for every update.

    balanced             a global move by the flow (Metropolis, i-SIR), then local moves        all chains mix
    persistent (PCD)     local moves alone                                                      masses of modes stay
    restarted (CD)       the same, from data each time                                          and so do these

Local moves are Langevin's on R^d; Gibbs sweeps on symbols, where the flow's place is taken by a masked jump model
(`rollout_proposal`); both in turn on pairs of the two, where it is taken by a product process; or any other. With local
moves alone the share `c_k` of chains in mode `k` does not follow the model, so that the derivative of the likelihood in
an offset of that mode, `p_data(k) - c_k`, is a constant drift: masses diverge, or, where the chains started at data,
stay what they happen to be while the histogram of the chains looks perfect.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ..metrics import summarize_forward_weights, summarize_weights
from ._moves import MoveFn, MoveInfo, StateDensityFn, langevin

Metrics = dict[str, jax.Array]
DensityApplyFn = Callable[[Any, Any], jax.Array]  # (params, x) -> log p(x), unnormalised, one state
ADAPTATION = 0.05  # of log h for an excess of acceptance of one


class ChainState(NamedTuple):
    """`position`, states stacked along a first axis of `num_chains`, and `log_step`, the logarithm of the step of the
    local moves (zero where they have none). Nothing else: what is known of a position would be wrong after the next
    update.
    """

    position: Any
    log_step: jax.Array


class Negatives(NamedTuple):
    """`init(key, params) -> ChainState`; `advance(key, state, params, data) -> (state, metrics)` with `data`
    the present batch of states. Both pure.
    """

    init: Callable[[jax.Array, Any], ChainState]
    advance: Callable[[jax.Array, ChainState, Any, Any], tuple[ChainState, Metrics]]


def chain_negatives(
    log_density_fn: DensityApplyFn,
    start_fn: Callable[[Any, jax.Array], Any],
    *,
    step_size: float | None = None,
    num_chains: int = 256,
    num_local: int = 5,
    local: Literal["mala", "ula"] | MoveFn | Callable[[jax.Array], MoveFn] = "mala",
    target_acceptance: float = 0.7,
    proposal_fn: Callable[[Any], Any] | None = None,
    global_move: Callable[[Any], MoveFn] | None = None,
    restart: bool = False,
) -> Negatives:
    """Chains of `exp(log_density_fn(params, .))`.

    Args:
        log_density_fn: `(params, x) -> scalar`, one state.
        start_fn: `(params, key) -> x`, where a chain starts: the proposal's sampler, not data.
        step_size: Of the Langevin moves at first, in squared units of the state, adapted to the mean acceptance of the
            chains, one step for all; ULA keeps it. Needed for MALA and ULA; `None` for moves without a step.
        num_chains: At least 1.
        num_local: Local moves a call; 0 for none.
        local: Langevin moves with acceptance or without; a move, e.g. `gibbs_sweep(space)`; or, with a `step_size`,
            the move of a step, e.g. `lambda step: mala_gibbs(space, step)`.
        target_acceptance: What the step is adapted to, in (0, 1).
        proposal_fn: `params -> Density | PathProposal` of the global moves, e.g. a defensive mixture with a flow or
            the roll-outs of a masked jump model.
        global_move: `independence_metropolis`, or `lambda proposal: i_sir(proposal, 16)`; goes with `proposal_fn`.
        restart: Start from the batch of data at each call; `num_chains` must be its size.

    Raises:
        ValueError: A number out of its range, one of `proposal_fn` and `global_move` without the other, or neither
            these nor local moves; `advance` for a batch of another size where chains restart.

    Metrics of a call: `acceptance_local`, `step_size` if there is one, `acceptance_global`; of the proposal's weights
    at fresh draws `ess` (a number of draws) and `log_z`, in the mean a lower bound, and `log_z_upper` from those at the
    chains, an upper bound as far as the chains are the model's.
    """
    if num_chains < 1 or num_local < 0:
        raise ValueError(f"num_chains: at least 1, and num_local 0, got {num_chains} and {num_local}")
    if not callable(local) and local not in ("mala", "ula"):
        raise ValueError(f"local: expected mala, ula or a move, got {local!r}")
    if not (callable(local) if step_size is None else 0 < step_size < math.inf):
        raise ValueError(f"step_size: must be positive and finite, got {step_size}")
    if not 0 < target_acceptance < 1:
        raise ValueError(f"target_acceptance: between 0 and 1, got {target_acceptance}")
    if (proposal_fn is None) != (global_move is None):
        raise ValueError("proposal_fn: goes with global_move, and neither without the other")
    if num_local == 0 and global_move is None:
        raise ValueError("num_local: at least 1 where there are no global moves")

    def init(key: jax.Array, params: Any) -> ChainState:
        start = jax.vmap(lambda k: start_fn(params, k))(jax.random.split(key, num_chains))
        if step_size is None:
            return ChainState(start, jnp.zeros(()))
        return ChainState(start, jnp.log(jnp.asarray(step_size, jnp.result_type(*jax.tree.leaves(start)))))

    def local_move(step: jax.Array) -> MoveFn:
        if not callable(local):
            return langevin(step, num_steps=num_local, adjusted=local == "mala")
        return _repeated(local if step_size is None else local(step), num_local)  # type: ignore[call-arg, arg-type]

    def move_all(key: jax.Array, x: Any, params: Any, move: MoveFn) -> tuple[Any, MoveInfo]:
        keys = jax.random.split(key, num_chains)
        return jax.vmap(lambda k, y: move(k, y, lambda z: log_density_fn(params, z)))(keys, x)

    def move_globally(key: jax.Array, x: Any, params: Any) -> tuple[Any, Metrics]:
        assert proposal_fn is not None
        assert global_move is not None
        x, info = move_all(key, x, params, global_move(proposal_fn(params)))
        fresh = summarize_weights(info.log_weight.ravel())
        held = summarize_forward_weights(info.held_log_weight)
        return x, {
            "acceptance_global": jnp.mean(info.acceptance),
            "ess": fresh.ess_fraction * info.log_weight.size,
            "log_z": fresh.log_z,
            "log_z_upper": held.log_z,
        }

    def advance(key: jax.Array, state: ChainState, params: Any, data: Any) -> tuple[ChainState, Metrics]:
        key_global, key_local = jax.random.split(key)
        x, log_step = data if restart else state.position, state.log_step
        size = len(jax.tree.leaves(x)[0])
        if size != num_chains:
            raise ValueError(f"num_chains: that of the batch where chains restart, {size}, got {num_chains}")
        metrics: Metrics = {}
        if global_move is not None:
            x, metrics = move_globally(key_global, x, params)
        if num_local > 0:
            x, info = move_all(key_local, x, params, local_move(jnp.exp(log_step)))
            acceptance = jnp.mean(info.acceptance)
            metrics |= {"acceptance_local": acceptance}
            if step_size is not None:
                metrics |= {"step_size": jnp.exp(log_step)}
                if local != "ula":
                    log_step = log_step + ADAPTATION * (acceptance - target_acceptance)
        return ChainState(x, log_step), metrics

    return Negatives(init, advance)


def _repeated(move: MoveFn, num: int) -> MoveFn:
    """`num` moves; the acceptance is their mean, other information is that of each, stacked."""

    def moves(key: jax.Array, x: Any, log_density_fn: StateDensityFn) -> tuple[Any, MoveInfo]:
        def one(x: Any, key: jax.Array) -> tuple[Any, MoveInfo]:
            return move(key, x, log_density_fn)

        x, info = jax.lax.scan(one, x, jax.random.split(key, num))
        return x, info._replace(acceptance=jnp.mean(info.acceptance))

    return moves
