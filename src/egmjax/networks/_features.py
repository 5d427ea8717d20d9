"""From one state and a time to one feature vector."""

from __future__ import annotations

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


def time_features(t: jax.Array, num_features: int = 16) -> jax.Array:
    """`sin, cos` of `pi t 2^(n/2)`, `[num_features]`: smooth, and fine enough for what happens near `t=1`."""
    frequencies = jnp.pi * 2.0 ** (jnp.arange(num_features // 2) / 2.0)
    angles = jnp.asarray(t, dtype=float) * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])
