"""The contract of a path: a noising chain, seen from any conditioning time `r`.

    p_{t|r}(x_t | x_r),  0 <= t < r <= 1        t=0 prior, t=1 data

A path also has a *reference density* on the data space (flat on discrete spaces, a Gaussian on R^d). Noising
the reference gives `log_reference(x, t)`, and the posterior of `x_r` given `x_t` under the reference is the
proposal `propose`. Networks learn the log-density relative to it,

    psi(x, t) = log ptilde_t(x) - log_reference(x, t),      psi(x, 1) = -E(x) - log_reference(x, 1)

so that with the reference posterior as proposal the importance weights are simply `exp(psi(x_r, r))`:
`p_{t|r}(x_t | x_r) reference_r(x_r) = reference_t(x_t) propose(x_r | x_t)`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree
from ..states import Space

Scalar = float | jax.Array


@frozen_pytree
class Path:
    """One state at a time; `t`, `s`, `r` are scalars with `t < s < r <= 1`; batch with `jax.vmap`."""

    @property
    def space(self) -> Space:
        raise NotImplementedError

    @property
    def is_markov(self) -> bool:
        """Whether `x_t` is independent of `x_1` given `x_r`; if not, only `r = 1` exists."""
        return True

    def sample_prior(self, key: jax.Array) -> Any:
        """A draw of `x_0`."""
        raise NotImplementedError

    def prior_log_prob(self, x0: Any) -> jax.Array:
        """Log-probability of the law `sample_prior` draws from."""
        raise NotImplementedError

    def sample(self, key: jax.Array, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        """A draw of `x_t ~ p_{t|r}(. | x_r)`."""
        raise NotImplementedError

    def interpolate(self, key: jax.Array, x0: Any, x1: Any, t: Scalar) -> Any:
        """A draw of `x_t` given both ends: `sample` where `x_0 ~ sample_prior` is independent of `x_1`.

        What couplings of the ends are made of; raises `NotImplementedError` for paths without it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not join two given ends")

    def log_prob(self, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`log p_{t|r}(x_t | x_r)`."""
        raise NotImplementedError

    def log_reference(self, x: Any, t: Scalar) -> jax.Array:
        """Log of the noised reference density at `t` (unnormalised where the reference is flat)."""
        raise NotImplementedError

    def propose(self, key: jax.Array, xt: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        """A draw of `x_r` from its posterior given `x_t` under the reference density."""
        raise NotImplementedError

    def propose_many(self, key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> Any:
        """`num` independent draws of `propose`, stacked; a path overrides it where a batch is cheaper."""
        return jax.vmap(lambda k: self.propose(k, xt, t, r))(jax.random.split(key, num))

    def reflect(self, xr: Any, xt: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        """The image of `x_r` under a symmetry of the law of `propose`, its own inverse: an antithetic draw.

        Raises `ValueError` where this law has no symmetry that moves anything.
        """
        raise NotImplementedError

    def propose_log_prob(self, xr: Any, xt: Any, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """Log-probability of `propose`."""
        return self.log_prob(xt, xr, t, r) + self.log_reference(xr, r) - self.log_reference(xt, t)

    def as_data(self, x: Any) -> Any:
        """`x` as a state that an energy may see: masks, where there are any, read as symbol 0."""
        return x

    def bridge(self, key: jax.Array, xt: Any, xr: Any, t: Scalar, s: Scalar, r: Scalar = 1.0) -> Any:
        """A draw of `x_s ~ p_{s|t,r}(. | x_t, x_r)`."""
        raise NotImplementedError

    def bridge_log_prob(self, xs: Any, xt: Any, xr: Any, t: Scalar, s: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`log p_{s|t,r} = log p_{t|s} + log p_{s|r} - log p_{t|r}`."""
        return self.log_prob(xt, xs, t, s) + self.log_prob(xs, xr, s, r) - self.log_prob(xt, xr, t, r)


def check_times(t: Scalar, r: Scalar) -> None:
    """Raises `ValueError` unless `0 <= t < r <= 1`; times that are being traced pass unchecked."""
    if isinstance(t, jax.core.Tracer) or isinstance(r, jax.core.Tracer):
        return
    low, high = np.asarray(t), np.asarray(r)
    if not (np.all(low >= 0) and np.all(high <= 1) and np.all(low < high)):
        raise ValueError(f"r: times must satisfy 0 <= t < r <= 1, got t={t} and r={r}")


def is_one(r: Scalar) -> bool:
    """Whether `r` is the literal 1, known without running anything, so that code can specialise on it."""
    return isinstance(r, (int, float)) and r == 1


def as_time(t: Scalar) -> jax.Array:
    """A time as an array of the default float type."""
    return jnp.asarray(t, dtype=float)
