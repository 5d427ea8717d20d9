"""What is known exactly of a pairwise model on a torus, where the transfer matrix is in reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from . import _torus_transfer as transfer
from ._base import Target
from ._host import host_generator

__all__ = ["TorusTarget"]

T = TypeVar("T")


@frozen_pytree
class TorusTarget(Target):
    """Moments of the energy and independent draws of the model `_torus`, on the host in float64.

    All are `None` where the lattice is too wide, or so cold that weights leave the range of float64.
    """

    @property
    def log_z(self) -> float | None:
        """Exact, by the transfer matrix; `None` out of its reach. Cached, as the other moments are."""
        moments = self._solve(transfer.moments)
        return None if moments is None else moments[0]

    @property
    def mean_energy(self) -> float | None:
        """Exact mean of `energy`, in units of kT; `None` out of reach."""
        moments = self._solve(transfer.moments)
        return None if moments is None else moments[1]

    @property
    def energy_std(self) -> float | None:
        """Exact standard deviation of `energy`, in units of kT; `None` out of reach.

        Its square has the rounding error of the mean square, 1e-16 of it.
        """
        moments = self._solve(transfer.moments)
        return None if moments is None else moments[2]

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array | None:
        """Independent exact draws, int32 `[num_samples, R * C]`, seeded from `key`; `None` out of reach."""
        rng = host_generator(key)
        draws = self._solve(lambda torus: transfer.sample(rng, torus, num_samples))
        return None if draws is None else jnp.asarray(draws.reshape(num_samples, -1))

    @property
    def _torus(self) -> transfer.Torus:
        """The model, of concrete leaves."""
        raise NotImplementedError

    @property
    def _is_solved(self) -> bool:
        """Whether the transfer matrix is affordable."""
        raise NotImplementedError

    def _solve(self, solve: Callable[[transfer.Torus], T]) -> T | None:
        if not self._is_solved:
            return None
        try:
            return solve(self._torus)
        except transfer.OutOfReachError:
            return None
