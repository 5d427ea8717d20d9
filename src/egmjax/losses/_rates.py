"""Divergences of jump rates: the infinitesimal Kullback-Leibler divergence of two jump processes.

    D(Q, Q_theta) = sum_{y != x} Q log(Q / Q_theta) - Q + Q_theta

Its integral over `t` is the divergence of the laws of paths, hence a bound on that of the samples. Source: Generator
Matching, appendix D.2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def jump_kl(rate: jax.Array, law: jax.Array, log_rate: jax.Array, logits: jax.Array) -> jax.Array:
    """`D` of `Q = rate law` and `Q_theta = exp(log_rate) softmax(logits)`, in polar form, summed over rows.

    `(lambda_theta - lambda + lambda log(lambda / lambda_theta)) + lambda KL(J | J_theta)`: a Poisson part and a
    rate-weighted cross-entropy. No product of small numbers meets a logarithm, and where `Q = 0` nothing but
    `Q_theta` counts. `rate`, `log_rate [...]`; `law`, `logits [..., S]`, `law` summing to one along the last axis.
    """
    rate_part = _entropy(rate) - rate * log_rate - rate + jnp.exp(log_rate)
    divergence = jnp.sum(_entropy(law) - law * jax.nn.log_softmax(logits, axis=-1), axis=-1)
    return jnp.sum(rate_part + rate * divergence)


def mixture_kl(target: jax.Array, log_posterior: jax.Array, xt: jax.Array) -> jax.Array:
    """`D / c` of the rates `c (p(y) - 1{y = x_t})` of a mixture path, `c = kappa' / (1 - kappa)`; one value a site.

    `-[p_theta(x_t) - p(x_t) + sum_{y != x_t} p(y) log p_theta(y)]` plus what depends on `target = p [sites, S]`
    alone: nothing for one-hot targets. A symbol that is right already costs no cross-entropy. `log_posterior
    [sites, S]` is normalised, `xt [sites]`; a mask, the symbol `S`, has no column and leaves the cross-entropy.
    Times the hazard it integrates to an ELBO of the process that jumps to its guess of `x_1` by the clock alone.
    """
    here = xt[..., None] == jnp.arange(target.shape[-1]).reshape((1,) * xt.ndim + (-1,))
    stay = jnp.sum(jnp.where(here, jnp.exp(log_posterior) - target, 0.0), axis=-1)
    away = jnp.where(here | (target == 0), 0.0, target * jnp.where(target == 0, 0.0, log_posterior))
    return -stay - jnp.sum(away, axis=-1)


def _entropy(x: jax.Array) -> jax.Array:
    """`x log x`, zero at zero."""
    return x * jnp.log(jnp.where(x > 0, x, 1.0))
