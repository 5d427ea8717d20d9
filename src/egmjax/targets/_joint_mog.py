"""Independent pairs of a real number and the sign of its mode: the simplest strongly coupled mixed target.

    E(x, d) = sum_i (x_i - mu(d_i))^2 / (2 sigma^2),     mu(1) = +1,  mu(0) = -1
    d uniform on {0, 1}^n,   x_i | d_i ~ N(mu(d_i), sigma^2),   E ~ chi^2_n / 2
    log Z = n (log 2 + 1/2 log(2 pi sigma^2))

The mixed benchmark of the energy-based generator matching paper (Woo et al., 2025) with `n = 10` and `sigma =
.3`: `2^10` modes, log Z 4.0811.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import binom, chi2, norm

from .._pytree import frozen_pytree, static
from ..states import Categorical, Real
from ._base import Target
from ._laws import quantile_law

__all__ = ["JointMoG"]

State = tuple[jax.Array, jax.Array]


@frozen_pytree
class JointMoG(Target):
    """A state is `(x, d)`, `x: float [num_pairs]` and `d: int32 [num_pairs]` in {0, 1}.

    `num_pairs` is static, the positive scalar `scale` (`sigma`) a leaf; exact knowledge needs it concrete.
    Raises `ValueError` for `num_pairs < 1`.
    """

    num_pairs: int = static(default=10)
    scale: float | jax.Array = 0.3

    def __post_init__(self) -> None:
        if not isinstance(self.num_pairs, int) or self.num_pairs < 1:
            raise ValueError(f"num_pairs: expected an integer of at least 1, got {self.num_pairs!r}")

    @property
    def space(self) -> tuple[Real, Categorical]:
        """`(Real((num_pairs,)), Categorical(num_pairs, 2))`."""
        return Real((self.num_pairs,)), Categorical(self.num_pairs, 2)

    def energy(self, x: State) -> jax.Array:
        """`E(x, d)`, a scalar."""
        return 0.5 * self._residual_chi_square(x)

    def site_energies(self, x: State) -> jax.Array:
        """`(x_i - mu(s))^2 / (2 sigma^2)`, `[num_pairs, 2]`: `E` with `d_i = s`, without the other pairs."""
        real, _ = x
        signs = jnp.asarray([[-1.0, 1.0]], real.dtype)
        return 0.5 * jnp.square((real[:, None] - signs) / jnp.asarray(self.scale, real.dtype))

    @property
    def log_z(self) -> float:
        """Exact."""
        return self.num_pairs * (math.log(2) + 0.5 * math.log(2 * math.pi * float(self.scale) ** 2))

    @property
    def mean_energy(self) -> float:
        """Exact: `n / 2`."""
        return 0.5 * self.num_pairs

    @property
    def energy_std(self) -> float:
        """Exact: `sqrt(n / 2)`."""
        return math.sqrt(0.5 * self.num_pairs)

    def energy_law(self) -> tuple[np.ndarray, np.ndarray]:
        """The law of `energy`, half a chi-square of `n` degrees of freedom, by its quantiles."""
        return quantile_law(lambda u: 0.5 * chi2.ppf(u, self.num_pairs))

    def residual_chi_square_law(self) -> tuple[np.ndarray, np.ndarray]:
        """The chi-square law of `n` degrees of freedom, by its quantiles."""
        return quantile_law(lambda u: chi2.ppf(u, self.num_pairs))

    def sign_agreement_law(self) -> tuple[np.ndarray, np.ndarray]:
        """The law of `sign_agreement`: `Binomial(n, Phi(1 / sigma)) / n`."""
        count = np.arange(self.num_pairs + 1)
        return count / self.num_pairs, binom.pmf(count, self.num_pairs, norm.cdf(1 / float(self.scale)))

    def sample(self, key: jax.Array, num_samples: int) -> State:
        """Independent exact draws `(float [num_samples, n], int32 [num_samples, n])`; traceable."""
        key_symbol, key_noise = jax.random.split(key)
        shape = (num_samples, self.num_pairs)
        d = jax.random.bernoulli(key_symbol, 0.5, shape).astype(jnp.int32)
        noise = jax.random.normal(key_noise, shape)
        return _sign(d, noise.dtype) + jnp.asarray(self.scale, noise.dtype) * noise, d

    @property
    def observables(self) -> Mapping[str, Callable[[State], jax.Array]]:
        """`sign_agreement`: the fraction of pairs with `sign(x_i) = mu(d_i)`, to which a distance between the
        real parts alone is blind. `residual_chi_square`: `sum_i (x_i - mu(d_i))^2 / sigma^2`, twice the
        energy.
        """
        return {"sign_agreement": _sign_agreement, "residual_chi_square": self._residual_chi_square}

    @property
    def mode_weights(self) -> np.ndarray:
        """Exact probabilities `[n + 1]` of the number of ones in `d`, `Binomial(n, 1/2)`, float64."""
        return binom.pmf(np.arange(self.num_pairs + 1), self.num_pairs, 0.5)

    def mode_index(self, x: State) -> jax.Array:
        """The number of ones in `d`: the `2^n` modes by classes."""
        return jnp.sum(x[1], dtype=jnp.int32)

    def _residual_chi_square(self, x: State) -> jax.Array:
        real, d = x
        residual = (real - _sign(d, real.dtype)) / jnp.asarray(self.scale, real.dtype)
        return jnp.sum(jnp.square(residual))


def _sign(d: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return (2 * d - 1).astype(dtype)


def _sign_agreement(x: State) -> jax.Array:
    real, d = x
    return jnp.mean((real > 0) == (d == 1), dtype=real.dtype)
