"""Mixtures of isotropic Gaussians, with additive constants that a neural sampler has to find.

    E(x) = -log_scale - log sum_k w_k exp(-|x - mu_k|^2 / (2 s_k^2)),     w = exp(log_weights)
    log Z = log_scale + log sum_k w_k (2 pi s_k^2)^(d/2)

The Gaussians are not normalised, so `log Z` is not zero unless the weights make it so; component `k` carries
`w_k s_k^d` of the mass up to a factor.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, ndtr

from .._pytree import frozen_pytree
from ..states import Real
from ._mixture_target import MixtureTarget

__all__ = ["GaussianMixture"]


@frozen_pytree
class GaussianMixture(MixtureTarget):
    """Fields, all leaves: `means [k, d]`, `scales [k]` > 0, `log_weights [k]`, and the scalar `log_scale`."""

    means: jax.Array | np.ndarray
    scales: jax.Array | np.ndarray
    log_weights: jax.Array | np.ndarray
    log_scale: float | jax.Array = 0.0

    @classmethod
    def three_peaks(cls) -> GaussianMixture:
        """Weights .3, .45, .25 on the line, means -2, .3, 1.6, standard deviations .15, .3, .08; log Z = 0."""
        scales = np.array([0.15, 0.3, 0.08])
        means = np.array([[-2.0], [0.3], [1.6]])
        return cls(means, scales, np.log([0.3, 0.45, 0.25]) - np.log(scales * np.sqrt(2 * np.pi)))

    @classmethod
    def three_modes(cls) -> GaussianMixture:
        """Weights .5, .3, .2 in the plane, scale .7, means 8 apart; log Z = log(2 pi .7^2) = 1.1245."""
        angles = np.pi * (0.5 + 2 * np.arange(3) / 3)
        means = 8 / np.sqrt(3) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return cls(means, np.full(3, 0.7), np.log([0.5, 0.3, 0.2]))

    @classmethod
    def gmm25(cls) -> GaussianMixture:
        """Means on `{-10, -5, 0, 5, 10}^2`, scale 1, equal weights 1/25; log Z = log(2 pi) = 1.8379."""
        grid = np.array([-10.0, -5.0, 0.0, 5.0, 10.0])
        means = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(25, 2)
        return cls(means, np.ones(25), np.full(25, -np.log(25.0)))

    @classmethod
    def gmm40(cls, variant: Literal["torch", "jax"] = "torch", dim: int = 2) -> GaussianMixture:
        """40 equal normalised modes in the plane, means drawn once from `[-40, 40]^2`; log Z = 0.

        Two targets go by this name; their means ship as `data/gmm40.json`. In other dimensions `dim` the
        same generators fill `[40, dim]` (SCLD: `"jax"` in 50).

        `"torch"`: means `2 * 40 * (u - 1/2)`, `u` the first 80 float32 uniforms of PyTorch's CPU generator
        with seed 0 (a Mersenne twister), standard deviation `softplus(1) = 1.3133`: FAB (Midgley et al., 2023)
        in PyTorch, iDEM, BNEM.

        `"jax"`: means `40 * jax.random.uniform(PRNGKey(0), (40, 2), minval=-1, maxval=1)` in float32 with
        `jax_threefry_partitionable` off, the default up to jax 0.4 under which the numbers were published (it
        gives other means since), standard deviation 1: FAB in JAX, Beyond ELBOs, SCLD.

        Raises `ValueError` for another `variant`, or `dim < 1`.
        """
        scales = {"torch": float(np.log1p(np.e)), "jax": 1.0}
        if variant not in scales:
            raise ValueError(f"variant: expected one of {sorted(scales)}, got {variant!r}")
        if dim < 1:
            raise ValueError(f"dim: at least 1, got {dim}")
        file = pathlib.Path(__file__).parent / "data" / "gmm40.json"
        means = (
            np.array(json.loads(file.read_text(encoding="utf-8"))[variant])
            if dim == 2
            else _published_means(variant, dim)
        )
        scale = scales[variant]
        log_weight = -np.log(40) - 0.5 * dim * np.log(2 * np.pi * scale**2)
        return cls(means, np.full(40, scale), np.full(40, log_weight))

    @classmethod
    def forty_modes(cls, dim: int) -> GaussianMixture:
        """40 equal modes with means uniform in `[-40, 40]^dim` and standard deviation 1.3133; log Z = 0.

        In the plane `gmm40()`, in other dimensions with fixed random means. Raises `ValueError` for `dim < 1`.
        """
        if dim < 1:
            raise ValueError(f"dim: at least 1, got {dim}")
        if dim == 2:
            return cls.gmm40()
        scale = float(np.log1p(np.e))
        means = np.random.RandomState(dim).uniform(-40.0, 40.0, (40, dim))  # numpy keeps this stream as it is
        return cls(
            means, np.full(40, scale), np.full(40, -np.log(40) - 0.5 * dim * np.log(2 * np.pi * scale**2))
        )

    @classmethod
    def two_modes(cls, dim: int, separation: float = 5.0) -> GaussianMixture:
        """Weights 2/3 and 1/3 at `-separation` and `+separation` times the ones vector, variance .05; log Z = 0.

        Far apart for its scale, so that nothing local says which mode is the heavier one. Raises `ValueError` for
        `dim < 1`.
        """
        if dim < 1:
            raise ValueError(f"dim: at least 1, got {dim}")
        scale = np.sqrt(0.05)
        means = separation * np.stack([-np.ones(dim), np.ones(dim)])
        log_weights = np.log([2 / 3, 1 / 3]) - 0.5 * dim * np.log(2 * np.pi * scale**2)
        return cls(means, np.full(2, scale), log_weights)

    @classmethod
    def four_modes(cls, dim: int, radius: float = 4.0, scale: float = 0.4) -> GaussianMixture:
        """Weights .1, .2, .3, .4 at distance `radius` from the origin, on the axes in the plane and in four fixed
        random directions in higher dimension; log Z = 0. Raises `ValueError` for `dim < 2`.
        """
        if dim < 2:
            raise ValueError(f"dim: at least 2, got {dim}")
        means = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        if dim > 2:
            means = np.random.RandomState(dim).standard_normal((4, dim))  # numpy keeps this stream as it is
            means /= np.linalg.norm(means, axis=1, keepdims=True)
        log_weights = np.log([0.1, 0.2, 0.3, 0.4]) - dim * np.log(scale * np.sqrt(2 * np.pi))
        return cls(radius * means, np.full(4, scale), log_weights)

    @property
    def space(self) -> Real:
        """`Real((d,))`."""
        return Real((np.shape(self.means)[1],))

    def energy(self, x: jax.Array) -> jax.Array:
        """`E(x)` for `x: float [d]`, a scalar; finite with finite gradients everywhere."""
        difference = x[None, :] - jnp.asarray(self.means, x.dtype)
        quadratic = jnp.sum(jnp.square(difference), axis=1) / (
            2 * jnp.square(jnp.asarray(self.scales, x.dtype))
        )
        return -jax.nn.logsumexp(jnp.asarray(self.log_weights, x.dtype) - quadratic) - self.log_scale

    @property
    def log_z(self) -> float:
        """Exact."""
        return float(self.log_scale) + float(logsumexp(self._log_mass))

    @property
    def mean_energy(self) -> float | None:
        """By quadrature, to about 1e-8, for `d <= 2`; `None` beyond."""
        moments = self._moments
        return None if moments is None else moments[0]

    @property
    def energy_std(self) -> float | None:
        """By quadrature, to about 1e-8, for `d <= 2`; `None` beyond."""
        moments = self._moments
        return None if moments is None else moments[1]

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Independent exact draws `[num_samples, d]`; traceable, with `num_samples` static."""
        key_component, key_noise = jax.random.split(key)
        means, scales = jnp.asarray(self.means, float), jnp.asarray(self.scales, float)
        logits = jnp.asarray(self.log_weights, float) + means.shape[1] * jnp.log(scales)
        index = jax.random.categorical(key_component, logits, shape=(num_samples,))
        noise = jax.random.normal(key_noise, (num_samples, means.shape[1]))
        return means[index] + scales[index][:, None] * noise

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """The coordinates `x0`, `x1`, ..."""
        return {f"x{i}": functools.partial(_coordinate, i) for i in range(np.shape(self.means)[1])}

    @property
    def component_weights(self) -> np.ndarray:
        """Probabilities `[k]` of the components, float64."""
        return np.exp(self._log_mass - logsumexp(self._log_mass))

    @property
    def mode_weights(self) -> np.ndarray | None:
        """Probabilities `[k]` of the cells of `mode_index`, float64; `None` where not known to 1e-6.

        The mass of the cell of the nearest mean, which is the weight of its component only up to overlap.
        For `d = 2` and equal or different scales it is computed along rays, `P(N(mu_i, s_i) in cell j) =
        mean over angles of exp(-a^2 / 2 s_i^2) - exp(-b^2 / 2 s_i^2)` with `(a, b)` the part of the ray
        inside the convex cell. Otherwise the weights of the components are returned where a union bound
        puts the overlap below 1e-6.
        """
        means, scales = np.asarray(self.means, np.float64), np.asarray(self.scales, np.float64)
        probs = self.component_weights
        if means.shape[1] == 2:
            return sum(p * _cell_masses(means, mean, s) for p, mean, s in zip(probs, means, scales))
        half = 0.5 * np.linalg.norm(means[:, None] - means, axis=-1)
        escape = np.where(np.eye(len(means), dtype=bool), 0.0, ndtr(-half / scales[:, None])).sum(axis=1)
        return probs if probs @ escape < 1e-6 else None

    def mode_index(self, x: jax.Array) -> jax.Array:
        """The index of the mean nearest to `x` in Euclidean distance (not the most probable component)."""
        return jnp.argmin(jnp.sum(jnp.square(x[None, :] - jnp.asarray(self.means, x.dtype)), axis=1))

    def component(self, index: int | jax.Array) -> GaussianMixture:
        """One Gaussian, with its mass."""
        means, scales, log_weights = (
            jnp.asarray(a, float)[index][None] for a in (self.means, self.scales, self.log_weights)
        )
        return dataclasses.replace(self, means=means, scales=scales, log_weights=log_weights)

    def noised(self, alpha: Any, sigma: Any) -> GaussianMixture:
        """Means `alpha mu_k` and variances `alpha^2 s_k^2 + sigma^2`."""
        means, scales, log_weights = (
            jnp.asarray(a, float) for a in (self.means, self.scales, self.log_weights)
        )
        wider = jnp.sqrt((alpha * scales) ** 2 + sigma**2)
        log_weights = log_weights + means.shape[1] * (jnp.log(scales) - jnp.log(wider))
        return dataclasses.replace(self, means=alpha * means, scales=wider, log_weights=log_weights)

    @property
    def _log_mass(self) -> np.ndarray:
        """The logarithm of each component's integral without `log_scale`, float64 `[k]`."""
        dim = np.shape(self.means)[1]
        variance = np.asarray(self.scales, np.float64) ** 2
        return np.asarray(self.log_weights, np.float64) + 0.5 * dim * np.log(2 * np.pi * variance)

    @property
    def _moments(self) -> tuple[float, float] | None:
        """Mean and standard deviation of `energy`: each component by the trapezoid rule on 8.5 scales."""
        means, scales = np.asarray(self.means, np.float64), np.asarray(self.scales, np.float64)
        num_components, dim = means.shape
        if dim > 2:
            return None
        axis = np.arange(-68, 69) / 8
        nodes = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
        density = np.exp(-0.5 * np.sum(nodes**2, axis=1))
        density /= density.sum()
        probs = np.exp(self._log_mass - logsumexp(self._log_mass))
        first, second = np.zeros(num_components), np.zeros(num_components)
        log_weights = np.asarray(self.log_weights, np.float64)
        for k in range(num_components):
            x = means[k] + scales[k] * nodes
            square = sum((x[:, i, None] - means[:, i]) ** 2 for i in range(dim))
            energy = -logsumexp(log_weights - square / (2 * scales**2), axis=1) - float(self.log_scale)
            first[k], second[k] = density @ energy, density @ energy**2
        mean = float(probs @ first)
        return mean, float(np.sqrt(probs @ second - mean**2))


