"""Energies learned by matching derivatives: in `x` (denoising score matching) or in `t` (time score
matching)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..paths import GaussianPath
from ..paths._base import Scalar
from ..processes import Process
from ..training import Context, Examples, Objective, PsiApplyFn, weighted_objective


def score_matching_objective(
    process: Process,
    psi_apply_fn: PsiApplyFn,
    *,
    weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
) -> Objective:
    """Denoising score matching of an energy: `weighted_objective` whose prediction is that of `grad psi`.

    With a residual head and weight 1 it is `lambda(sigma) |D(x_t, t) - x_1|^2`, `lambda = (sigma^2 + v) /
    (sigma^2 v)` (Karras et al., 2022), summed over dimensions. It leaves a function of `t`, and in practice
    the weight of every separate mode at every level, undetermined. Costs a value, a gradient and a gradient
    of that.
    """

    def implied(params: Any, x: Any, t: jax.Array) -> Any:
        return process.target_from_psi(x, t, lambda y: psi_apply_fn(params, y, t))

    return weighted_objective(process, implied, weight_fn=weight_fn)


def time_score(path: GaussianPath, xt: jax.Array, x1: jax.Array, t: Scalar) -> jax.Array:
    """`d/dt log p_{t|1}(x_t | x_1)` at fixed states, by forward differentiation of the path's own density.

    It is `(sigma'/sigma) (|eps|^2 - d) + (alpha'/sigma) <x_1, eps>`, `eps = (x_t - alpha x_1) / sigma`.
    """
    t = jnp.asarray(t, dtype=float)
    return jax.jvp(lambda u: path.log_prob(xt, x1, u), (t,), (jnp.ones_like(t),))[1]


def log_snr_weight(path: GaussianPath) -> Callable[[jax.Array], jax.Array]:
    """`1 / (d log tan(theta) / dt)^2`: time scores are then compared per unit of `log(alpha / sigma)`."""

    def weight(t: jax.Array) -> jax.Array:
        angle = path.angle(t)
        return jnp.mean((angle.sin * angle.cos / path.angular_speed(t)) ** 2)

    return weight


def time_score_objective(
    path: GaussianPath,
    psi_apply_fn: PsiApplyFn,
    *,
    weight_fn: Callable[[jax.Array], jax.Array] | None = None,
) -> Objective:
    """Regression of `d/dt log q(x_t, t)` on `time_score` (conditional time score matching, arXiv 2502.02300).

    Its minimiser is `d/dt log p_t`, a function of the state remains free. `weight_fn(t)` is
    `log_snr_weight(path)` unless given; the loss is divided by the dimension, as the target's variance is
    about `2 d`. Times are the trainer's. Costs a forward derivative of `psi` in `t`, differentiated in the
    parameters.
    """
    weigh = log_snr_weight(path) if weight_fn is None else weight_fn

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Examples, dict]:
        xt = jax.vmap(path.sample)(jax.random.split(key, t.shape[0]), x1, t)
        target = jax.vmap(lambda x, y, ti: time_score(path, x, y, ti))(xt, x1, t)
        return Examples(xt, t, target, jax.vmap(weigh)(t)), {}

    def loss(params: Any, example: Examples) -> jax.Array:
        x, t = example.xt, example.t
        value = lambda u: path.log_reference(x, u) + psi_apply_fn(params, x, u)  # noqa: E731
        slope = jax.jvp(value, (t,), (jnp.ones_like(t),))[1]
        return example.weight * (slope - example.target) ** 2 / x.size

    return Objective(examples, loss, weighted=True, num_energies=0)
