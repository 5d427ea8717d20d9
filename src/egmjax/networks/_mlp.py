"""A residual multilayer perceptron on any state space."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..states import Space
from ._features import random_frequencies, real_features, state_features, time_features
from ._heads import head_for


class ResidualMLP(nn.Module):
    """`apply(params, x, t)` for one state; `output_shape` is `process.prediction_shape()`, or `()` for a scalar.

    Blocks are `h + W silu(W' silu(h))`. `scale` divides real inputs: give the reference's. `use_time=False` drops `t`,
    which a masked denoiser does not depend on. Cost: `2 depth width^2` multiplications.

    `modulated=True` lets the time scale and shift the features inside every block (FiLM, Perez et al., 2018) and not
    only enter with the state: for energies, whose shape changes by orders of magnitude with the level. Costs `2 depth
    width^2` multiplications more.

    `num_frequencies` above zero adds as many sines and cosines of the real inputs, in random directions, of angular
    frequencies evenly up to `bandwidth` in units of `scale` at first, then learned (Fourier features, Tancik et al.,
    2020): for details much smaller than the extent of the states. Raises `ValueError` without real inputs. `dtype` is
    that of the products in the blocks; see `networks`.
    """

    space: Space
    output_shape: Any
    width: int = 128
    depth: int = 3
    scale: float = 1.0
    use_time: bool = True
    modulated: bool = False
    num_frequencies: int = 0
    bandwidth: float = 15.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Any, t: jax.Array) -> Any:
        inputs = [state_features(self.space, x, self.scale)]
        if self.num_frequencies > 0:
            real = real_features(self.space, x, self.scale)
            if real.size == 0:
                raise ValueError(f"num_frequencies: for real coordinates, and {self.space} has none")
            init = random_frequencies(self.bandwidth)
            frequencies = self.param("frequencies", init, (self.num_frequencies, real.size))
            angles = frequencies @ real
            inputs += [jnp.sin(angles), jnp.cos(angles)]
        if self.use_time:
            inputs.append(time_features(t))
        h = nn.Dense(self.width)(jnp.concatenate(inputs))
        clock = nn.silu(nn.Dense(self.width)(time_features(t))) if self.modulated else None
        for _ in range(self.depth):
            inner = nn.Dense(self.width, dtype=self.dtype)(nn.silu(h))
            if clock is not None:
                shift, gain = jnp.split(nn.Dense(2 * self.width, dtype=self.dtype)(clock), 2)
                inner = inner * (1.0 + gain) + shift
            h = h + nn.Dense(self.width, dtype=self.dtype)(nn.silu(inner))
        return head_for(self.output_shape)(nn.silu(h))
