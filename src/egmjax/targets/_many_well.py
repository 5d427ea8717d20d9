"""Independent double wells, each beside a Gaussian coordinate: many modes of unequal and known weights.

    E(x) = sum_i u(x_{2i}) + x_{2i+1}^2 / 2,     u(a) = a^4 - 6 a^2 - a / 2
    log Z = n (log int exp(-u) + log(2 pi) / 2),   P(a > 0) = int_0^inf exp(-u) / int exp(-u) = .844

`n = 16` is the 32-dimensional benchmark of FAB (Midgley et al., 2023) with `2^16` modes: log Z 164.6957.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import binom, chi2

from .._pytree import frozen_pytree, static
from ..states import Real
from ._base import Target
from ._host import host_generator
from ._laws import quantile_law

__all__ = ["ManyWell"]

DEPTH = 45.0  # wells are cut off where the density is exp(-45) of its maximum: 3e-20
CELLS = 4096


class _Well(NamedTuple):
    """One well on the host: integral and moments, and nodes between which `u` is monotone."""

    log_z: float
    mean: float
    variance: float
    right: float
    nodes: np.ndarray


@frozen_pytree
class ManyWell(Target):
    """States `x: float [2 num_wells]`, wells at the even indices, Gaussian coordinates at the odd ones.

    `num_wells` is static. The coefficients of a well `quartic a^4 + quadratic a^2 + linear a`, `quartic > 0`, are
    leaves; exact knowledge needs them concrete and is by quadrature in one dimension. Raises `ValueError` for
    `num_wells < 1`.
    """

    num_wells: int = static(default=16)
    linear: float | jax.Array = -0.5
    quadratic: float | jax.Array = -6.0
    quartic: float | jax.Array = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.num_wells, int) or self.num_wells < 1:
            raise ValueError(f"num_wells: expected an integer of at least 1, got {self.num_wells!r}")

    @property
    def space(self) -> Real:
        """`Real((2 num_wells,))`."""
        return Real((2 * self.num_wells,))

    def energy(self, x: jax.Array) -> jax.Array:
        """`E(x)`, a scalar."""
        a, y = x[0::2], x[1::2]
        square = jnp.square(a)
        linear, quadratic, quartic = (
            jnp.asarray(c, x.dtype) for c in (self.linear, self.quadratic, self.quartic)
        )
        return jnp.sum(square * (quartic * square + quadratic) + linear * a + 0.5 * jnp.square(y))

    @property
    def log_z(self) -> float:
        """By quadrature, to rounding."""
        return self.num_wells * (self._well.log_z + 0.5 * math.log(2 * math.pi))

    @property
    def mean_energy(self) -> float:
        """By quadrature, to rounding."""
        return self.num_wells * (self._well.mean + 0.5)

    @property
    def energy_std(self) -> float:
        """By quadrature, to rounding."""
        return math.sqrt(self.num_wells * (self._well.variance + 0.5))

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Independent exact draws `[num_samples, 2 num_wells]`, on the host.

        Wells by rejection from a density that is constant between nodes, accepting all but some .1 percent.
        """
        rng, shape = host_generator(key), (num_samples, self.num_wells)
        x = np.empty((num_samples, 2 * self.num_wells))
        x[:, 0::2] = _draw(rng, self._well.nodes, self._u, num_samples * self.num_wells).reshape(shape)
        x[:, 1::2] = rng.standard_normal(shape)
        return jnp.asarray(x, float)

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """`right_wells`: the fraction of wells with `a > 0`. `gaussian_chi_square`: `sum_i x_{2i+1}^2`."""
        return {
            "right_wells": lambda x: jnp.mean(self.right(x), dtype=x.dtype),
            "gaussian_chi_square": lambda x: jnp.sum(jnp.square(x[1::2])),
        }

    def right_wells_law(self) -> tuple[np.ndarray, np.ndarray]:
        """`Binomial(num_wells, P(a > 0)) / num_wells`."""
        return np.arange(self.num_wells + 1) / self.num_wells, self.mode_weights

    def gaussian_chi_square_law(self) -> tuple[np.ndarray, np.ndarray]:
        """The chi-square law of `num_wells` degrees of freedom, by its quantiles."""
        return quantile_law(lambda q: chi2.ppf(q, self.num_wells))

    def right(self, x: jax.Array) -> jax.Array:
        """Which wells are on the right, `a > 0`: booleans `[num_wells]`, each with `right_probability`."""
        return x[0::2] > 0

    @property
    def right_probability(self) -> float:
        """`P(a > 0)` of one well, exact."""
        return self._well.right

    @property
    def mode_weights(self) -> np.ndarray:
        """Exact probabilities `[num_wells + 1]` of the number of wells on the right, float64."""
        return binom.pmf(np.arange(self.num_wells + 1), self.num_wells, self.right_probability)

    def mode_index(self, x: jax.Array) -> jax.Array:
        """The number of wells on the right: the `2^num_wells` modes by classes."""
        return jnp.sum(self.right(x), dtype=jnp.int32)

    def _u(self, a: np.ndarray) -> np.ndarray:
        return np.polyval(self._coefficients, a)

    @property
    def _coefficients(self) -> np.ndarray:
        return np.array([float(self.quartic), 0.0, float(self.quadratic), float(self.linear), 0.0])

    @property
    def _well(self) -> _Well:
        """The trapezoid rule on equal nodes: to rounding, for a smooth density that vanishes at the ends."""
        turning = np.real(np.roots(np.polyder(self._coefficients)))  # more than the real ones do no harm
        lowest = np.min(self._u(turning))
        ends = np.roots(np.polysub(self._coefficients, [lowest + DEPTH]))
        ends = np.real(ends[np.abs(np.imag(ends)) < 1e-9])
        low, high = ends.min(), ends.max()
        nodes = np.linspace(low, high, CELLS + 1)
        energies = self._u(nodes)
        mass = np.exp(lowest - energies)
        probs = mass / mass.sum()
        mean = float(probs @ energies)

        # Gauss-Legendre on either side, which allows for a cut at zero
        left, right = (
            _integral(lambda a: np.exp(lowest - self._u(a)), bound(low, 0.0), bound(high, 0.0))
            for bound in (min, max)
        )
        return _Well(
            log_z=float(np.log(mass.sum() * (nodes[1] - nodes[0])) - lowest),
            mean=mean,
            variance=float(probs @ (energies - mean) ** 2),
            right=right / (left + right),
            nodes=np.union1d(nodes, turning),
        )


def _integral(fn: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float:
    nodes, weights = np.polynomial.legendre.leggauss(200)
    half = 0.5 * (high - low)
    return float(half * weights @ fn(low + half * (nodes + 1)))


def _draw(
    rng: np.random.Generator, nodes: np.ndarray, u: Callable[[np.ndarray], np.ndarray], num: int
) -> np.ndarray:
    """`num` draws from `exp(-u)` between the outer nodes, where `u` is monotone in every cell.

    Cells in proportion to the larger density at their ends, a uniform place in the cell, accepted in proportion.
    """
    lowest = np.minimum(u(nodes[:-1]), u(nodes[1:]))
    width = np.diff(nodes)
    mass = width * np.exp(lowest.min() - lowest)
    cumulative = np.cumsum(mass) / mass.sum()
    kept = np.empty(0)
    while kept.size < num:
        more = num - kept.size + 64
        cell = np.minimum(np.searchsorted(cumulative, rng.random(more), side="right"), width.size - 1)
        place = nodes[cell] + width[cell] * rng.random(more)
        accepted = rng.random(more) <= np.exp(lowest[cell] - u(place))
        kept = np.concatenate([kept, place[accepted]])
    return kept[:num]
