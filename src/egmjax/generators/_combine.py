"""Combining generators after training (Holderrieth et al., Generator Matching, Proposition 3).

    predictor-corrector   (1 + c) L + c Lbar       Lbar solves the forward equation backwards in time
    divergence-free       L + beta L0              <p_t, L0 f> = 0: `langevin`, `metropolis`, `gibbs`
    guidance              linear for velocities, geometric for rates; does not keep p_t

The first two keep the marginals `p_t` that `L` carries along, provided that both generators are of the same `p_t`;
with a learned one, up to the errors of the model. Factors may depend on time.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._algebra import superpose
from ._generators import KINDS, Diffusion, Flow, Generator, Jump


def predictor_corrector(forward: Generator, backward: Generator, amount: jax.typing.ArrayLike) -> Generator:
    """`(1 + c) L + c Lbar` with `c = amount >= 0`, which should vanish at `t=0`, where `Lbar` is often infinite.

    `forward` is `Process.generator`, `backward` is `Process.backward_generator`. `L + Lbar` leaves `p_t` alone: for a
    diffusion it is Langevin dynamics, so that a `DiffusionProcess` at `noise (1 + 2 c)` is this generator.
    """
    return superpose([forward, backward], [1.0 + amount, amount])


def langevin(score: jax.Array, noise: jax.typing.ArrayLike) -> Diffusion:
    """Drift `noise^2 score / 2`, covariance `noise^2`: leaves the density with that score alone."""
    square = jnp.square(jnp.asarray(noise, dtype=float))
    return Diffusion(0.5 * square * score, square)


def metropolis(log_ratios: jax.Array, rate: float | jax.Array = 1.0) -> Jump:
    """`Q[i, y] = rate / S min(1, p(x[i <- y]) / p(x))`: symbols proposed uniformly, accepted by Metropolis.

    `log_ratios [sites, S] = log p(x[i <- y]) - log p(x)`, e.g. `JumpProcess.log_ratios`. Reversible under `p`.
    """
    return Jump(rate / log_ratios.shape[-1] * jnp.exp(jnp.minimum(log_ratios, 0.0)))


def gibbs(log_ratios: jax.Array, rate: float | jax.Array = 1.0) -> Jump:
    """`Q[i, y] = rate p(x_i = y | the other sites)`: every site redrawn at `rate`. Reversible under `p`."""
    return Jump(rate * jax.nn.softmax(log_ratios, axis=-1))


def guided(conditional: Generator, unconditional: Generator, weight: float | jax.Array) -> Generator:
    """Velocities `(1 + w) u_c - w u`, rates `Q_c^{1 + w} Q^{-w}`, components of a product on their own.

    Rates stay positive, where a linear extrapolation would not; a rate that is zero in either stays zero. The
    result is no generator of a known marginal. Raises `ValueError` for generators of unlike or other kinds: the
    difference of two diffusions needs their scores, for which see `processes.guide`.
    """
    match conditional, unconditional:
        case Flow(u), Flow(v):
            return Flow((1.0 + weight) * u - weight * v)
        case Jump(q), Jump(p):
            both = (q > 0) & (p > 0)
            logs = (jnp.log(jnp.where(both, a, 1.0)) for a in (q, p))
            log_q, log_p = logs
            return Jump(jnp.where(both, jnp.exp((1.0 + weight) * log_q - weight * log_p), 0.0))
    if isinstance(conditional, KINDS) or isinstance(unconditional, KINDS):
        kinds = f"{type(conditional).__name__} and {type(unconditional).__name__}"
        raise ValueError(
            f"conditional: guidance is for two flows, two jumps or products of them, got {kinds}"
        )
    if len(conditional) != len(unconditional):
        sizes = f"{len(conditional)} and {len(unconditional)}"
        raise ValueError(f"conditional: products of unlike numbers of components {sizes}")
    return tuple(guided(c, u, weight) for c, u in zip(conditional, unconditional))
