"""What a target is: an energy, its state space, and whatever is known about it exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from .._pytree import frozen_pytree
from ..states import Space


@frozen_pytree
class Target:
    """A density proportional to `exp(-energy(x))` on a state space, with its exact knowledge.

    A subclass is a frozen pytree and overrides what it knows; everything left alone is honestly unknown
    (`None`). Exact values are float64 numbers computed on the host, so they do not depend on
    `jax_enable_x64`.
    """

    @property
    def space(self) -> Space:
        """The state space."""
        raise NotImplementedError

    def energy(self, x: Any) -> jax.Array:
        """`E(x)`, a scalar, for one state."""
        raise NotImplementedError

    @property
    def log_z(self) -> float | None:
        """Exact `log Z`, `Z` the sum or integral of `exp(-energy)`; `None` where unknown."""
        return None

    @property
    def mean_energy(self) -> float | None:
        """Exact mean of `energy` under the target; `None` where unknown."""
        return None

    @property
    def energy_std(self) -> float | None:
        """Exact standard deviation of `energy` under the target; `None` where unknown."""
        return None

    def sample(self, key: jax.Array, num_samples: int) -> Any:
        """`num_samples` independent exact draws (leading axis), or `None` where no exact sampler is known."""
        return None

    @property
    def observables(self) -> Mapping[str, Callable[[Any], jax.Array]]:
        """Named scalar functions of one state worth comparing with the truth, besides the energy."""
        return {}

    @property
    def mode_weights(self) -> Any:
        """Exact probabilities `[num_modes]` of the cells of `mode_index`, float64; `None` where unknown."""
        return None

    def mode_index(self, x: Any) -> jax.Array:
        """The cell of the mode partition that `x` lies in, an integer scalar; see `mode_weights`."""
        raise NotImplementedError

    @property
    def symmetric_under_flip(self) -> bool:
        """Whether `energy` is unchanged when every two-valued site is flipped."""
        return False
