"""Time-dependent energies, as log-densities relative to the reference of a path.

    log q(x, t) = path.log_reference(x, t) + psi(x, t)

`psi` is what the paths, the bootstrap of `training.snis_objective` and the samplers mean by it, so an energy
learned here is used there as it is. On a Gaussian path

    psi(x, t) = tan(theta_t) base(z, t),     z = path.standardize(x, t),     tan(theta) = alpha scale / sigma

is the preconditioning of Karras et al. (2022) carried over to energies (OuYang, Grenioux, Hernandez-Lobato,
2026): `base = 0` is the normalised Gaussian with the reference's moments at every level, and the residual
that a process predicts is `cot(theta) grad_z psi = grad_z base`, of order one at all of them. Score and
log-density agree by construction, for any mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..estimators import PsiFn
from ..paths import GaussianPath, Path
from ..paths._base import Scalar, as_time
from ..processes import PredictFn, Process
from ..training import PsiApplyFn

LogDensityFn = Callable[[Any, Scalar], jax.Array]  # (x, t) -> log q(x, t), a scalar, one state
FIRST_TIME = 1e-3  # predictions before it are those of it: at t=0 a path may know nothing of x_1


def preconditioned_psi(
    path: GaussianPath, apply_fn: Callable[[Any, Any, Any], Any], *, unit: float = 10.0
) -> PsiApplyFn:
    """`psi(params, x, t) = tan(theta_t) base(z, t) + unit offset(z, t)`; `apply_fn(params, z, t)` returns the scalar
    `base`, or the pair `(base, offset)` (`networks.InnerProduct`).

    The weight of a mode is a change of `psi` by a few nats that is nearly constant over it. `tan(theta)`, a hundred and
    more at little noise, would make that a change of `base` by a percent that differs between levels; the offset
    carries it as it is, and has next to no part in the score. `unit` is what one of its output is worth in nats: the
    larger, the faster it is learned.

    With a scale for each coordinate the gain is the root of the mean of `tan(theta)^2`. It exists for `t <
    1`: at `t = 1` the gain is infinite and replaced by 1. Costs one call of `apply_fn`.
    """

    def psi(params: Any, x: jax.Array, t: Scalar) -> jax.Array:
        t = as_time(t)
        angle = path.angle(t)
        tangent = angle.sin / jnp.where(angle.cos > 0, angle.cos, angle.sin)
        gain = jnp.sqrt(jnp.mean(tangent**2)) if tangent.ndim else tangent
        found = apply_fn(params, path.standardize(x, t), t)
        base, offset = found if isinstance(found, tuple) else (found, 0.0)
        return gain * base + unit * offset

    return psi


def log_density(path: Path, psi_fn: PsiFn) -> LogDensityFn:
    """`log q(x, t) = log_reference(x, t) + psi(x, t)`."""
    return lambda x, t: path.log_reference(x, t) + psi_fn(x, t)


def relative_to(path: Path, log_density_fn: LogDensityFn) -> PsiFn:
    """`psi(x, t) = log q(x, t) - log_reference(x, t)`, the inverse of `log_density`."""
    return lambda x, t: log_density_fn(x, t) - path.log_reference(x, t)


def predict_from_psi(process: Process, psi_fn: PsiFn) -> PredictFn:
    """What a process on a Gaussian path would predict if `psi_fn` were exact: its `target_from_psi`.

    `t` is raised to .001 where it is less, since a path with `alpha_0 = 0` has no residual at 0 itself. Costs
    a gradient of `psi_fn`.
    """

    def predict(x: Any, t: Scalar) -> Any:
        later = jnp.maximum(as_time(t), FIRST_TIME)
        return process.target_from_psi(x, later, lambda y: psi_fn(y, later))

    return predict


def with_energy(path: Path, psi_fn: PsiFn, energy_fn: Callable[[Any], jax.Array]) -> PsiFn:
    """`psi_fn` at `t < 1` and that of `energy_fn` at `t = 1`: a learned energy whose last level is the true
    one.

    Both are computed where `t` is traced.
    """

    def psi(x: Any, t: Scalar) -> jax.Array:
        exact = -energy_fn(path.as_data(x)) - path.log_reference(path.as_data(x), 1.0)
        return jnp.where(as_time(t) >= 1, exact, psi_fn(x, t))

    return psi
