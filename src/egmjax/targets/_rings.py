"""Concentric circles in the plane, blurred by Gaussian noise: modes that are no points.

    x = R_k (cos phi, sin phi) + s_k eps,     phi uniform, eps ~ N(0, I), ring k with mass w_k
    p(x) = sum_k w_k exp(-(|x| - R_k)^2 / (2 s_k^2)) ive_0(|x| R_k / s_k^2) / (2 pi s_k^2)

`ive_0(u) = exp(-u) I_0(u)` is the Bessel function, scaled so that nothing overflows. The radius `|x|` of a ring has
Rice's law. Under noise a ring stays one: `alpha x + sigma eps'` has radii `alpha R_k` and variances
`alpha^2 s_k^2 + sigma^2`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ive, logsumexp
from scipy.stats import rice

from .._pytree import frozen_pytree
from ..states import Real
from ._mixture_target import MixtureTarget

__all__ = ["Rings"]


@frozen_pytree
class Rings(MixtureTarget):
    """Fields, all leaves: `radii [k]` >= 0 in any order, `scales [k]` > 0, and `log_weights [k]`, the log-masses.

    By default radii 1, 2, 3, 4 with weights .1, .2, .3, .4 and scale .08: between two rings there is next to nothing.
    """

    radii: jax.Array | np.ndarray = dataclasses.field(default_factory=lambda: np.arange(1.0, 5.0))
    scales: jax.Array | np.ndarray = dataclasses.field(default_factory=lambda: np.full(4, 0.08))
    log_weights: jax.Array | np.ndarray = dataclasses.field(
        default_factory=lambda: np.log([0.1, 0.2, 0.3, 0.4])
    )

    @property
    def space(self) -> Real:
        """`Real((2,))`."""
        return Real((2,))

    def energy(self, x: jax.Array) -> jax.Array:
        """`-log p(x)` for `x: float [2]`, a scalar; its gradient is finite everywhere, zero at the centre."""
        radii, scales, log_weights = (
            jnp.asarray(a, x.dtype) for a in (self.radii, self.scales, self.log_weights)
        )
        r = _radius(x)
        log_ring = (
            -0.5 * jnp.square((r - radii) / scales)
            + jnp.log(jax.scipy.special.i0e(r * radii / jnp.square(scales)))
            - jnp.log(2 * np.pi * jnp.square(scales))
        )
        return -jax.nn.logsumexp(log_weights + log_ring)

    @property
    def log_z(self) -> float:
        """Exact: the logarithm of the sum of the weights."""
        return float(logsumexp(np.asarray(self.log_weights, np.float64)))

    @property
    def mean_energy(self) -> float:
        """By quadrature over the radius, to about 1e-8."""
        return self._moments[0]

    @property
    def energy_std(self) -> float:
        """By quadrature over the radius, to about 1e-8."""
        return self._moments[1]

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Independent exact draws `[num_samples, 2]`; traceable, with `num_samples` static."""
        key_ring, key_angle, key_noise = jax.random.split(key, 3)
        radii, scales, log_weights = (
            jnp.asarray(a, float) for a in (self.radii, self.scales, self.log_weights)
        )
        index = jax.random.categorical(key_ring, log_weights, shape=(num_samples,))
        angle = jax.random.uniform(key_angle, (num_samples,), maxval=2 * np.pi)
        circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
        noise = jax.random.normal(key_noise, (num_samples, 2))
        return radii[index][:, None] * circle + scales[index][:, None] * noise

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """The coordinates `x0`, `x1`, and the `radius`."""
        return {"x0": lambda x: x[0], "x1": lambda x: x[1], "radius": _radius}

    @property
    def component_weights(self) -> np.ndarray:
        """Probabilities `[k]` of the rings, float64."""
        log_weights = np.asarray(self.log_weights, np.float64)
        return np.exp(log_weights - logsumexp(log_weights))

    @property
    def mode_weights(self) -> np.ndarray:
        """Exact probabilities `[k]` of the cells of `mode_index`, float64, by the distribution function of Rice."""
        radii, scales = (np.asarray(a, np.float64) for a in (self.radii, self.scales))
        order = np.argsort(radii, kind="stable")
        borders = 0.5 * (radii[order][1:] + radii[order][:-1])
        below = rice.cdf(borders, (radii / scales)[:, None], scale=scales[:, None])
        cells = np.diff(below, axis=1, prepend=0.0, append=1.0)  # [ring, cell by radius]
        masses = np.empty(len(radii))
        masses[order] = self.component_weights @ cells
        return masses

    def mode_index(self, x: jax.Array) -> jax.Array:
        """The index of the ring nearest to `x`."""
        return jnp.argmin(jnp.abs(_radius(x) - jnp.asarray(self.radii, x.dtype)))

    def component(self, index: int | jax.Array) -> Rings:
        """One ring, with its mass."""
        return Rings(
            *(jnp.asarray(a, float)[index][None] for a in (self.radii, self.scales, self.log_weights))
        )

    def noised(self, alpha: Any, sigma: Any) -> Rings:
        """Rings of radii `alpha R_k` and variances `alpha^2 s_k^2 + sigma^2`."""
        radii, scales = jnp.asarray(self.radii, float), jnp.asarray(self.scales, float)
        return dataclasses.replace(
            self, radii=alpha * radii, scales=jnp.sqrt((alpha * scales) ** 2 + sigma**2)
        )

    @functools.cached_property
    def _moments(self) -> tuple[float, float]:
        """Mean and standard deviation of `energy`: each ring by Simpson's rule on 10 scales to either side."""
        radii, scales, log_weights = (
            np.asarray(a, np.float64) for a in (self.radii, self.scales, self.log_weights)
        )
        # the trapezoid rule errs where a ring reaches the centre: there its density ends with a slope
        simpson = np.ones(4001)
        simpson[1:-1:2], simpson[2:-1:2] = 4.0, 2.0
        first, second = np.zeros(len(radii)), np.zeros(len(radii))
        for k, (radius, scale) in enumerate(zip(radii, scales)):
            r = np.linspace(max(0.0, radius - 10 * scale), radius + 10 * scale, len(simpson))
            density = simpson * rice.pdf(r, radius / scale, scale=scale)
            density /= density.sum()
            log_rings = (
                -0.5 * ((r[:, None] - radii) / scales) ** 2
                + np.log(ive(0, r[:, None] * radii / scales**2))
                - np.log(2 * np.pi * scales**2)
            )
            energy = -logsumexp(log_weights + log_rings, axis=1)
            first[k], second[k] = density @ energy, density @ energy**2
        mean = float(self.component_weights @ first)
        return mean, float(np.sqrt(self.component_weights @ second - mean**2))


def _radius(x: jax.Array) -> jax.Array:
    """`|x|`, with gradient zero at the centre."""
    square = jnp.sum(jnp.square(x))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
