"""Where `x_r` comes from. A proposal draws `x_r` given `x_t` and returns, relative to the path's reference,

    log_ratio = log p_{t|r}(x_t | x_r) + log reference_r(x_r) - log reference_t(x_t) - log q(x_r | x_t)

(or an unbiased stand-in on an extended space), so that every importance weight reads

    w = exp(psi(x_r, r) + log_ratio),      E_q[w] = exp(psi(x_t, t)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..paths import Path
from ..paths._base import Scalar, is_one
from ..processes import PredictFn
from ..simulators import Sampler


class Proposal(NamedTuple):
    """`propose(key, xt, t, r, num) -> (xr [num, ...], log_ratio [num])`: `num` draws for one state `xt`."""

    propose: Callable[[jax.Array, Any, Scalar, Scalar, int], tuple[Any, jax.Array]]


def reference_posterior(path: Path) -> Proposal:
    """The posterior of `x_r` under the path's reference density; `log_ratio` is zero."""

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> tuple[Any, jax.Array]:
        return path.propose_many(key, xt, t, r, num), jnp.zeros((num,))

    return Proposal(propose)


def from_density(
    path: Path,
    sample: Callable[[jax.Array, Any, Scalar, Scalar], Any],
    log_prob: Callable[[Any, Any, Scalar, Scalar], jax.Array],
) -> Proposal:
    """Any conditional law with a log-density: `sample(key, xt, t, r)` and `log_prob(xr, xt, t, r)`, one draw each.

    It must have mass wherever `p_{t|r}(x_t | .)` has.
    """

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> tuple[Any, jax.Array]:
        def one(key_k: jax.Array) -> tuple[Any, jax.Array]:
            xr = sample(key_k, xt, t, r)
            return xr, path.propose_log_prob(xr, xt, t, r) - log_prob(xr, xt, t, r)

        return jax.vmap(one)(jax.random.split(key, num))

    return Proposal(propose)


def model_rollout(sampler: Sampler, predict_fn: PredictFn) -> Proposal:
    """The model's own roll-outs from `x_t` to `r = 1`, with the exact log-weights of their chains.

    Cost: one roll-out a proposal. Raises `ValueError` for `r` other than the literal 1.
    """

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> tuple[Any, jax.Array]:
        if not is_one(r):
            raise ValueError(f"r: a roll-out ends at r=1, got r={r}")
        rollouts = jax.vmap(lambda k: sampler.sample(k, predict_fn, xt, t))(jax.random.split(key, num))
        return rollouts.x, rollouts.log_weight

    return Proposal(propose)
