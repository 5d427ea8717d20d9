"""MCMC moves on the posterior of `x_r`, with weights: annealed importance sampling (Neal, 2001).

    pi_beta(x)  ~  propose(x | x_t) exp(beta psi(x, r)),       0 = beta_0 < ... < beta_T = 1,  beta_j = j / T
    x_0 ~ pi_0;     x_j by a Metropolis move that leaves pi_{beta_j} alone,  j = 1 .. T - 1
    log w = sum_{j < T} (beta_{j+1} - beta_j) psi(x_j, r)

`E[w f(x_{T-1})] = exp(psi(x_t, t)) E[f(x_r) | x_t]` for every number of temperatures. A move goes back along the
path and comes forth again,

    x_s ~ bridge(. | x_t, x_r),   x' ~ propose(. | x_s),   accepted with min(1, exp(beta (psi(x', r) - psi(x_r, r))))

Under the reference, `x_s` has its law given `(x_t, x_r)` and `x'` its law given `x_s`, hence given `(x_s, x_t)` on a
path that is Markov: two steps of a Gibbs sampler, whose `x_r` is a reversible chain under `pi_0`. So the acceptance
needs the ratio of the tilts alone, on every path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..paths import Path
from ..paths._base import Scalar, as_time
from ._base import Proposal


def annealed(
    path: Path,
    psi_fn: Callable[[Any, Scalar], jax.Array],
    *,
    num_temperatures: int,
    refresh: float = 0.1,
) -> Proposal:
    """Annealed importance sampling from the reference posterior to that of `psi_fn(x, r)`.

    `refresh` in `(0, 1)` is the size of a move, `s = r - refresh (r - t)`; on a masked path with linear clock and
    `r = 1` it is the fraction of the masked sites that are drawn anew. `num_temperatures = 1` is the reference
    posterior. Cost: `num_temperatures` energies a proposal, and one more in the estimator that weighs it. Raises
    `ValueError` for a `refresh` outside `(0, 1)`, `num_temperatures < 1`, or a path that is not Markov.
    """
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures: at least 1, got {num_temperatures}")
    if not 0 < refresh < 1:
        raise ValueError(f"refresh: a fraction in (0, 1), got {refresh}")
    if not path.is_markov:
        raise ValueError("path: moves back and forth along it need a path that is Markov")
    step = 1.0 / num_temperatures

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> tuple[Any, jax.Array]:
        def psi(x: Any) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                return psi_fn(x, r)

        def anneal(key_k: jax.Array, start: Any) -> tuple[Any, jax.Array]:
            def advance(carry: tuple, inputs: tuple) -> tuple:
                x, value, total = carry
                key_j, beta = inputs
                x, value = posterior_move(path, key_j, xt, x, value, psi, beta, t, r, refresh)
                return (x, value, total + step * value), None

            value = psi(start)
            betas = jnp.arange(1, num_temperatures) * jnp.asarray(step, dtype=float)
            inputs = (jax.random.split(key_k, num_temperatures - 1), betas)
            (x, value, total), _ = jax.lax.scan(advance, (start, value, step * value), inputs)
            return x, total - value

        key_start, key_moves = jax.random.split(key)
        start = path.propose_many(key_start, xt, t, r, num)
        return jax.vmap(anneal)(jax.random.split(key_moves, num), start)

    return Proposal(propose)


def posterior_move(
    path: Path,
    key: jax.Array,
    xt: Any,
    xr: Any,
    value: jax.Array,
    psi: Callable[[Any], jax.Array],
    beta: Scalar,
    t: Scalar,
    r: Scalar,
    refresh: float,
) -> tuple[Any, jax.Array]:
    """One Metropolis move that leaves `pi_beta` alone, from `xr` with `value = psi(xr)`: `(x, psi(x))`.

    A candidate whose `psi` is not a number is rejected.
    """
    key_back, key_forth, key_accept = jax.random.split(key, 3)
    s = as_time(r) - refresh * (as_time(r) - as_time(t))
    candidate = path.propose(key_forth, path.bridge(key_back, xt, xr, t, s, r), s, r)
    new = psi(candidate)
    accept = jnp.log(jax.random.uniform(key_accept, (), dtype=new.dtype)) < beta * (new - value)
    x = jax.tree.map(lambda a, b: jnp.where(accept, a, b), candidate, xr)
    return x, jnp.where(accept, new, value)
