"""Grids of noise levels and which of them are compared with each other.

A grid holds times in `(0, 1)` of the path's clock, increasing: its first level is the noisiest. The posterior
of the level given a state in `d` dimensions has a standard deviation of about `1 / sqrt(2 d)` in `log sigma`,
so neighbours should be no further than twice that apart: `log(noise_max / noise_min) sqrt(d / 2)` levels or
more.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..paths import GaussianPath

PickFn = Callable[[jax.Array], jax.Array]  # key -> indices of distinct levels, int32 [k]


def uniform_levels(num_levels: int, first: float = 1e-3, last: float = 1.0 - 1e-3) -> np.ndarray:
    """`num_levels` times from `first` to `last`, equally spaced, float64. Raises `ValueError` below two
    levels and unless `0 <= first < last < 1`."""
    _check_number(num_levels)
    if not 0 <= first < last < 1:
        raise ValueError(f"first: needs 0 <= first < last < 1, got {first} and {last}")
    return np.linspace(first, last, num_levels)


def log_snr_levels(path: GaussianPath, num_levels: int, noise_min: float, noise_max: float) -> np.ndarray:
    """Times at which `sigma_t / alpha_t` falls geometrically from `noise_max` to `noise_min`: uniform in
    log-SNR.

    Noise in the units of the data. Found by bisection on the host, to the precision of the path's arithmetic.
    Raises `ValueError` below two levels, unless `0 < noise_min < noise_max`, and where the path never has
    that much noise.
    """
    _check_number(num_levels)
    if not 0 < noise_min < noise_max:
        raise ValueError(f"noise_min: needs 0 < noise_min < noise_max, got {noise_min} and {noise_max}")
    wanted = np.geomspace(noise_max, noise_min, num_levels)

    def noise(t: np.ndarray) -> np.ndarray:
        alpha, sigma = (np.asarray(a, np.float64) for a in path.coefficients(jnp.asarray(t)))
        alpha = np.broadcast_to(alpha, t.shape)
        return np.divide(sigma, alpha, out=np.full(t.shape, np.inf), where=alpha > 0)

    if noise(np.zeros(1))[0] < noise_max * (1.0 - 1e-5):
        raise ValueError(f"noise_max: the path has at most {noise(np.zeros(1))[0]:g}, got {noise_max}")
    low, high = np.zeros(num_levels), np.ones(num_levels)
    for _ in range(45):
        middle = 0.5 * (low + high)
        louder = noise(middle) > wanted
        low, high = np.where(louder, middle, low), np.where(louder, high, middle)
    return 0.5 * (low + high)


def random_levels(num_levels: int, num_picked: int = 2) -> PickFn:
    """`num_picked` distinct levels, every subset equally likely; 2 are uniform pairs, `num_levels` are all of
    them.

    Raises `ValueError` unless `2 <= num_picked <= num_levels`.
    """
    if not 2 <= num_picked <= num_levels:
        raise ValueError(
            f"num_picked: from 2 to the {num_levels} levels (classes to tell apart), got {num_picked}"
        )
    everything = jnp.arange(num_levels, dtype=jnp.int32)
    if num_picked == num_levels:
        return lambda key: everything
    return lambda key: jax.random.choice(key, everything, (num_picked,), replace=False)


def local_pairs(num_levels: int, max_gap: int = 1) -> PickFn:
    """Two levels at most `max_gap` apart, every such pair equally likely; consecutive ones for 1.

    Better than uniform pairs in high dimension, where distant levels are told apart at a glance; but errors
    add up along the chain, so mix in long pairs. Raises `ValueError` unless `1 <= max_gap < num_levels`.
    """
    if not 1 <= max_gap < num_levels:
        raise ValueError(f"max_gap: from 1 to {num_levels - 1}, got {max_gap}")
    gaps = range(1, max_gap + 1)
    pairs = jnp.asarray([(i, i + gap) for gap in gaps for i in range(num_levels - gap)], dtype=jnp.int32)
    return lambda key: pairs[jax.random.randint(key, (), 0, len(pairs))]


def mixed_pick(picks: tuple[PickFn, PickFn], share: float) -> PickFn:
    """The second of two picks with probability `share`, else the first; both pick equally many levels.

    Raises `ValueError` unless `0 <= share <= 1`.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: a probability, got {share}")

    def pick(key: jax.Array) -> jax.Array:
        key_which, key_levels = jax.random.split(key)
        second = jax.random.bernoulli(key_which, share)
        return jnp.where(second, picks[1](key_levels), picks[0](key_levels))

    return pick


def _check_number(num_levels: int) -> None:
    if num_levels < 2:
        raise ValueError(f"num_levels: at least 2, got {num_levels}")
