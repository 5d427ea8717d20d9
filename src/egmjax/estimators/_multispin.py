"""The self-normalised estimate of a masked path of two symbols, with 32 proposals in each word."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from .. import multispin
from .._random import random_words
from ..paths import MaskedPath
from ..paths._base import Scalar, check_times
from ._snis import SNISEstimate, stream

MAX_CHUNK = 1024


def words_of_chunk(chunk_size: int | None) -> int:
    """How many words hold `chunk_size` proposals. Raises `ValueError` where these are not whole words."""
    if chunk_size is None:
        chunk_size = MAX_CHUNK
    if chunk_size < 1 or chunk_size % multispin.WIDTH:
        raise ValueError(f"chunk_size: expected a multiple of {multispin.WIDTH}, got {chunk_size}")
    return chunk_size // multispin.WIDTH


def multispin_snis(
    key: jax.Array,
    xt: jax.Array,
    t: Scalar,
    *,
    path: MaskedPath,
    energy_fn: Callable[[jax.Array], jax.Array],
    num_proposals: int,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> SNISEstimate:
    """`snis` of a masked process by uniform completions of the masks, at `r = 1`: the same law, several times faster.

    `energy_fn(words [sites, n]) -> [32, n]`, e.g. `Target.multispin_energy`; see `egmjax.multispin`. The target is
    `P(x_1[i] = s | x_t)`, `[sites, 2]`. Cost: a random bit for each site and proposal, and their energies, in whole
    words. Memory of `chunk_size` proposals, `None` being 1024, at a bit a site. Raises `ValueError` for a path that
    is not masked or has not two symbols, for `num_proposals < 1`, for a `chunk_size` that is not a positive
    multiple of 32, and for energies of another shape or type.
    """
    if not isinstance(path, MaskedPath) or path.num_states != 2:
        raise ValueError(f"path: multi-spin coding needs a MaskedPath of two symbols, got {path}")
    if num_proposals < 1:
        raise ValueError(f"num_proposals: at least 1, got {num_proposals}")
    check_times(t, 1.0)
    num_words = min(words_of_chunk(chunk_size), -(-num_proposals // multispin.WIDTH))
    shown = jnp.where(xt == 1, ~jnp.uint32(0), jnp.uint32(0))[:, None]

    def draw(key_c: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        random = random_words(key_c, (path.sites, num_words))
        words = jnp.where((xt == path.mask)[:, None], random, shown)
        with jax.default_matmul_precision("highest"):
            log_w = -energy_fn(words)
        if log_w.shape != (multispin.WIDTH, num_words) or not jnp.issubdtype(log_w.dtype, jnp.floating):
            raise ValueError(
                f"energy_fn: expected floating energies [{multispin.WIDTH}, {num_words}] of words "
                f"[{path.sites}, {num_words}], got {log_w.dtype}{list(log_w.shape)}"
            )
        return words, log_w, ~jnp.isfinite(log_w)

    def average(words: jax.Array, weights: jax.Array) -> jax.Array:
        ones = multispin.total_weight(words, weights)
        return jnp.stack([jnp.sum(weights) - ones, ones], axis=-1)

    return stream(key, draw, average, num_proposals, num_words * multispin.WIDTH, mesh)
