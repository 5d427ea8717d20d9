"""Multi-spin coding: 32 states of two-valued sites in each word, so that one bit operation serves them all.

    words uint32 [sites, n]:    bit j of words[i, k] is site i of state (j, k);    what belongs to states is [32, n]

The energy of a target in this form (`Target.multispin_energy`) counts unequal neighbours by exclusive or; with it
`estimators.multispin_snis` costs less than the energies one by one. The words of random bits are random states.
After Zorn, Herrmann and Rebbi, Comput. Phys. Commun. 23 (1981) 337. All functions take one stack of words, map over
further ones with `jax.vmap`, and are elementwise in `n`, along which they vectorise: at least 8, better 32.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp

__all__ = ["WIDTH", "count", "pack", "total_weight", "unpack"]

WIDTH = 32  # states in a word
FIELDS = 8  # bits in a field of a word while counting; a word has four
LONGEST = 2**FIELDS - 1  # what a field can count


def pack(x: jax.Array) -> jax.Array:
    """States `[num, sites]` of zeros and ones as words `[sites, n]`, `n = ceil(num / 32)`.

    State `m` is `(m // n, m % n)`; zeros fill the last words up.
    """
    num_words = -(-x.shape[0] // WIDTH)
    padded = jnp.pad(x.astype(jnp.uint32), ((0, num_words * WIDTH - x.shape[0]), (0, 0)))
    lanes = padded.reshape(WIDTH, num_words, -1) << jnp.arange(WIDTH, dtype=jnp.uint32)[:, None, None]
    return jnp.sum(lanes, axis=0, dtype=jnp.uint32).T


def unpack(words: jax.Array) -> jax.Array:
    """The states of words `[sites, n]`, int32 `[32 n, sites]`, in the order of `pack`."""
    lanes = jnp.stack([_bit(words, j) for j in range(WIDTH)])
    return jnp.moveaxis(lanes, 1, -1).reshape(-1, words.shape[0]).astype(jnp.int32)


def count(planes: jax.Array) -> jax.Array:
    """The number of ones of each state among the words `planes [rows, columns, n]`, int32 `[32, n]`.

    Four states are counted in each addition, in fields of 8 bits of a word, along `rows`; then they are taken apart
    and summed along `columns`: about `40 rows + 32 columns` operations a column and a row. The sums are written out,
    for the compiler vectorises no others, so compilation grows with both; a square is best.
    """
    lowest_bits = jnp.uint32(0x01010101)
    within = jnp.arange(FIELDS, dtype=jnp.uint32)[:, None, None]
    between = jnp.arange(0, WIDTH, FIELDS, dtype=jnp.uint32)[:, None, None]
    counts = []
    for start in range(0, planes.shape[0], LONGEST):
        rows = planes[start : start + LONGEST]
        fields = _sum((row[None] >> within) & lowest_bits for row in rows)
        lanes = _sum((fields[None, :, column] >> between) & LONGEST for column in range(planes.shape[1]))
        counts.append(lanes.reshape(WIDTH, -1))
    return _sum(counts).astype(jnp.int32)


def total_weight(words: jax.Array, weights: jax.Array) -> jax.Array:
    """`sum_states weights[state] site_i(state)` for every site, `[sites]`; words `[sites, n]`, weights `[32, n]`."""
    partial = _sum(_bit(words, j).astype(weights.dtype) * weights[j][None] for j in range(WIDTH))
    return jnp.sum(partial, axis=1)


def _bit(words: jax.Array, j: int) -> jax.Array:
    return (words >> j) & 1


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)
