"""Free-energy differences by the multistate Bennett acceptance ratio (MBAR), energies being frozen.

    minimise over F   mean_n lse_i( log(N_i / N) + log q_i(x_n) - F_i ) + sum_i (N_i / N) F_i

over all samples of all states (Shirts, Chodera, 2008): reverse logistic regression, the classification loss
with fixed energies. Convex, and its minimum is a consistent estimate of `log Z_i` up to one constant; two
states are Bennett's acceptance ratio.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class NormalizerFit(NamedTuple):
    """`F [N]` with `F[anchor] = 0`, its asymptotic `stderr [N]`, and the largest entry of the gradient left
    over.

    `stderr` holds for independent samples; it is 0 at the anchor and inf or nan where states do not overlap.
    """

    normalizers: jax.Array
    stderr: jax.Array
    gradient: jax.Array


def fit_normalizers(
    log_q: jax.Array, counts: jax.Array, *, anchor: int = 0, num_iterations: int = 50
) -> NormalizerFit:
    """`F_i - F_anchor`, the estimate of `log Z_i - log Z_anchor`, from `log_q [n, N]`: every sample under
    every state.

    `counts [N]` is how many of the `n` samples came from each state; which ones does not matter. A state with
    count 0 gets its normaliser too, by reweighting. Each iteration takes the better of a Newton step and a
    self-consistent one, so it converges from anywhere and quadratically in the end; use float64 where
    logarithms are large. Cost `n N^2` an iteration. Raises `ValueError` for shapes that do not fit, or an
    `anchor` that is not one of the states.
    """
    log_q = jnp.asarray(log_q, dtype=jnp.result_type(float, log_q))
    counts = jnp.asarray(counts)
    if log_q.ndim != 2 or counts.shape != (log_q.shape[1],):
        raise ValueError(
            f"counts: expected one for each column of log_q, got {counts.shape} and {log_q.shape}"
        )
    num, num_states = log_q.shape
    if not -num_states <= anchor < num_states:
        raise ValueError(f"anchor: one of the {num_states} states, got {anchor}")
    share = counts.astype(log_q.dtype) / num
    sampled = share > 0
    log_share = jnp.where(sampled, jnp.log(jnp.where(sampled, share, 1.0)), -jnp.inf)
    free = jnp.arange(num_states) != anchor % num_states

    def posterior(f: jax.Array) -> jax.Array:
        return jax.nn.softmax(log_share[None, :] + log_q - f[None, :], axis=1)

    def consistent(f: jax.Array) -> jax.Array:
        """`F_i = log mean_n [ q_i(x_n) / sum_j (N_j / N) q_j(x_n) e^{-F_j} ]`; exact for states without
        samples."""
        log_mixture = jax.nn.logsumexp(log_share[None, :] + log_q - f[None, :], axis=1)
        new = jax.nn.logsumexp(log_q - log_mixture[:, None], axis=0) - jnp.log(num)
        return new - new[anchor]

    def hessian(probs: jax.Array) -> jax.Array:
        full = jnp.diag(jnp.mean(probs, axis=0)) - probs.T @ probs / num
        active = free & sampled
        both = active[:, None] & active[None, :]
        return jnp.where(both, full, jnp.eye(num_states, dtype=full.dtype))

    def residual(f: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(share - jnp.mean(posterior(f), axis=0)))

    def iterate(f: jax.Array, _: None) -> tuple[jax.Array, None]:
        probs = posterior(f)
        gradient = jnp.where(free & sampled, share - jnp.mean(probs, axis=0), 0.0)
        newton = f - jnp.linalg.solve(hessian(probs), gradient)
        fixed = consistent(f)
        newton = jnp.where(sampled, newton, fixed)
        better = residual(newton) < residual(fixed)  # nan counts as worse
        return jnp.where(better, newton, fixed), None

    with jax.default_matmul_precision("highest"):
        start = jnp.mean(log_q, axis=0)
        f, _ = jax.lax.scan(iterate, start - start[anchor], None, length=num_iterations)
        f = jnp.where(sampled, f, consistent(f))
        inverse = jnp.diagonal(jnp.linalg.inv(hessian(posterior(f)))) / num
    # counts are fixed, not drawn: their share of the variance of the logistic regression is taken off
    counted = jnp.where(sampled, 1.0 / (num * jnp.where(sampled, share, 1.0)), jnp.inf)
    variance = inverse - counted - counted[anchor]
    stderr = jnp.where(free, jnp.sqrt(jnp.maximum(variance, 0.0)), 0.0)
    return NormalizerFit(f, jnp.where(sampled | ~free, stderr, jnp.nan), residual(f))
