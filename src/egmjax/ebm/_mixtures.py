"""The exact marginals of a mixture along a Gaussian path: mixtures of the same kind again."""

from __future__ import annotations

from typing import TypeVar

import jax

from ..estimators import PsiFn
from ..paths import GaussianPath
from ..paths._base import Scalar
from ..targets import MixtureTarget
from ._energies import relative_to

M = TypeVar("M", bound=MixtureTarget)


def noised_mixture(mixture: M, path: GaussianPath, t: Scalar) -> M:
    """The law of `alpha_t x_1 + sigma_t eps`, `x_1 ~ mixture`: `mixture.noised(alpha_t, sigma_t)`.

    Every component keeps its mass and the mixture its `log_z`, so `-energy` of the result is `log ptilde_t`.
    Traceable in `t`; the result's exact values are for concrete times only.
    """
    return mixture.noised(*path.coefficients(t))


def mixture_psi(mixture: MixtureTarget, path: GaussianPath) -> PsiFn:
    """The exact `psi(x, t) = log ptilde_t(x) - log_reference(x, t)`, at every `t` from 0 to 1."""

    def log_marginal(x: jax.Array, t: Scalar) -> jax.Array:
        return -noised_mixture(mixture, path, t).energy(x)

    return relative_to(path, log_marginal)
