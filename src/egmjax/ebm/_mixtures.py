"""The exact marginals of a Gaussian mixture along a Gaussian path: Gaussian mixtures again."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ..estimators import PsiFn
from ..paths import GaussianPath
from ..paths._base import Scalar
from ..targets import GaussianMixture
from ._energies import relative_to


def noised_mixture(mixture: GaussianMixture, path: GaussianPath, t: Scalar) -> GaussianMixture:
    """The law of `alpha_t x_1 + sigma_t eps`, `x_1 ~ mixture`: means `alpha mu_k`, variances `alpha^2 s_k^2 +
    sigma^2`.

    Every component keeps its mass and the mixture its `log_z`, so `-energy` of the result is `log ptilde_t`.
    Traceable in `t`; the result's exact values are for concrete times only.
    """
    alpha, sigma = path.coefficients(t)
    means, scales, log_weights = (
        jnp.asarray(a, dtype=float) for a in (mixture.means, mixture.scales, mixture.log_weights)
    )
    wider = jnp.sqrt((alpha * scales) ** 2 + sigma**2)
    dim = means.shape[1]
    return dataclasses.replace(
        mixture,
        means=alpha * means,
        scales=wider,
        log_weights=log_weights + dim * (jnp.log(scales) - jnp.log(wider)),
    )


def mixture_psi(mixture: GaussianMixture, path: GaussianPath) -> PsiFn:
    """The exact `psi(x, t) = log ptilde_t(x) - log_reference(x, t)`, at every `t` from 0 to 1."""

    def log_marginal(x: jax.Array, t: Scalar) -> jax.Array:
        return -noised_mixture(mixture, path, t).energy(x)

    return relative_to(path, log_marginal)
