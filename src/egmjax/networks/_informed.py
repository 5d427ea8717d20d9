"""A network beside something that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from ._features import time_features


class InformedNet(nn.Module):
    """`base(x, t) + gain(t) known_fn(x, t)`, with a learned scalar `gain` that is zero at initialisation.

    `known_fn(x, t)` has the shape of `base`'s output, e.g. `processes.energy_residual` (the gradient of the energy in
    neural samplers, Zhang and Chen, Path integral sampler, 2022). Costs a call of each.
    """

    base: nn.Module
    known_fn: Callable[[Any, Any], jax.Array]
    width: int = 32

    @nn.compact
    def __call__(self, x: Any, t: jax.Array) -> jax.Array:
        hidden = nn.silu(nn.Dense(self.width)(time_features(t)))
        gain = nn.Dense(1, kernel_init=nn.initializers.zeros)(hidden)[0]
        return self.base(x, t) + gain * self.known_fn(x, t)
