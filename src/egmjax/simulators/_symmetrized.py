"""A sampler's density averaged over symmetries of its target."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..paths._base import Scalar
from ..processes import PredictFn
from ._samplers import Rollout, Sampler


def symmetrized(sampler: Sampler, permutations: Any) -> Sampler:
    """The mixture of `sampler`'s density `q` with permuted sites, all of them equally likely.

        qbar(x) = (1 / m) sum_g q(g^-1 x),     (g x)[i] = x[p_g[i]],     x = g x', x' ~ q, g uniform

    `permutations`: int `[m, sites]`, concrete; any list of them, since a mixture need be no group. Where the energy is
    the same at `x` and at `g x` (`targets.Target.site_symmetries`), `exp(-E(x)) / qbar(x)` is the conditional mean of
    the weight of `x'` given `x`, so neither ESS nor ELBO is below that of `q` (Rao-Blackwell, Jensen); with other
    permutations `E[w] = Z` all the same. Cost: a roll-out and `m` log-weights a sample, one after another; memory does
    not depend on `m`. Roll-outs start from the prior. Raises `ValueError` for a sampler that is not `has_density`, for
    anything but permutations, and where a roll-out starts from another state.
    """
    if not sampler.has_density:
        raise ValueError(
            "sampler: only a log-weight that is a density of all states can be averaged (ordered_sampler)"
        )
    forth = np.asarray(permutations)
    is_table = forth.ndim == 2 and forth.size > 0 and np.issubdtype(forth.dtype, np.integer)
    if not is_table or np.any(np.sort(forth, axis=1) != np.arange(forth.shape[1])):
        raise ValueError(
            "permutations: expected integers [m, sites], each row 0..sites-1 in some order, "
            f"got {forth.dtype}{list(forth.shape)}"
        )
    back = np.argsort(forth, axis=1)

    def log_weight(key: jax.Array, predict_fn: PredictFn, x1: Any) -> jax.Array:
        def add(total: jax.Array, inverse: jax.Array) -> tuple:
            return jnp.logaddexp(total, -sampler.log_weight(key, predict_fn, x1[inverse]).astype(float)), None

        total, _ = jax.lax.scan(add, jnp.asarray(-jnp.inf, float), jnp.asarray(back))
        return math.log(len(back)) - total

    def sample(key: jax.Array, predict_fn: PredictFn, xt: Any = None, t: Scalar = 0.0) -> Rollout:
        if xt is not None:
            raise ValueError("xt: averaged roll-outs start from the prior")
        key_which, key_path = jax.random.split(key)
        which = jax.random.randint(key_which, (), 0, len(forth))
        rollout = sampler.sample(key_path, predict_fn)
        x = rollout.x[jnp.asarray(forth)[which]]
        return rollout._replace(x=x, log_weight=log_weight(key_path, predict_fn, x))

    return Sampler(sample, log_weight, sampler.num_steps, has_density=True)
