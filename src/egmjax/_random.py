"""Random words for where they are the work: uniform proposals, a bit a spin."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def random_words(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform words, uint32 `shape`, with one axis at least: Threefry-2x32 of the counters `0, 1, ...` under `key`.

    The generator of `jax.random.bits` (Salmon et al., SC 2011), which keeps one of the two words of a block and on
    CPU passes over memory once a round. Here both are kept and the rounds are written out, for the compiler to leave
    in registers: three times faster there. Keys of other generators go to `jax.random.bits`.
    """
    if not _is_threefry(key):
        return jax.random.bits(key, shape, jnp.uint32)
    half = (*shape[:-1], -(-shape[-1] // 2))
    counters = jax.lax.iota(jnp.uint32, math.prod(half)).reshape(half)
    first, second = jax.random.key_data(key)
    blocks = threefry(first, second, jnp.zeros_like(counters), counters)
    return jnp.concatenate(blocks, axis=-1)[..., : shape[-1]]


def threefry(first: jax.Array, second: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Twenty rounds of Threefry-2x32 under the key `(first, second)`, for each pair of words of `x` and `y`."""
    schedule = (first, second, first ^ second ^ jnp.uint32(_PARITY))
    x, y = x + first, y + second
    for n in range(5):
        for rotation in _ROTATIONS[n % 2]:
            x = x + y
            y = ((y << rotation) | (y >> (32 - rotation))) ^ x
        x = x + schedule[(n + 1) % 3]
        y = y + schedule[(n + 2) % 3] + jnp.uint32(n + 1)
    return x, y


def _is_threefry(key: jax.Array) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and str(jax.random.key_impl(key)) == "threefry2x32"
