"""Proposals with a log-density of their own, and their mixtures.

    log_ratio = log propose(x_r | x_t) - log q(x_r | x_t)

`path.propose` being the reference posterior. A mixture `q = sum_i p_i q_i` with the reference posterior as one
component is defensive: `exp(log_ratio) <= 1 / p_i` bounds every weight by that of a flat proposal over `p_i`,
however wrong the other components are (Hesterberg 1995; the mixture density in the denominator is the balance
heuristic of Veach and Guibas 1995).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..paths import Path
from ..paths._base import Scalar
from ..processes import PredictFn, Process
from ._base import Proposal, check_end


class Density(NamedTuple):
    """A conditional law: `sample(key, xt, t, r) -> xr` and `log_prob(xr, xt, t, r) -> scalar`, one draw each."""

    sample: Callable[[jax.Array, Any, Scalar, Scalar], Any]
    log_prob: Callable[[Any, Any, Scalar, Scalar], jax.Array]


def from_density(path: Path, density: Density) -> Proposal:
    """Draws of `density`, which must have mass wherever `p_{t|r}(x_t | .)` has."""

    def propose(key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> tuple[Any, jax.Array]:
        def one(key_k: jax.Array) -> tuple[Any, jax.Array]:
            xr = density.sample(key_k, xt, t, r)
            return xr, path.propose_log_prob(xr, xt, t, r) - density.log_prob(xr, xt, t, r)

        return jax.vmap(one)(jax.random.split(key, num))

    return Proposal(propose)


def reference_density(path: Path) -> Density:
    """The reference posterior of the path."""
    return Density(path.propose, path.propose_log_prob)


def model_density(process: Process, predict_fn: PredictFn) -> Density:
    """The law of `x_1` given `x_t` that the model's prediction describes, every site and coordinate on its own.

    `predict_fn(xt, t)` is the raw (joint) prediction: one network call for all draws at a state. Exact for a target
    whose sites are independent given `x_t`, so close to `t = 1`. Its sampler and log-probability raise `ValueError`
    for `r` other than the literal 1, `NotImplementedError` where the process has no `sample_endpoint`.
    """

    def sample(key: jax.Array, xt: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        check_end("the model predicts the state", r)
        return process.sample_endpoint(key, predict_fn(xt, t), xt, t)

    def log_prob(x1: Any, xt: Any, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_end("the model predicts the state", r)
        return process.endpoint_log_prob(x1, predict_fn(xt, t), xt, t)

    return Density(sample, log_prob)


def defensive_mixture(densities: Sequence[Density], probs: Sequence[float]) -> Density:
    """`sum_i probs[i] q_i`: a draw comes from one component and is weighted by the whole mixture.

    Cost: a draw and a log-probability of every component. Raises `ValueError`
    unless `probs` are positive numbers, one for each density, that sum to 1.
    """
    densities, probs = tuple(densities), tuple(float(p) for p in probs)
    if not densities or len(probs) != len(densities):
        raise ValueError(f"probs: expected one for each of {len(densities)} densities, got {len(probs)}")
    if not all(p > 0 for p in probs) or not math.isclose(sum(probs), 1.0, rel_tol=1e-6):
        raise ValueError(f"probs: expected positive numbers that sum to 1, got {probs}")

    def log_probs() -> jax.Array:
        return jnp.log(jnp.asarray(probs, dtype=float))

    def sample(key: jax.Array, xt: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        key_which, key_draw = jax.random.split(key)
        which = jax.random.categorical(key_which, log_probs()).astype(jnp.int32)
        # not lax.switch: under vmap it would repeat what all draws share, the network's prediction
        drawn = [density.sample(key_draw, xt, t, r) for density in densities]
        return jax.tree.map(lambda *leaves: jax.lax.select_n(which, *leaves), *drawn)

    def log_prob(xr: Any, xt: Any, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        each = jnp.stack([density.log_prob(xr, xt, t, r) for density in densities])
        return jax.nn.logsumexp(log_probs() + each)

    return Density(sample, log_prob)
