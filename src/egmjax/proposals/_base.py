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
from ..states import example_state


class Proposal(NamedTuple):
    """`propose(key, xt, t, r, num) -> (xr [num, ...], log_ratio [num])`: `num` draws for one state `xt`."""

    propose: Callable[[jax.Array, Any, Scalar, Scalar, int], tuple[Any, jax.Array]]


def reference_posterior(path: Path, *, antithetic: bool = False) -> Proposal:
    """The posterior of `x_r` under the path's reference density; `log_ratio` is zero.

    `antithetic`: every second draw is the reflection (`path.reflect`) of the one before it. Each draw keeps its law;
    what is odd under the reflection cancels within a pair, and what is even has half as many independent draws,
    which the ESS of the weights does not show. Raises `ValueError` where the path has no reflection.
    """
    if antithetic:
        state = example_state(path.space)
        jax.eval_shape(lambda t, r: path.reflect(state, state, t, r), 0.5, 1.0)  # refuses here, not in use

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> tuple[Any, jax.Array]:
        if not antithetic:
            return path.propose_many(key, xt, t, r, num), jnp.zeros((num,))
        drawn = path.propose_many(key, xt, t, r, -(-num // 2))
        mirrored = jax.vmap(lambda x: path.reflect(x, xt, t, r))(drawn)
        xr = jax.tree.map(lambda a, b: _interleave(a, b)[:num], drawn, mirrored)
        return xr, jnp.zeros((num,))

    return Proposal(propose)


def _interleave(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])


def check_end(what: str, r: Scalar) -> None:
    """Raises `ValueError` unless `r` is the literal 1."""
    if not is_one(r):
        raise ValueError(f"r: {what} at r=1 only, got r={r}")
