"""The Gaussian-Bernoulli restricted Boltzmann machine: a mixed target with an exact reference.

E(v, h) = |v - a|^2 / (2 sigma^2) - b . h - v . W h / sigma^2
p(h)  ~  exp(l(h)),   l(h) = b . h + (|a + W h|^2 - |a|^2) / (2 sigma^2),   v | h ~ N(a + W h, sigma^2 I)
log Z = (d/2) log(2 pi sigma^2) + logsumexp_h l(h)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from .._pytree import frozen_pytree
from ..states import Categorical, Real
from ._base import Target
from ._enumeration import enumerate_states

__all__ = ["GaussianBernoulliRBM"]

State = tuple[jax.Array, jax.Array]


@frozen_pytree
class GaussianBernoulliRBM(Target):
    """Visible `v: [d]` real, hidden `h: [m]` in {0, 1}; a state is the tuple `(v, h)`.

    Fields: `weights [d, m]`, `visible_bias [d]`, `hidden_bias [m]`, and the positive scalar `scale`
    (`sigma`), all leaves. Exact knowledge sums over the `2^m` hidden states on the host in float64; `m <=
    20`.
    """

    weights: jax.Array | np.ndarray
    visible_bias: jax.Array | np.ndarray
    hidden_bias: jax.Array | np.ndarray
    scale: float | jax.Array = 1.0

    @classmethod
    def six_modes(cls) -> GaussianBernoulliRBM:
        """Two visible, three hidden units, six modes of weight .09 to .24: log Z 4.26997, mean energy .3051.

        `W = [[5, 0, -5], [0, 5, 0]]`, `a = 0`, `b = -12`, `sigma = 1`, the released setting of the
        energy-based generator matching paper.
        """
        return cls(np.array([[5.0, 0.0, -5.0], [0.0, 5.0, 0.0]]), np.zeros(2), np.full(3, -12.0))

    @property
    def space(self) -> tuple[Real, Categorical]:
        """`(Real((d,)), Categorical(m, 2))`."""
        num_visible, num_hidden = np.shape(self.weights)
        return Real((num_visible,)), Categorical(num_hidden, 2)

    def energy(self, x: State) -> jax.Array:
        """`E(v, h)` for `x = (v: float [d], h: int [m])`, a scalar."""
        v, h = x
        hidden = h.astype(v.dtype)
        pull = jnp.dot(jnp.asarray(self.weights, v.dtype), hidden, precision="highest")
        precision = 1.0 / jnp.square(jnp.asarray(self.scale, v.dtype))
        visible = 0.5 * jnp.sum(jnp.square(v - jnp.asarray(self.visible_bias, v.dtype))) - jnp.sum(v * pull)
        return precision * visible - jnp.sum(jnp.asarray(self.hidden_bias, v.dtype) * hidden)

    @property
    def log_z(self) -> float:
        """Exact."""
        num_visible, _ = np.shape(self.weights)
        return float(
            0.5 * num_visible * np.log(2 * np.pi * float(self.scale) ** 2) + logsumexp(self._log_mass)
        )

    @property
    def mean_energy(self) -> float:
        """Exact: `d/2 - E l(h)`."""
        return float(0.5 * np.shape(self.weights)[0] - self.mode_weights @ self._log_mass)

    @property
    def energy_std(self) -> float:
        """Exact: the variance is `d/2 + Var l(h)`."""
        log_mass, probs = self._log_mass, self.mode_weights
        variance = probs @ (log_mass - probs @ log_mass) ** 2
        return float(np.sqrt(0.5 * np.shape(self.weights)[0] + variance))

    def sample(self, key: jax.Array, num_samples: int) -> State:
        """Independent exact draws `(v: float [num_samples, d], h: int32 [num_samples, m])`.

        `h` from its marginal, then `v` given `h`. `num_samples` is static and the fields concrete under
        `jit`.
        """
        key_hidden, key_visible = jax.random.split(key)
        num_visible, num_hidden = np.shape(self.weights)
        table = jnp.asarray(enumerate_states(num_hidden, 2))
        index = jax.random.categorical(key_hidden, jnp.asarray(self._log_mass, float), shape=(num_samples,))
        h = table[index]
        centres = jnp.asarray(self._centres, float)[index]
        noise = jax.random.normal(key_visible, (num_samples, num_visible))
        return centres + jnp.asarray(self.scale, float) * noise, h

    @property
    def observables(self) -> Mapping[str, Callable[[State], jax.Array]]:
        """The visible coordinates `v0`, `v1`, ..."""
        return {f"v{i}": functools.partial(_visible, i) for i in range(np.shape(self.weights)[0])}

    @property
    def mode_weights(self) -> np.ndarray:
        """The exact probabilities `[2^m]` of the hidden patterns, float64."""
        log_mass = self._log_mass
        return np.exp(log_mass - logsumexp(log_mass))

    def mode_index(self, x: State) -> jax.Array:
        """The hidden pattern read as a binary number, first unit first: `h = 101` is 5."""
        _, h = x
        return jnp.sum(h * jnp.asarray(2 ** np.arange(h.shape[0] - 1, -1, -1), h.dtype))

    @property
    def _centres(self) -> np.ndarray:
        """`a + W h` for every hidden pattern, float64 `[2^m, d]`."""
        weights = np.asarray(self.weights, np.float64)
        patterns = enumerate_states(weights.shape[1], 2)
        return np.asarray(self.visible_bias, np.float64) + patterns @ weights.T

    @property
    def _log_mass(self) -> np.ndarray:
        """`l(h)` for every hidden pattern, float64 `[2^m]`."""
        bias = np.asarray(self.hidden_bias, np.float64)
        square = np.sum(self._centres**2, axis=1) - np.sum(np.asarray(self.visible_bias, np.float64) ** 2)
        return enumerate_states(bias.shape[0], 2) @ bias + square / (2 * float(self.scale) ** 2)


def _visible(i: int, x: State) -> jax.Array:
    return x[0][i]
