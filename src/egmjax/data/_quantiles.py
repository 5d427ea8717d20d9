"""A column of numbers as standard normal scores, atoms included.

    z = Phi^{-1}(u),     u = F(v)                       between distinct values, F linear
                         u ~ Uniform(F(v-), F(v))       at a value that occurs more than once

The second line is the distributional transform (Ruschendorf 2009): scores are normal under the empirical law even for
counts, heavy tails and zeros by the thousand, and every `u` of an atom is decoded to that atom.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

INSIDE = 0.005  # share of an atom's interval left free at either end, so that float32 scores stay within it


class Quantiles(NamedTuple):
    """Distinct values `[m]`, increasing, and the levels `first, last [m]` of each: equal unless it is an atom."""

    value: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def encode(self, value: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Scores `[n]`, float64: uniform within an atom's interval, its middle without `rng`.

        Values that were not seen are interpolated; those beyond the range seen count as its ends.
        """
        value = np.clip(np.asarray(value, np.float64), self.value[0], self.value[-1])
        place = np.searchsorted(self.value, value)
        share = 0.5 if rng is None else INSIDE + (1.0 - 2.0 * INSIDE) * rng.random(value.shape)
        seen = self.first[place] + share * (self.last[place] - self.first[place])
        between = np.interp(value, *self._knots[::-1])
        return ndtri(np.where(self.value[place] == value, seen, between))

    def decode(self, score: np.ndarray) -> np.ndarray:
        """Values `[n]` of scores: the inverse of `encode`, within the range seen."""
        return np.interp(ndtr(np.asarray(score, np.float64)), *self._knots)

    @property
    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        """Levels and values of the piecewise linear quantile function, `[2 m]` each."""
        return np.stack([self.first, self.last], axis=1).ravel(), np.repeat(self.value, 2)


def fit_quantiles(value: np.ndarray) -> Quantiles:
    """The empirical quantiles of `value [n]`, finite numbers; costs a sort."""
    distinct, counts = np.unique(np.asarray(value, np.float64), return_counts=True)
    last = np.cumsum(counts) / counts.sum()
    first = np.concatenate([[0.0], last[:-1]])
    middle = 0.5 * (first + last)
    return Quantiles(distinct, np.where(counts > 1, first, middle), np.where(counts > 1, last, middle))
