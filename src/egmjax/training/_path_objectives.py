"""Objectives on whole paths: from the log-weights of a sampler, differentiated through its network.

    log w = psi(x, 1) + log_weight(path)        constant if and only if the sampler is exact

    log_variance    (1/2) Var(log w) under any law of paths; under the sampler's own its gradient is that of the
                    reverse KL divergence, -E[(log w - mean) grad log q], with the mean as baseline (VarGrad,
                    Richter et al., 2020; on paths of diffusions Richter and Berner, 2024)
    likelihood      -E_p[log q], the forward KL divergence up to a constant, over states drawn by weight or data

Both take states from the source and paths from the backward chain, so they serve every process with exact log-weights:
an order of sites, where the weight is that of the state itself, as well as masks in random order or diffusions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..estimators import PsiFn
from ..processes import bind
from ..simulators import Sampler
from ._objectives import ApplyFn, Context, Objective


def log_variance_objective(
    sampler: Sampler, apply_fn: ApplyFn, psi_fn: PsiFn, *, num_groups: int = 1
) -> Objective:
    """Half the variance of the log-weight over each of `num_groups` equal parts of a batch.

    On-policy with a `rollout_source` whose buffer holds one iteration of as many roll-outs as the batch, and one update
    an iteration: draws are then each roll-out once. Otherwise the reference is a mixture of older models, or what
    weights make of it in a sum with an objective that needs them; the minimum is the same. It seeks modes that the
    sampler visits and knows nothing of others: ramp the temperature, or begin with another objective. Non-finite
    energies leave their path out, so it does not learn to keep away from them either.

    A flow or a fixed order has no path beside its state. A diffusion or a random order has, drawn backwards from the
    state: the gradient is that of the reverse divergence once the backward chain from own samples retraces own
    paths. An exact sampler is the minimum at any rate; where steps are too coarse for one, the minimum is what serves
    such paths best, and own samples need not be better for it. Costs a gradient of the network at each step; for
    the memory see `grid_sampler`.

    Raises `ValueError` for `num_groups < 1`; a batch that does not divide, or groups of one, when examples are made.
    """
    if num_groups < 1:
        raise ValueError(f"num_groups: at least 1, got {num_groups}")

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Any, dict]:
        num = t.shape[0]
        if num % num_groups or num < 2 * num_groups:
            raise ValueError(f"num_groups: a batch of {num} cannot be {num_groups} groups of two or more")
        with jax.default_matmul_precision("highest"):
            psi = context.temper * jax.vmap(lambda x: psi_fn(x, 1.0))(x1)
        grouped = lambda a: a.reshape(num_groups, -1, *a.shape[1:])  # noqa: E731
        bad = jnp.sum(~jnp.isfinite(psi), dtype=jnp.int32)
        return jax.tree.map(grouped, (jax.random.split(key, num), x1, psi)), {"num_nonfinite": bad}

    def loss(params: Any, group: tuple[jax.Array, Any, jax.Array]) -> jax.Array:
        keys, x1, psi = group
        predict_fn = bind(apply_fn, params)
        log_w = psi + jax.vmap(lambda k, x: sampler.log_weight(k, predict_fn, x))(keys, x1)
        usable = jnp.isfinite(psi)
        num = jnp.maximum(jnp.sum(usable), 2)
        kept = jnp.where(usable, log_w, 0.0)
        deviation = jnp.where(usable, kept - jnp.sum(kept) / num, 0.0)
        return 0.5 * jnp.sum(deviation**2) / (num - 1)

    return Objective(examples, loss, weighted=False, num_energies=1)


def likelihood_objective(sampler: Sampler, apply_fn: ApplyFn) -> Objective:
    """`log_weight` of states drawn by weight, or of data: minus the log-likelihood, or a bound of it on paths.

    `-log q(x)` for an order of sites, all of whose contexts learn from every state; the negative ELBO
    of one backward path elsewhere. Mass covering.
    """

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Any, dict]:
        return (jax.random.split(key, t.shape[0]), x1), {}

    def loss(params: Any, example: tuple[jax.Array, Any]) -> jax.Array:
        key, x1 = example
        return sampler.log_weight(key, bind(apply_fn, params), x1)

    return Objective(examples, loss, weighted=True, num_energies=0)
