"""Gibbs sampling of categorical states, one site after another.

    x_i  ~  p(x_i = s | x_{-i})  =  softmax_s(-E(x[i <- s])),     i in the order of the scan

Every update is an exact conditional draw that sees the updates before it, so a sweep leaves `exp(-E)`
invariant in any order that does not look at the state (Geman and Geman, 1984). Updating all sites at once
from the old state, "parallel Gibbs", does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ..states import Categorical, Space

__all__ = ["Gibbs", "GibbsInfo", "GibbsState", "gibbs"]

Scan = Literal["systematic", "random"]


class GibbsState(NamedTuple):
    """`position`: int32 `[sites]`."""

    position: jax.Array


class GibbsInfo(NamedTuple):
    """`num_changed`: sites whose symbol changed in this sweep, an integer scalar."""

    num_changed: jax.Array


class Gibbs(NamedTuple):
    """`init(position) -> state` and `step(key, state) -> (state, info)`, for one chain; a step is a sweep."""

    init: Callable[[jax.Array], GibbsState]
    step: Callable[[jax.Array, GibbsState], tuple[GibbsState, GibbsInfo]]


def gibbs(
    energy_fn: Callable[[jax.Array], jax.Array],
    space: Space,
    *,
    scan: Scan = "systematic",
    conditional_fn: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Gibbs:
    """A Gibbs kernel for `exp(-energy_fn)` on a `Categorical` space.

    Args:
        energy_fn: `x: int32 [sites] -> scalar`; infinite means zero density.
        space: `Categorical(sites, num_states)`.
        scan: `"systematic"`, sites in their order, or `"random"`, a new permutation for each sweep.
        conditional_fn: `(x, site) -> E(x[site <- s])` for every `s`, `[num_states]`, up to a constant, where
            that is cheaper than `num_states` energies.

    Raises:
        ValueError: `space` is not `Categorical`, or `scan` is neither name.

    A sweep costs `sites * num_states` energies.
    """
    if not isinstance(space, Categorical):
        raise ValueError(f"space: Gibbs sampling needs a Categorical space, got {space}")
    if scan not in ("systematic", "random"):
        raise ValueError(f"scan: expected 'systematic' or 'random', got {scan!r}")

    def conditional(x: jax.Array, site: jax.Array) -> jax.Array:
        symbols = jnp.arange(space.num_states, dtype=x.dtype)
        return jax.vmap(lambda symbol: energy_fn(x.at[site].set(symbol)))(symbols)

    energies_fn = conditional if conditional_fn is None else conditional_fn

    def init(position: jax.Array) -> GibbsState:
        return GibbsState(jnp.asarray(position, dtype=jnp.int32))

    def step(key: jax.Array, state: GibbsState) -> tuple[GibbsState, GibbsInfo]:
        key_order, key_sites = jax.random.split(key)
        order = jnp.arange(space.sites)
        if scan == "random":
            order = jax.random.permutation(key_order, order)
        keys = jax.random.split(key_sites, space.sites)

        def update(n: jax.Array, x: jax.Array) -> jax.Array:
            symbol = jax.random.categorical(keys[n], -energies_fn(x, order[n]))
            return x.at[order[n]].set(symbol.astype(x.dtype))

        position = jax.lax.fori_loop(0, space.sites, update, state.position)
        return GibbsState(position), GibbsInfo(jnp.sum(position != state.position, dtype=jnp.int32))

    return Gibbs(init, step)
