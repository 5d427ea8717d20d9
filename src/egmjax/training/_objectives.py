"""Training objectives for energies: from buffered states to regression examples.

    snis       x_t ~ p_{t|1}(. | x_1), target the self-normalised estimate of K proposals      (EGM, Woo et al.)
    weighted   x_1 drawn in proportion to w = exp(-E) / q, target the conditional one given x_1

`weighted` is generator matching under the target itself: no bias from a finite K at each state, one roll-out
serves every `t`, and one energy evaluation a sample. It learns from its own weights, so it wants them tempered
while they are poor. `snis` explores with the proposal and needs K evaluations a state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..estimators import DEFAULT_CHUNK, PsiFn, snis
from ..processes import Process
from ..proposals import Proposal


class Examples(NamedTuple):
    """A batch for regression: `xt`, `t [batch]`, `target`, `weight [batch]` (zero where there is no target)."""

    xt: Any
    t: jax.Array
    target: Any
    weight: jax.Array


class Objective(NamedTuple):
    """`examples(key, x1, t, temper) -> (Examples, info)`; `temper` scales `psi` in `[0, 1]` (1 is the target).

    `weighted` says how the buffer is to be drawn from; `num_energies` counts evaluations for each example.
    """

    examples: Callable[[jax.Array, Any, jax.Array, jax.Array], tuple[Examples, dict[str, jax.Array]]]
    weighted: bool
    num_energies: int


def weighted_objective(process: Process) -> Objective:
    """Regression on conditional targets of samples drawn in proportion to their importance weights."""
    path = process.path

    def examples(key: jax.Array, x1: Any, t: jax.Array, temper: jax.Array) -> tuple[Examples, dict]:
        xt = jax.vmap(path.sample)(jax.random.split(key, t.shape[0]), x1, t)
        target = jax.vmap(process.target)(xt, x1, t)
        return Examples(xt, t, target, jnp.ones_like(t)), {}

    return Objective(examples, weighted=True, num_energies=0)


def snis_objective(
    process: Process,
    proposal: Proposal,
    psi_fn: PsiFn,
    *,
    num_proposals: int,
    chunk_size: int = DEFAULT_CHUNK,
) -> Objective:
    """Regression on self-normalised importance-sampling estimates at `r = 1`; see `estimators.snis`.

    States at which no proposal had a finite energy get weight zero.
    """
    path = process.path
    if num_proposals < 1:
        raise ValueError(f"num_proposals: at least 1, got {num_proposals}")

    def examples(key: jax.Array, x1: Any, t: jax.Array, temper: jax.Array) -> tuple[Examples, dict]:
        key_path, key_snis = jax.random.split(key)
        xt = jax.vmap(path.sample)(jax.random.split(key_path, t.shape[0]), x1, t)

        def estimate(key_i: jax.Array, x: Any, ti: jax.Array) -> Any:
            return snis(
                key_i,
                x,
                ti,
                process=process,
                proposal=proposal,
                psi_fn=lambda xr, r: temper * psi_fn(xr, r),
                num_proposals=num_proposals,
                chunk_size=chunk_size,
            )

        result = jax.vmap(estimate)(jax.random.split(key_snis, t.shape[0]), xt, t)
        weight = (result.info.ess > 0).astype(t.dtype)
        info = {
            "snis_ess": jnp.mean(result.info.ess) / num_proposals,
            "snis_largest_weight": jnp.mean(result.info.largest_weight),
            "num_nonfinite": jnp.sum(result.info.num_nonfinite),
        }
        return Examples(xt, t, result.target, weight), info

    return Objective(examples, weighted=False, num_energies=num_proposals)
