"""Proposals that are roll-outs of a model: fresh ones from `x_t`, or stored ones from the prior."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..paths import Path
from ..paths._base import Scalar
from ..processes import PredictFn
from ..simulators import Sampler
from ._base import Proposal, check_end


def model_rollout(sampler: Sampler, predict_fn: PredictFn) -> Proposal:
    """The model's own roll-outs from `x_t` to `r = 1`, with the exact log-weights of their chains.

    Cost: one roll-out a proposal. Raises `ValueError` for a sampler that is not `is_reversal`, whose roll-outs from
    `x_t` have weights for another quantity, and when used for `r` other than the literal 1.
    """
    if not sampler.is_reversal:
        raise ValueError(
            "sampler: roll-outs from x_t need the path's own backward kernel (jumps, a diffusion at noise 1)"
        )

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> tuple[Any, jax.Array]:
        check_end("a roll-out ends", r)
        rollouts = jax.vmap(lambda k: sampler.sample(k, predict_fn, xt, t))(jax.random.split(key, num))
        return rollouts.x, rollouts.log_weight

    return Proposal(propose)


def replay(path: Path, buffer_x: Any, buffer_log_weight: jax.Array) -> Proposal:
    """Stored roll-outs from the prior, drawn uniformly and with replacement, as proposals for `r = 1`.

        log_ratio = log_weight_j + log p_{t|1}(x_t | x_j) - log_reference_t(x_t)

    `buffer_x [n, ...]` and `buffer_log_weight [n]`: every entry a finished state and its log-weight relative to the
    reference, as in `Rollout` of a sampler of any kind. `E[w] = exp(psi(x_t, t))` over the roll-outs; for one
    given buffer the estimate tends to the buffer's own answer. No energies and no network calls beyond the stored
    ones, but few stored states could have been noised into `x_t`: the variance is huge in high dimension, above
    all near `t = 1`, and states that agree with no data site of `x_t` have `log_ratio = -inf`. Raises `ValueError`
    for another shape of `buffer_log_weight`, and when used for `r` other than the literal 1.
    """
    log_weight = jnp.asarray(buffer_log_weight)
    size = jax.tree.leaves(buffer_x)[0].shape[0]
    if log_weight.shape != (size,):
        raise ValueError(f"buffer_log_weight: expected shape ({size},), got {log_weight.shape}")

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> tuple[Any, jax.Array]:
        check_end("stored roll-outs end", r)
        index = jax.random.randint(key, (num,), 0, size)
        x1 = jax.tree.map(lambda a: a[index], buffer_x)
        likelihood = jax.vmap(lambda x: path.log_prob(xt, x, t, 1.0))(x1)
        return x1, log_weight[index] + likelihood - path.log_reference(xt, t)

    return Proposal(propose)
