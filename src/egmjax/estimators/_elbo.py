"""The evidence lower bound of a jump process in continuous time.

    -log p_1(x_1)  <=  integral_0^1 E_{x_t ~ p_t(. | x_1)} sum_i sum_y D(Q[i, y | x_1], Q[i, y]) dt,
    D(a, b) = a log(a / b) - a + b

`Q` are the rates of the model and `Q[. | x_1]` those of its path given the endpoint, both off the diagonal; the right
side is the Kullback-Leibler divergence between the laws of the two chains (Holderrieth et al., Generator
Matching, appendix D; Campbell et al., 2022). On a path that is Markov the exact posterior attains it, for every
`x_1`; on others the chains given their endpoints do not mix to a Markov chain, and a gap remains.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..processes import JumpProcess, PredictFn

DEFAULT_CHUNK = 64


class ELBOEstimate(NamedTuple):
    """`elbo`, unbiased, in nats; its `standard_error`; `num_nonfinite` times at which the bound was not finite.

    Strata make the error smaller than `standard_error` says. A rate of zero where the path jumps makes the
    bound `-inf`, which is counted and not removed.
    """

    elbo: jax.Array
    standard_error: jax.Array
    num_nonfinite: jax.Array


def elbo(
    key: jax.Array,
    x1: jax.Array,
    *,
    process: JumpProcess,
    predict_fn: PredictFn,
    num_times: int,
    chunk_size: int = DEFAULT_CHUNK,
) -> ELBOEstimate:
    """A lower bound on `log p_1(x_1)` of the chain with the model's rates, at one state; batch with `jax.vmap`.

    `num_times` stratified times, denser towards 1, one state `x_t` and one network call each, `chunk_size` of them
    at once; differentiable in the network. It is a bound for the chain in continuous time, not for that of a sampler
    with steps: for those see `Sampler.log_weight`. With evidence on the path it bounds the conditional
    log-probability. Raises `ValueError` for a process that is not a `JumpProcess`, `num_times < 1`, `chunk_size < 1`.
    """
    if not isinstance(process, JumpProcess):
        raise ValueError(f"process: the bound needs a JumpProcess, got {type(process).__name__}")
    for name, value in (("num_times", num_times), ("chunk_size", chunk_size)):
        if value < 1:
            raise ValueError(f"{name}: at least 1, got {value}")
    key_time, key_state = jax.random.split(key)
    # t = 1 - v^2: the second moment of the integrand grows like 1 / (1 - t), and its integral over v is finite
    v = (jnp.arange(num_times) + jax.random.uniform(key_time, (num_times,))) / num_times
    endpoint = jax.nn.one_hot(x1, process.prediction_shape()[-1], dtype=float)

    def integrand(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        key_t, v = inputs
        t = 1.0 - v**2
        xt = process.path.sample(key_t, x1, t)
        posterior = jnp.exp(process.posterior(predict_fn(xt, t), xt, t))
        rates = (process.intensities(p, xt, t) for p in (endpoint, posterior))
        return 2.0 * v * _generalized_kl(*rates)

    keys = jax.random.split(key_state, num_times)
    values = jax.lax.map(integrand, (keys, v), batch_size=min(chunk_size, num_times))
    spread = jnp.std(values, ddof=1) if num_times > 1 else jnp.full((), jnp.nan)
    bad = jnp.sum(~jnp.isfinite(values), dtype=jnp.int32)
    return ELBOEstimate(-jnp.mean(values), spread / num_times**0.5, bad)


def _generalized_kl(target: jax.Array, rates: jax.Array) -> jax.Array:
    """`sum a log(a / b) - a + b` as `a (u - log(1 + u))`, `u = b / a - 1`: large and nearly equal rates cancel."""
    jumps = target > 0
    safe = jnp.where(jumps, target, 1.0)
    excess = jnp.where(jumps, (rates - safe) / safe, 0.0)
    return jnp.sum(jnp.where(jumps, target * (excess - jnp.log1p(excess)), rates))
