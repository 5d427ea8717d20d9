"""Mixtures that noise leaves in their own kind: laws all of whose marginals along a Gaussian path are known."""

from __future__ import annotations

from typing import Any, Self

import jax
import numpy as np

from .._pytree import frozen_pytree
from ._base import Target


@frozen_pytree
class MixtureTarget(Target):
    """A mixture of components of one kind, closed under Gaussian noise.

    What an energy learned from its samples is held against: exact draws of each component and the exact
    density, of the data and of every noised marginal (`ebm.noised_mixture`).
    """

    @property
    def component_weights(self) -> np.ndarray:
        """Probabilities `[k]` of the components, float64."""
        raise NotImplementedError

    def component(self, index: int | jax.Array) -> Self:
        """The mixture of one component, with the mass it has in this one; traceable in `index`."""
        raise NotImplementedError

    def noised(self, alpha: Any, sigma: Any) -> Self:
        """The law of `alpha x + sigma eps`, `eps ~ N(0, I)`: as many components of the same mass each.

        Its `log_z` is that of `self`. Traceable; exact values of the result are for concrete numbers only.
        """
        raise NotImplementedError
