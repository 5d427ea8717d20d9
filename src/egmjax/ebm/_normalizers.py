"""Free-energy differences by the multistate Bennett acceptance ratio (MBAR), energies being frozen.

    minimise over F   mean_n lse_i( log(N_i / N) + log q_i(x_n) - F_i ) + sum_i (N_i / N) F_i

over all samples of all states (Shirts, Chodera, 2008): reverse logistic regression, the classification loss
with fixed energies. Convex, and its minimum is a consistent estimate of `log Z_i` up to one constant; two
states are Bennett's acceptance ratio.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class NormalizerFit(NamedTuple):
    """`F [N]` with `F[anchor] = 0`, its asymptotic `stderr [N]`, and the largest entry of the gradient left
    over.

    `stderr` holds for independent samples; it is 0 at the anchor and nan for a state without samples.
    """

    normalizers: jax.Array
    stderr: jax.Array
    gradient: jax.Array


def fit_normalizers(
    log_q: jax.Array, counts: jax.Array, *, anchor: int = 0, max_iterations: int = 200
) -> NormalizerFit:
    """`F_i - F_anchor`, the estimate of `log Z_i - log Z_anchor`, from `log_q [n, N]`: all samples under all
    states.

    `counts [N]` is how many of the `n` samples came from each state; which ones does not matter. A state with
    count 0 gets its normaliser too, by reweighting, but no error. Newton's method, damped by the spread `b`
    of a step as `log(1 + b) / b`: a logistic loss bends no faster than that, so it converges from anywhere,
    in tens of iterations of cost `n N^2`. Read `gradient`: where neighbours do not overlap it may stop short.
    Raises `ValueError` for shapes that do not fit, or an `anchor` that is not one of the states.
    """
    log_q = jnp.asarray(log_q, dtype=jnp.result_type(float, log_q))
    counts = jnp.asarray(counts)
    if log_q.ndim != 2 or counts.shape != (log_q.shape[1],):
        raise ValueError(
            f"counts: expected one for each column of log_q, got {counts.shape} and {log_q.shape}"
        )
    num_states = log_q.shape[1]
    if not -num_states <= anchor < num_states:
        raise ValueError(f"anchor: one of the {num_states} states, got {anchor}")
    return _fit(log_q, counts, anchor % num_states, max_iterations)


@functools.partial(jax.jit, static_argnames=("anchor", "max_iterations"))
def _fit(log_q: jax.Array, counts: jax.Array, anchor: int, max_iterations: int) -> NormalizerFit:
    num, num_states = log_q.shape
    share = counts.astype(log_q.dtype) / num
    sampled = share > 0
    log_share = jnp.where(sampled, jnp.log(jnp.where(sampled, share, 1.0)), -jnp.inf)
    free = sampled & (jnp.arange(num_states) != anchor)
    tolerance = 10.0 * jnp.finfo(log_q.dtype).eps

    def derivatives(f: jax.Array) -> tuple[jax.Array, jax.Array]:
        probs = jax.nn.softmax(log_share[None, :] + log_q - f[None, :], axis=1)
        means = jnp.mean(probs, axis=0)
        both = free[:, None] & free[None, :]
        hessian = jnp.where(both, jnp.diag(means) - probs.T @ probs / num, jnp.eye(num_states))
        return jnp.where(free, share - means, 0.0), hessian

    def unfinished(carry: tuple) -> jax.Array:
        _, gradient, _, count = carry
        return (jnp.max(jnp.abs(gradient)) > tolerance) & (count < max_iterations)

    def newton(carry: tuple) -> tuple:
        f, gradient, hessian, count = carry
        step = -jnp.linalg.solve(hessian, gradient)
        spread = jnp.max(step) - jnp.min(step)
        short = spread < 1e-3
        damping = jnp.where(short, 1.0, jnp.log1p(spread) / jnp.where(short, 1.0, spread))
        f = f + damping * step
        return f, *derivatives(f), count + 1

    with jax.default_matmul_precision("highest"):
        start = jnp.mean(log_q, axis=0)
        start = start - start[anchor]
        f, gradient, hessian, _ = jax.lax.while_loop(
            unfinished, newton, (start, *derivatives(start), jnp.int32(0))
        )
        log_mixture = jax.nn.logsumexp(log_share[None, :] + log_q - f[None, :], axis=1)
        reweighted = jax.nn.logsumexp(log_q - log_mixture[:, None], axis=0) - jnp.log(num)
        inverse = jnp.diagonal(jnp.linalg.inv(hessian)) / num
    # counts are fixed, not drawn: their share of the variance of the logistic regression is taken off
    counted = 1.0 / (num * jnp.where(sampled, share, 1.0))
    stderr = jnp.sqrt(jnp.maximum(inverse - counted - counted[anchor], 0.0))
    stderr = jnp.where(free, stderr, jnp.where(sampled, 0.0, jnp.nan))
    return NormalizerFit(jnp.where(sampled, f, reweighted), stderr, jnp.max(jnp.abs(gradient)))
