"""Randomness for exact samplers that run on the host."""

from __future__ import annotations

import jax
import numpy as np

__all__ = ["host_generator"]


def host_generator(key: jax.Array) -> np.random.Generator:
    """A numpy generator seeded from the whole of a jax `key`, which must be concrete."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
