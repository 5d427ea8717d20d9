"""General discrete paths: any law `p_t(y | x_1[i])` of a symbol given the data's, site by site.

    reference: flat on symbols;  log_reference(x, t) = sum_i log sum_z p_t(x[i] | z)

Such a path is not Markov in `r` in general, so only `r = 1` exists and nothing bootstraps on it. Times are joined,
given `x_1`, by the maximal coupling: a symbol stays with probability `min(1, p_s / p_t)` and else is drawn in
proportion to `[p_s - p_t]_+` (see `processes.RateProcess`); the `bridge` is that coupling.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree, static
from ..states import Categorical
from ._base import Path, Scalar, as_time, check_times, is_one
from ._masked import _log
from ._schedules import Linear, MixtureSchedule


@frozen_pytree
class DiscretePath(Path):
    """Derive and give `probs(x1, t)`: differentiable in `t`, of positive probabilities that do not depend on `x1` at
    `t=0`, and exactly one-hot at `t=1`. `sites` symbols of `num_states` values."""

    sites: int = static(default=1)
    num_states: int = static(default=2)

    def probs(self, x1: jax.Array, t: Scalar) -> jax.Array:
        """`p_t(y | x_1[i])`, `[sites, num_states]`."""
        raise NotImplementedError

    @property
    def space(self) -> Categorical:
        return Categorical(self.sites, self.num_states)

    @property
    def is_markov(self) -> bool:
        return False

    def table(self, t: Scalar) -> jax.Array:
        """`p_t(y | z)` for every symbol `z` of every site, `[sites, z, y]`."""
        symbols = jnp.arange(self.num_states, dtype=jnp.int32)
        each = jax.vmap(lambda z: self.probs(jnp.full((self.sites,), z), t))(symbols)
        return jnp.swapaxes(each, 0, 1)

    def table_with_slope(self, t: Scalar) -> tuple[jax.Array, jax.Array]:
        """`table(t)` and its derivative in time, by `jvp`."""
        t = as_time(t)
        return jax.jvp(self.table, (t,), (jnp.ones_like(t),))

    def likelihood(self, xt: jax.Array, t: Scalar) -> jax.Array:
        """`p_t(x_t[i] | z)` for every symbol `z`, `[sites, z]`."""
        return jnp.take_along_axis(self.table(t), xt[:, None, None], axis=-1)[..., 0]

    def sample_prior(self, key: jax.Array) -> jax.Array:
        return _draw(key, self._start)

    def prior_log_prob(self, x0: jax.Array) -> jax.Array:
        return _log_prob(x0, self._start)

    def sample(self, key: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        self._check(t, r)
        return _draw(key, self.probs(xr, t))

    def log_prob(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        self._check(t, r)
        return _log_prob(xt, self.probs(xr, t))

    def log_reference(self, x: jax.Array, t: Scalar) -> jax.Array:
        return jnp.sum(_log(jnp.sum(self.likelihood(x, t), axis=-1)))

    def propose(self, key: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        self._check(t, r)
        return _draw(key, self.likelihood(xt, t))

    def reflect(self, xr: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """Raises `ValueError`: the law of `propose` has no symmetry in general."""
        raise ValueError("path: a general discrete path has no reflection")

    def bridge(
        self, key: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, s: Scalar, r: Scalar = 1.0
    ) -> jax.Array:
        return _draw(key, self._coupled(xt, xr, t, s, r))

    def bridge_log_prob(
        self, xs: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, s: Scalar, r: Scalar = 1.0
    ) -> jax.Array:
        coupled = self._coupled(xt, xr, t, s, r)
        return _log_prob(xs, coupled / jnp.sum(coupled, axis=-1, keepdims=True))

    def _coupled(self, xt: jax.Array, xr: jax.Array, t: Scalar, s: Scalar, r: Scalar) -> jax.Array:
        self._check(s, r)
        check_times(t, s)
        return coupling_row(self.probs(xr, t), self.probs(xr, s), xt)

    def _check(self, t: Scalar, r: Scalar) -> None:
        check_times(t, r)
        if not is_one(r):
            raise ValueError("r: this path is not Markov in r, so only r=1 exists")

    @property
    def _start(self) -> jax.Array:
        return self.probs(jnp.zeros((self.sites,), jnp.int32), 0.0)


@frozen_pytree
class MetricPath(DiscretePath):
    """`p_t(y | x_1) ~ exp(-beta_t distance[x_1, y])`, `beta_t = strength (kappa_t / (1 - kappa_t))^power`.

    Symbols near the data's come first, as grey levels or any ordinal tokens want (Shaul et al., Flow Matching with
    General Discrete Paths, arXiv 2412.03487). Uniform at `t=0` and the data at `t=1`, both exactly.
    `distance [S, S]`: zero on the diagonal and positive elsewhere; `strength`, `power` positive, `power >= 1`
    for finite rates at `t=0`. With `distance = 1 - identity` it is the uniform mixture path on another clock. Costs
    `sites * S^2` where all symbols are summed over. Raises `ValueError` for a concrete `distance` that is none.
    """

    distance: jax.Array = None  # type: ignore[assignment]
    schedule: MixtureSchedule = Linear()
    strength: float | jax.Array = 1.0
    power: float | jax.Array = 1.0

    def __post_init__(self) -> None:
        if self.distance is None or isinstance(self.distance, (np.ndarray, jax.Array)):
            if isinstance(self.distance, jax.core.Tracer):
                return
            given = np.asarray(self.distance)
            size, off = self.num_states, ~np.eye(self.num_states, dtype=bool)
            if given.shape != (size, size) or np.any(np.diag(given) != 0) or not np.all(given[off] > 0):
                raise ValueError(
                    f"distance: expected [{size}, {size}], zero on the diagonal and positive off it"
                )

    @classmethod
    def ordinal(cls, sites: int, num_states: int, *, exponent: float = 2.0, **options: object) -> MetricPath:
        """`distance = (|y - z| / (S - 1))^exponent`, for symbols in their order."""
        levels = jnp.arange(num_states, dtype=float) / (num_states - 1)
        distance = jnp.abs(levels[:, None] - levels[None, :]) ** exponent
        return cls(sites=sites, num_states=num_states, distance=distance, **options)  # type: ignore[arg-type]

    def probs(self, x1: jax.Array, t: Scalar) -> jax.Array:
        kappa = jnp.broadcast_to(self.schedule.kappa(as_time(t)), (self.sites,))
        done = kappa >= 1
        odds = jnp.where(done, 0.0, kappa / jnp.where(done, 1.0, 1.0 - kappa))
        started = odds > 0
        beta = jnp.where(started, self.strength * jnp.where(started, odds, 1.0) ** self.power, 0.0)
        beta = jnp.where(
            started | (jnp.asarray(self.power) != 1), beta, self.strength * odds
        )  # its slope at 0
        soft = jax.nn.softmax(-beta[:, None] * jnp.asarray(self.distance)[x1], axis=-1)
        return jnp.where(
            done[:, None], (x1[:, None] == jnp.arange(self.num_states)[None, :]).astype(float), soft
        )


def coupling_row(now: jax.Array, later: jax.Array, x: jax.Array) -> jax.Array:
    """The maximal coupling of two laws `[..., S]` in the row of `x [...]`: probabilities of going on to each symbol.

    Stay with probability `min(1, later / now)`, else land in proportion to `[later - now]_+`.
    """
    here = x[..., None] == jnp.arange(now.shape[-1]).reshape((1,) * x.ndim + (-1,))
    at_now = jnp.sum(jnp.where(here, now, 0.0), axis=-1, keepdims=True)
    at_later = jnp.sum(jnp.where(here, later, 0.0), axis=-1, keepdims=True)
    stay = jnp.minimum(1.0, at_later / jnp.where(at_now > 0, at_now, 1.0))
    return here * stay + (1.0 - stay) * landing(now, later)


def landing(now: jax.Array, later: jax.Array) -> jax.Array:
    """`[later - now]_+`, normalised over the last axis; zeros where the laws agree."""
    excess = jnp.maximum(later - now, 0.0)
    total = jnp.sum(excess, axis=-1, keepdims=True)
    return excess / jnp.where(total > 0, total, 1.0)


def _draw(key: jax.Array, mass: jax.Array) -> jax.Array:
    return jax.random.categorical(key, _log(mass), axis=-1).astype(jnp.int32)


def _log_prob(x: jax.Array, probs: jax.Array) -> jax.Array:
    return jnp.sum(_log(jnp.take_along_axis(probs, x[:, None], axis=-1)))
