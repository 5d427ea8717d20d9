"""What an energy says of a site in passing, added to what a network says: it has the rest to learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..paths import MaskedPath


def with_local_fields(
    apply_fn: Callable[[Any, jax.Array, Any], jax.Array],
    path: MaskedPath,
    site_energies_fn: Callable[[jax.Array], jax.Array],
) -> Callable[[Any, jax.Array, Any], jax.Array]:
    """The `apply_fn(params, x, t)` of a masked denoiser, logits `[sites, S]`, plus conditional energy differences.

        logits_i[s] = apply_fn_i[s] - (1 / S) sum_r E(x[i <- s, masked <- r])        up to a constant in s

    `site_energies_fn`, e.g. `Target.site_energies`, `[sites, S]` of a state. The mean runs over the symbol `r` that
    stands at all other masked sites, so of energies of pairs what it adds is the known neighbours' share and that of
    independent uniform symbols at the others: `2 beta sum of known spins` for the Ising model. A site whose neighbours
    are all known has its exact law before anything is learned. Costs `S` local fields of a state a call.
    """

    def apply(params: Any, x: jax.Array, t: Any) -> jax.Array:
        def filled(symbol: jax.Array) -> jax.Array:
            return site_energies_fn(jnp.where(x == path.mask, symbol, x))

        with jax.default_matmul_precision("highest"):
            energies = jax.vmap(filled)(jnp.arange(path.num_states, dtype=x.dtype))
            field = -jnp.mean(energies, axis=0)
        # what all symbols of a site have in common is no preference, and may be large
        return apply_fn(params, x, t) + field - jnp.mean(field, axis=-1, keepdims=True)

    return apply
