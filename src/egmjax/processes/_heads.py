"""What a process on a Gaussian path asks its network for.

    ResidualHead   eta: E[x_1 | x_t] = belief.mean + belief.scale * eta                       shape of the state
    BinnedHead     f: log of what the other coordinates and the target say about the bin of   [*shape, bins]
                   x_1[i], so that  D_i(b) = P(x_1[i] in b | x_t)  ~  exp(f_i[b]) mass_i(b)
                   mass_i(b) = P(x_1[i] in b | x_t[i])  under the reference

Either gives the residual, hence flows and diffusions; bins give jumps too. Zero is the reference for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..losses import cross_entropy, squared_error
from ..paths import GaussianPath
from ..paths._base import Scalar, check_times, is_one
from ..paths._gaussian import _normal_log_prob
from ..paths._intervals import interval_ppf, log_interval_mass

OUTERMOST = 1e6  # where the outer bins end, in standard deviations of the reference


@frozen_pytree
class Head:
    """The part of a process that knows what is predicted; functions take the path and one state."""

    @property
    def can_bootstrap(self) -> bool:
        """Whether the target exists at `r < 1`."""
        return True

    def prediction_shape(self, path: GaussianPath) -> tuple[int, ...]:
        raise NotImplementedError

    def target(self, path: GaussianPath, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar) -> jax.Array:
        raise NotImplementedError

    def weighted_target(
        self, path: GaussianPath, weights: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar
    ) -> jax.Array:
        """`sum_k weights[k] target(xt, xr[k], t, r)`."""
        return jnp.tensordot(weights, jax.vmap(lambda x: self.target(path, xt, x, t, r))(xr), axes=1)

    def target_from_psi(
        self, path: GaussianPath, xt: jax.Array, t: Scalar, psi_fn: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        raise NotImplementedError(f"{type(self).__name__} has no target from psi")

    def residual(self, path: GaussianPath, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """`(E[x_1 | x_t] - belief.mean) / belief.scale`, shape of the state."""
        raise NotImplementedError

    def divergence(
        self, path: GaussianPath, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar
    ) -> jax.Array:
        raise NotImplementedError

    def sample_endpoint(
        self, key: jax.Array, path: GaussianPath, prediction: jax.Array, xt: jax.Array, t: Scalar
    ) -> jax.Array:
        raise NotImplementedError

    def endpoint_log_prob(
        self, path: GaussianPath, x1: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar
    ) -> jax.Array:
        raise NotImplementedError


@frozen_pytree
class ResidualHead(Head):
    """Predicts the residual itself, by squared error: that of the endpoint over the variance of the belief."""

    def prediction_shape(self, path: GaussianPath) -> tuple[int, ...]:
        return path.shape

    def target(self, path: GaussianPath, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar) -> jax.Array:
        """`(endpoint - belief.mean) / belief.scale`."""
        belief = path.endpoint_belief(xt, t)
        return (path.endpoint(xt, xr, t, r) - belief.mean) / belief.scale

    def target_from_psi(
        self, path: GaussianPath, xt: jax.Array, t: Scalar, psi_fn: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        """`cot(theta) grad_z psi`, by Tweedie's formula; infinite times zero at `alpha = 0`."""
        angle = path.angle(t)
        _, std = path.reference_moments(t)
        return angle.cos / angle.sin * std * jax.grad(psi_fn)(xt)

    def residual(self, path: GaussianPath, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        return prediction

    def divergence(
        self, path: GaussianPath, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar
    ) -> jax.Array:
        return squared_error(target, prediction)

    def sample_endpoint(
        self, key: jax.Array, path: GaussianPath, prediction: jax.Array, xt: jax.Array, t: Scalar
    ) -> jax.Array:
        """`N(belief.mean + belief.scale * eta, belief.scale^2)`."""
        belief = path.endpoint_belief(xt, t)
        noise = jax.random.normal(key, path.shape, dtype=xt.dtype)
        return belief.mean + belief.scale * (prediction + noise)

    def endpoint_log_prob(
        self, path: GaussianPath, x1: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar
    ) -> jax.Array:
        belief = path.endpoint_belief(xt, t)
        return _normal_log_prob(x1, belief.mean + belief.scale * prediction, belief.scale**2)


@frozen_pytree
class BinnedHead(Head):
    """The posterior of every coordinate of `x_1` over `bins`, by cross-entropy; its target exists at `r = 1` only.

    Bins are fixed, in standard units `(x_1 - mean) / scale` of the path's reference: equal cells of `[-reach, reach]`,
    the outer two of which go on to infinity. Within a bin the law is the reference's: relative to its belief the
    posterior density is the step function `exp(f) / sum_b exp(f_b) mass(b)`. The masses make it sharp as `t` approaches
    1, with nothing to be learned. Raises `ValueError` for fewer than two bins or a `reach` that is not positive.
    """

    bins: int = static(default=64)
    reach: float | jax.Array = 4.0

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"bins: at least 2, got {self.bins}")
        if isinstance(self.reach, (int, float)) and not self.reach > 0:
            raise ValueError(f"reach: must be positive, got {self.reach}")

    @property
    def can_bootstrap(self) -> bool:
        return False

    @property
    def width(self) -> jax.Array:
        """Of a bin, in standard units."""
        return 2.0 * jnp.asarray(self.reach, dtype=float) / self.bins

    @property
    def edges(self) -> jax.Array:
        """`[bins + 1]`, in standard units; the outer two stand for infinity."""
        inner = self.width * (jnp.arange(1, self.bins, dtype=float) - 0.5 * self.bins)
        end = jnp.full((1,), OUTERMOST)
        return jnp.concatenate([-end, inner, end])

    def atoms(self, path: GaussianPath) -> jax.Array:
        """Centres of the cells in the units of the state, `[*shape, bins]`: what stands for a bin in jump kernels."""
        return self.in_units(path, self.width * (jnp.arange(self.bins, dtype=float) - 0.5 * (self.bins - 1)))

    def in_units(self, path: GaussianPath, values: jax.Array) -> jax.Array:
        """`mean + scale * values` for `values [n]` in standard units, `[*shape, n]`."""
        mean, scale = (
            jnp.broadcast_to(jnp.asarray(a, dtype=float), path.shape)[..., None]
            for a in (path.mean, path.scale)
        )
        return mean + scale * values.reshape((1,) * len(path.shape) + (-1,))

    def bin_of(self, path: GaussianPath, x1: jax.Array) -> jax.Array:
        """The bin of every coordinate, int32, shape of `x1`."""
        cell = jnp.floor((x1 - path.mean) / path.scale / self.width + 0.5 * self.bins)
        return jnp.clip(cell, 0, self.bins - 1).astype(jnp.int32)

    def prediction_shape(self, path: GaussianPath) -> tuple[int, ...]:
        return (*path.shape, self.bins)

    def target(self, path: GaussianPath, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar) -> jax.Array:
        """The bin of `x_1`, one-hot, `[*shape, bins]`. Raises `ValueError` for an `r` known not to be 1."""
        check_times(t, r)
        _refuse_before_one(r)
        return (self.bin_of(path, xr)[..., None] == self._symbols(xr.ndim)).astype(float)

    def weighted_target(
        self, path: GaussianPath, weights: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar
    ) -> jax.Array:
        """A histogram: indicators are compared and summed, never stored."""
        _refuse_before_one(r)
        found = jax.vmap(lambda x: self.bin_of(path, x))(xr)
        lifted = weights.reshape(-1, *(1,) * (found.ndim))
        return jnp.sum(jnp.where(found[..., None] == self._symbols(found.ndim), lifted, 0.0), axis=0)

    def posterior(self, path: GaussianPath, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """`log D_i(b)`, `[*shape, bins]`."""
        return jax.nn.log_softmax(prediction + self._log_masses(path, xt, t), axis=-1)

    def log_density(self, path: GaussianPath, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """`f_b - log sum_b exp(f_b) mass(b)`, `[*shape, bins]`: log-density of `x_1[i]` relative to the belief."""
        total = jax.nn.logsumexp(prediction + self._log_masses(path, xt, t), axis=-1, keepdims=True)
        return prediction - total

    def residual(self, path: GaussianPath, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """`sum_j phi(e_j) (step at edge j of the density)`, `e_j` the edge in units of the belief.

        The means of truncated normals, averaged over bins and summed by parts: a term for each inner edge, zero
        where the density is level. Zero at `t=1`, where nothing is left to predict.
        """
        log_density = self.log_density(path, prediction, xt, t)
        log_phi = -0.5 * jnp.square(self._distances(path, xt, t)[..., 1:-1]) - 0.5 * math.log(2.0 * math.pi)
        steps = jnp.exp(log_density[..., 1:] + log_phi) - jnp.exp(log_density[..., :-1] + log_phi)
        return jnp.where(path.angle(t).cos > 0, jnp.sum(steps, axis=-1), 0.0)

    def divergence(
        self, path: GaussianPath, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar
    ) -> jax.Array:
        """`-sum_i sum_b target_i(b) log D_i(b)`."""
        return jnp.sum(cross_entropy(target, prediction + self._log_masses(path, xt, t)))

    def sample_endpoint(
        self, key: jax.Array, path: GaussianPath, prediction: jax.Array, xt: jax.Array, t: Scalar
    ) -> jax.Array:
        """A bin of every coordinate from `D`, then the reference's belief within that bin."""
        key_bin, key_within = jax.random.split(key)
        chosen = jax.random.categorical(key_bin, self.posterior(path, prediction, xt, t), axis=-1)
        distances = self._distances(path, xt, t)
        u = jax.random.uniform(key_within, path.shape, dtype=xt.dtype)
        e = interval_ppf(u, take(distances, chosen), take(distances, chosen + 1))
        belief = path.endpoint_belief(xt, t)
        return belief.mean + belief.scale * e

    def endpoint_log_prob(
        self, path: GaussianPath, x1: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar
    ) -> jax.Array:
        belief = path.endpoint_belief(xt, t)
        relative = take(self.log_density(path, prediction, xt, t), self.bin_of(path, x1))
        return _normal_log_prob(x1, belief.mean, belief.scale**2) + jnp.sum(relative)

    def _symbols(self, ndim: int) -> jax.Array:
        return jnp.arange(self.bins).reshape((1,) * ndim + (-1,))

    def _distances(self, path: GaussianPath, xt: jax.Array, t: Scalar) -> jax.Array:
        """Edges in units of the belief: `(edge - sin z_t) / cos`, `[*shape, bins + 1]`."""
        angle = path.angle(t)
        centre = angle.sin * path.standardize(xt, t)
        spread = jnp.broadcast_to(jnp.maximum(angle.cos, jnp.finfo(centre.dtype).eps), centre.shape)
        edges = self.edges.reshape((1,) * centre.ndim + (-1,))
        return (edges - centre[..., None]) / spread[..., None]

    def _log_masses(self, path: GaussianPath, xt: jax.Array, t: Scalar) -> jax.Array:
        distances = self._distances(path, xt, t)
        return log_interval_mass(distances[..., :-1], distances[..., 1:])


def take(values: jax.Array, index: jax.Array) -> jax.Array:
    """`values[..., index]` along the last axis, one index for each of the leading ones."""
    return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]


def _refuse_before_one(r: Scalar) -> None:
    if not is_one(r):
        raise ValueError("r: the bin of x_1 is a target at r=1 only")
