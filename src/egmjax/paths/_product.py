"""Product paths: each component is noised on its own; log-probabilities add."""

from __future__ import annotations

from typing import Any

import jax

from .._pytree import frozen_pytree
from ..states import Space
from ._base import Path, Scalar


@frozen_pytree
class ProductPath(Path):
    """A path for states that are tuples: one path for each component."""

    paths: tuple[Path, ...]

    @property
    def space(self) -> Space:
        return tuple(p.space for p in self.paths)

    @property
    def is_markov(self) -> bool:
        return all(p.is_markov for p in self.paths)

    def sample_prior(self, key: jax.Array) -> Any:
        return tuple(p.sample_prior(k) for p, k in zip(self.paths, self._split(key)))

    def prior_log_prob(self, x0: Any) -> jax.Array:
        return sum(p.prior_log_prob(x) for p, x in zip(self.paths, x0))  # type: ignore[return-value]

    def sample(self, key: jax.Array, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return tuple(p.sample(k, x, t, r) for p, k, x in zip(self.paths, self._split(key), xr))

    def interpolate(self, key: jax.Array, x0: Any, x1: Any, t: Scalar) -> Any:
        parts = zip(self.paths, self._split(key), x0, x1)
        return tuple(p.interpolate(k, x, y, t) for p, k, x, y in parts)

    def log_prob(self, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        return sum(p.log_prob(x, y, t, r) for p, x, y in zip(self.paths, xt, xr))  # type: ignore[return-value]

    def log_reference(self, x: Any, t: Scalar) -> jax.Array:
        return sum(p.log_reference(xi, t) for p, xi in zip(self.paths, x))  # type: ignore[return-value]

    def propose(self, key: jax.Array, xt: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return tuple(p.propose(k, x, t, r) for p, k, x in zip(self.paths, self._split(key), xt))

    def propose_many(self, key: jax.Array, xt: Any, t: Scalar, r: Scalar, num: int) -> Any:
        return tuple(p.propose_many(k, x, t, r, num) for p, k, x in zip(self.paths, self._split(key), xt))

    def reflect(self, xr: Any, xt: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return tuple(p.reflect(x, y, t, r) for p, x, y in zip(self.paths, xr, xt))

    def propose_log_prob(self, xr: Any, xt: Any, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        pairs = zip(self.paths, xr, xt)
        return sum(p.propose_log_prob(x, y, t, r) for p, x, y in pairs)  # type: ignore[return-value]

    def as_data(self, x: Any) -> Any:
        return tuple(p.as_data(xi) for p, xi in zip(self.paths, x))

    def bridge(self, key: jax.Array, xt: Any, xr: Any, t: Scalar, s: Scalar, r: Scalar = 1.0) -> Any:
        parts = zip(self.paths, self._split(key), xt, xr)
        return tuple(p.bridge(k, x, y, t, s, r) for p, k, x, y in parts)

    def bridge_log_prob(self, xs: Any, xt: Any, xr: Any, t: Scalar, s: Scalar, r: Scalar = 1.0) -> jax.Array:
        parts = zip(self.paths, xs, xt, xr)
        return sum(p.bridge_log_prob(x, y, z, t, s, r) for p, x, y, z in parts)  # type: ignore[return-value]

    def _split(self, key: jax.Array) -> jax.Array:
        return jax.random.split(key, len(self.paths))
