"""Heads: from a feature vector to what a process predicts.

All are zero at initialisation, so training starts at the reference.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax


class ArrayHead(nn.Module):
    """One array of shape `shape`, zero at initialisation."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        flat = nn.Dense(math.prod(self.shape), kernel_init=nn.initializers.zeros)(features)
        return flat.reshape(self.shape)


class ProductHead(nn.Module):
    """A tuple of arrays of the shapes of `process.prediction_shape()`, one linear head each."""

    shapes: tuple[Any, ...]

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[Any, ...]:
        return tuple(head_for(shape)(features) for shape in self.shapes)


class ScalarHead(nn.Module):
    """A scalar, e.g. a log-density relative to the reference; zero at initialisation."""

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        return ArrayHead(())(features)


def head_for(shape: Any) -> nn.Module:
    """The head for a prediction shape: a shape of integers, or a tuple of shapes for a product."""
    if shape and isinstance(shape[0], tuple):
        return ProductHead(shape)
    return ArrayHead(shape) if shape else ScalarHead()
