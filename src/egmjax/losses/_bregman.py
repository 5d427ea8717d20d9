"""Bregman divergences `D(a, b) = phi(a) - phi(b) - <a - b, grad phi(b)>`, a target, b prediction.

`grad_b D` is affine in `a`, so the minimiser over `b` of `E[D(a, b)]` is `E[a]`: regression on noisy targets
learns their mean (Generator Matching, Proposition 2). Sums run over all entries of one state.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def bregman(potential: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The divergence of a convex scalar `potential` of an array, by `jvp`."""

    def divergence(target: jax.Array, prediction: jax.Array) -> jax.Array:
        value, slope = jax.jvp(potential, (prediction,), (target - prediction,))
        return potential(target) - value - slope

    return divergence


def squared_error(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """`sum (a - b)^2`, potential `sum a^2`."""
    return jnp.sum((target - prediction) ** 2)


def cross_entropy(target: jax.Array, logits: jax.Array) -> jax.Array:
    """`-sum_y a_y log softmax(logits)_y` along the last axis, one value a row.

    The potential is the negative entropy; `KL(a || b)` up to a term that depends on the target alone and that
    is undefined where a bootstrapped target leaves the simplex. Rows of `target` sum to one in expectation.
    """
    return -jnp.sum(target * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def generalized_kl(target: jax.Array, log_prediction: jax.Array) -> jax.Array:
    """`sum a log(a / b) - a + b` with `b = exp(log_prediction)`, for rates `a >= 0`; potential `sum a log a`."""
    safe = jnp.where(target > 0, target, 1.0)
    entropy = jnp.where(target > 0, target * (jnp.log(safe) - log_prediction), 0.0)
    return jnp.sum(entropy - target + jnp.exp(log_prediction))


def linex(target: jax.Array, prediction: jax.Array, *, largest: float = 20.0) -> jax.Array:
    """`exp(e) - e - 1`, `e = target - prediction`: the divergence of `exp`, up to a factor `exp(prediction)`.

    Its minimiser satisfies `E exp(target) = exp(prediction)`. Beyond `e = largest` it goes on along its tangent, so
    that nothing overflows in float32.
    """
    error = target - prediction
    capped = jnp.minimum(error, largest)
    return jnp.sum(jnp.exp(capped) * (1.0 + error - capped) - error - 1.0)
