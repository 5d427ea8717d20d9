"""The symmetries of a square lattice on a torus."""

from __future__ import annotations

import numpy as np

__all__ = ["space_group"]


def space_group(length: int) -> np.ndarray:
    """Permutations of the sites of the `L x L` torus, row by row, that keep neighbours neighbours: int `[8 L^2, L^2]`.

    All translations of the eight rotations and reflections, the identity first; different for `L >= 3`.
    """
    sites = np.arange(length**2).reshape(length, length)
    turned = [np.rot90(grid, turns) for grid in (sites, sites.T) for turns in range(4)]
    shifts = [(down, right) for down in range(length) for right in range(length)]
    return np.stack([np.roll(grid, shift, (0, 1)).ravel() for grid in turned for shift in shifts])
