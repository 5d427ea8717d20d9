"""From one state and a time to one feature vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..states import Categorical, Real, Space


def state_features(space: Space, x: Any, scale: float = 1.0) -> jax.Array:
    """Real components divided by `scale`, categorical ones one-hot with the mask as last symbol; concatenated."""
    match space:
        case Real():
            return jnp.ravel(x) / scale
        case Categorical(_, num_states):
            return jnp.ravel(jax.nn.one_hot(x, num_states + 1))
    return jnp.concatenate([state_features(part, xi, scale) for part, xi in zip(space, x)])


def real_features(space: Space, x: Any, scale: float = 1.0) -> jax.Array:
    """Real components divided by `scale`, concatenated; of length zero where there are none."""
    match space:
        case Real():
            return jnp.ravel(x) / scale
        case Categorical():
            return jnp.zeros(0)
    return jnp.concatenate([real_features(part, xi, scale) for part, xi in zip(space, x)])


def random_frequencies(bandwidth: float) -> Callable[..., jax.Array]:
    """An initialiser to `[num, d]`: random directions of lengths `bandwidth k / num`, `k = 1 .. num`."""

    def init(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        direction = jax.random.normal(key, shape)
        direction /= jnp.linalg.norm(direction, axis=1, keepdims=True)
        return bandwidth * jnp.linspace(0.0, 1.0, shape[0] + 1)[1:, None] * direction

    return init


def time_features(t: jax.Array, num_features: int = 16) -> jax.Array:
    """`sin, cos` of `pi t 2^(n/2)`, `[num_features]`: smooth, and fine enough for what happens near `t=1`."""
    frequencies = jnp.pi * 2.0 ** (jnp.arange(num_features // 2) / 2.0)
    angles = jnp.asarray(t, dtype=float) * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])
