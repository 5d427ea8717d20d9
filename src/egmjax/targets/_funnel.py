"""Neal's funnel: a Gaussian whose logarithm of variance is itself Gaussian.

    x_0 ~ N(0, sigma^2),   x_i | x_0 ~ N(0, exp(x_0)) for i = 1 .. d-1   (exp(x_0) is a variance)
    E(x) = -log p(x),   log Z = 0
    E[E] = 1/2 log(2 pi e sigma^2) + (d-1)/2 log(2 pi e)
    Var[E] = d/2 + (d-1)^2 sigma^2 / 4

Source: Neal, Slice sampling, Annals of Statistics 31 (2003), section 8, with `d = 10`, `sigma = 3`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2, norm

from .._pytree import frozen_pytree, static
from ..states import Real
from ._base import Target
from ._laws import quantile_law

__all__ = ["Funnel"]

LOG_2_PI = math.log(2 * math.pi)


@frozen_pytree
class Funnel(Target):
    """Normalised density on `R^dim`; `dim` is static, the positive scalar `scale` (`sigma`) a leaf.

    Raises `ValueError` for `dim < 2`.
    """

    dim: int = static(default=2)
    scale: float | jax.Array = 3.0

    def __post_init__(self) -> None:
        if not isinstance(self.dim, int) or self.dim < 2:
            raise ValueError(f"dim: the funnel needs an integer of at least 2, got {self.dim!r}")

    @property
    def space(self) -> Real:
        """`Real((dim,))`."""
        return Real((self.dim,))

    def energy(self, x: jax.Array) -> jax.Array:
        """`-log p(x)` for `x: float [dim]`, a scalar; infinite where the float type overflows."""
        scale = jnp.asarray(self.scale, x.dtype)
        log_norm = 0.5 * (self.dim * LOG_2_PI + (self.dim - 1) * x[0]) + jnp.log(scale)
        return 0.5 * (jnp.square(x[0] / scale) + _residual_chi_square(x)) + log_norm

    @property
    def log_z(self) -> float:
        """Exact: zero."""
        return 0.0

    @property
    def mean_energy(self) -> float:
        """Exact."""
        return 0.5 * self.dim * (LOG_2_PI + 1) + math.log(float(self.scale))

    @property
    def energy_std(self) -> float:
        """Exact."""
        return math.sqrt(0.5 * self.dim + 0.25 * (self.dim - 1) ** 2 * float(self.scale) ** 2)

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Independent exact draws, float `[num_samples, dim]`; traceable, with `num_samples` static."""
        noise = jax.random.normal(key, (num_samples, self.dim))
        first = jnp.asarray(self.scale, noise.dtype) * noise[:, :1]
        return jnp.concatenate([first, jnp.exp(0.5 * first) * noise[:, 1:]], axis=1)

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """`x0`, and `residual_chi_square`: `sum_i x_i^2 exp(-x_0)`, chi-square of `dim - 1` degrees.

        The other coordinates have tails too heavy for their sample means to say anything.
        """
        return {"x0": lambda x: x[0], "residual_chi_square": _residual_chi_square}

    def x0_law(self) -> tuple[np.ndarray, np.ndarray]:
        """`N(0, sigma^2)`, by its quantiles."""
        return quantile_law(lambda u: norm.ppf(u, scale=float(self.scale)))

    def residual_chi_square_law(self) -> tuple[np.ndarray, np.ndarray]:
        """The chi-square law of `dim - 1` degrees of freedom, by its quantiles."""
        return quantile_law(lambda u: chi2.ppf(u, self.dim - 1))

    @property
    def mode_weights(self) -> np.ndarray:
        """Exact probabilities `[4]` of the cells of `mode_index`, float64: .159, .341, .341, .159."""
        return np.diff(norm.cdf([-np.inf, -1.0, 0.0, 1.0, np.inf]))

    def mode_index(self, x: jax.Array) -> jax.Array:
        """0 in the neck, `x_0 < -sigma`, then 1 up to 0, 2 up to `sigma`, and 3 in the mouth."""
        edges = jnp.asarray([-1.0, 0.0, 1.0], x.dtype) * jnp.asarray(self.scale, x.dtype)
        return jnp.sum(x[0] > edges, dtype=jnp.int32)


def _residual_chi_square(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x[1:] * jnp.exp(-0.5 * x[0])))  # the square last: exp(-x_0) overflows sooner
