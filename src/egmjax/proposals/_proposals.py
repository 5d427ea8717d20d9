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
    """`propose(key, xt, t, r) -> (xr, log_ratio)`, for one state."""

    propose: Callable[[jax.Array, Any, Scalar, Scalar], tuple[Any, jax.Array]]


def reference_posterior(path: Path) -> Proposal:
    """The posterior of `x_r` under the path's reference density; `log_ratio` is zero."""

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar) -> tuple[Any, jax.Array]:
        return path.propose(key, xt, t, r), jnp.zeros(())

    return Proposal(propose)


def from_density(
    path: Path,
    sample: Callable[[jax.Array, Any, Scalar, Scalar], Any],
    log_prob: Callable[[Any, Any, Scalar, Scalar], jax.Array],
) -> Proposal:
    """Any conditional law with a log-density: `sample(key, xt, t, r)` and `log_prob(xr, xt, t, r)`.

    It must have mass wherever `p_{t|r}(x_t | .)` has.
    """

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar) -> tuple[Any, jax.Array]:
        xr = sample(key, xt, t, r)
        return xr, path.propose_log_prob(xr, xt, t, r) - log_prob(xr, xt, t, r)

    return Proposal(propose)


def model_rollout(sampler: Sampler, predict_fn: PredictFn) -> Proposal:
    """The model's own roll-out from `x_t` to `r = 1`, with the exact log-weight of its chain.

    Cost: one roll-out a proposal. Raises `ValueError` for `r` other than the literal 1.
    """

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar) -> tuple[Any, jax.Array]:
        if not is_one(r):
            raise ValueError(f"r: a roll-out ends at r=1, got r={r}")
        rollout = sampler.sample(key, predict_fn, xt, t)
        return rollout.x, rollout.log_weight

    return Proposal(propose)