def _published_means(variant: str, dim: int) -> np.ndarray:
    """Means `[40, dim]` in `[-40, 40]^dim` as PyTorch or jax draws them; see `GaussianMixture.gmm40`."""
    if variant == "torch":
        # a float32 uniform is the low 24 bits of a word of the Mersenne twister
        words = np.random.RandomState(0).randint(0, 2**32, (40, dim), dtype=np.uint32)
        uniform = (words & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)
        return ((uniform - np.float32(0.5)) * np.float32(80)).astype(np.float64)
    with jax.threefry_partitionable(False), jax.ensure_compile_time_eval():
        drawn = jax.random.uniform(jax.random.PRNGKey(0), (40, dim), jnp.float32, -1.0, 1.0)
        return np.asarray(drawn * np.float32(40), np.float64)


def _coordinate(i: int, x: jax.Array) -> jax.Array:
    return x[i]


def _cell_masses(means: np.ndarray, centre: np.ndarray, scale: float) -> np.ndarray:
    """The probability `[k]` of every nearest-mean cell under `N(centre, scale^2 I)`, `centre` one of the means.

    Only means within 17 scales can be the nearest anywhere within 8.5 scales of the centre, which leaves 2e-16.
    """
    angles = 2 * np.pi * (np.arange(4096) + 0.5) / 4096
    rays = np.stack([np.cos(angles), np.sin(angles)])
    masses = np.zeros(len(means))
    near = np.nonzero(np.linalg.norm(means - centre, axis=1) <= 17 * scale)[0]
    for j in near:
        mean, others = means[j], means[near[near != j]]
        slope = (
            others - mean
        ) @ rays  # the ray is nearer to mean j than to another while slope * radius <= limit
        limit = 0.5 * np.sum((others - centre) ** 2 - (mean - centre) ** 2, axis=1)[:, None]
        radius = limit / np.where(slope == 0, np.finfo(float).tiny, slope)
        upper = np.min(np.where(slope > 0, radius, np.inf), axis=0, initial=np.inf)
        lower = np.max(np.where(slope < 0, radius, 0.0), axis=0, initial=0.0)
        inside = np.exp(-0.5 * (lower / scale) ** 2) - np.exp(-0.5 * (np.maximum(upper, lower) / scale) ** 2)
        masses[j] = inside[upper > 0].sum() / angles.size
    return masses
