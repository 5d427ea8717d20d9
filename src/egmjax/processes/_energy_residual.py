"""What the gradient of an energy says of a residual, for a network to start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..paths import GaussianPath
from ..paths._base import Scalar


def energy_residual(
    path: GaussianPath, psi_fn: Callable[[jax.Array, Any], jax.Array], *, detail: float | jax.Array = 1.0
) -> Callable[[jax.Array, Scalar], jax.Array]:
    """`(x_t, t) -> eta`, the residual of a target that is a single mode, Gaussian and of width `w = detail * scale`.

        eta = c g / (1 + c^2 (1 / w^2 - 1 / scale^2)),     g = grad psi(m, 1)

    with `m`, `c` the reference's belief about the endpoint. For such a target it is exact wherever the mode stands. For
    any other with `detail = 1` it is Tweedie's formula `eta = c E[grad psi(x_1, 1) | x_t]` with the mean taken into the
    gradient, right as `t` approaches 1; a smaller `detail` keeps it from being as large as `c g` before that. Where
    there are several modes it points to the one nearest to `m`, and which it is to be is left to learn.

    `psi_fn` as of `estimators.psi_from_energy`; `detail` as of `DiffusionProcess`. A gradient that is not finite counts
    as zero. Costs a gradient of the energy a call.
    """

    def residual(xt: jax.Array, t: Scalar) -> jax.Array:
        belief = path.endpoint_belief(xt, t)
        with jax.default_matmul_precision("highest"):
            gradient = jax.grad(lambda x: psi_fn(x, 1.0))(belief.mean)
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
        share = jnp.square(belief.scale / path.scale)
        return belief.scale * gradient / (1.0 + share * (1.0 / jnp.square(detail) - 1.0))

    return residual
