"""The mixture path in a box: each coordinate keeps its value with probability `kappa(t)`, else is uniform.

    p_{t|r}(x | y)  =  rho delta(x - y) + (1 - rho) / L,      rho = kappa_t / kappa_r,     per coordinate
    reference: uniform in the box, which the chain leaves alone; p_{t|r} is reversible under it

The continuous relative of `MixturePath`. Log-probabilities are densities, but that of a coordinate kept, which is
recognised by equality, is the log of a probability.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..states import Real
from ._base import Path, Scalar, as_time, check_times
from ._masked import _log, _nonzero
from ._schedules import Linear, MixtureSchedule


@frozen_pytree
class UniformPath(Path):
    """Data in the box `[low, high]`, numbers or the shape of the state; `schedule` with one clock for all.

    Raises `ValueError` for concrete numbers unless `low < high`.
    """

    low: float | jax.Array = -1.0
    high: float | jax.Array = 1.0
    schedule: MixtureSchedule = Linear()
    shape: tuple[int, ...] = static(default=(1,))

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        if all(isinstance(a, (int, float)) for a in ends) and not self.low < self.high:
            raise ValueError(f"low: must be below high, got {self.low} and {self.high}")

    @property
    def space(self) -> Real:
        return Real(self.shape)

    @property
    def length(self) -> jax.Array:
        """`high - low`, the shape of the state."""
        return jnp.broadcast_to(jnp.asarray(self.high, dtype=float) - self.low, self.shape)

    def kappa(self, t: Scalar) -> jax.Array:
        """A scalar."""
        return self.schedule.kappa(as_time(t))

    def keep_prob(self, t: Scalar, r: Scalar) -> jax.Array:
        """`kappa_t / kappa_r`, a scalar."""
        return self.kappa(t) / _nonzero(self.kappa(r))

    def sample_prior(self, key: jax.Array) -> jax.Array:
        return self.low + self.length * jax.random.uniform(key, self.shape)

    def prior_log_prob(self, x0: jax.Array) -> jax.Array:
        return self.log_reference(x0, 0.0)

    def sample(self, key: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        key_keep, key_fresh = jax.random.split(key)
        keep = jax.random.uniform(key_keep, self.shape) < self.keep_prob(t, r)
        return jnp.where(keep, xr, self.sample_prior(key_fresh))

    def log_prob(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        keep = self.keep_prob(t, r)
        return jnp.sum(jnp.where(xt == xr, _log(keep), _log(1.0 - keep) - jnp.log(self.length)))

    def log_reference(self, x: jax.Array, t: Scalar) -> jax.Array:
        inside = (x >= self.low) & (x <= self.high)
        return jnp.sum(jnp.where(inside, -jnp.log(self.length), -jnp.inf))

    def propose(self, key: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        return self.sample(key, xt, t, r)

    def propose_log_prob(self, xr: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        return self.log_prob(xr, xt, t, r)

    def reflect(self, xr: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`low + high - x_r` where it is not `x_t`."""
        check_times(t, r)
        return jnp.where(xr == xt, xr, self.high - (xr - self.low))

    def bridge(
        self, key: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, s: Scalar, r: Scalar = 1.0
    ) -> jax.Array:
        """`x_r`, or `x_t`, or a fresh value, in proportion to what each explains; `x_r` where the two are equal."""
        check_times(t, s)
        check_times(s, r)
        now, later = self.keep_prob(t, s), self.keep_prob(s, r)
        odds = jnp.stack([(1.0 - now) * later, now * (1.0 - later), (1.0 - now) * (1.0 - later)])
        key_which, key_fresh = jax.random.split(key)
        which = jax.random.categorical(key_which, _log(odds), shape=self.shape)
        fresh = self.sample_prior(key_fresh)
        return jnp.where((which == 0) | (xt == xr), xr, jnp.where(which == 1, xt, fresh))
