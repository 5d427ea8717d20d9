"""Metropolis-adjusted Langevin moves and Gibbs sweeps in turn, for a state of real and categorical parts.

    y' ~ q(. | y) = N(y - h grad_y E(y, d), 2 h I)
    accepted with probability  min(1, exp(E(y, d) - E(y', d)) q(y | y') / q(y' | y))
    then  d_i ~ softmax_s(-E(y, d[i <- s]))  site by site

Both halves leave `exp(-E)` invariant (Roberts and Tweedie, 1996; Geman and Geman, 1984). The ratio of
proposals is no formality: for small `h` the proposal is nearly reversible for `exp(-E)` itself, and
accepting with `exp(E - E')` alone samples about `exp(-2 E)`.

The Langevin move is blackjax's, imported when a kernel is built: with the categorical part held fixed the
real part has an ordinary log-density, and the cached gradient is renewed once a step, after the sweep has
changed it.

Where energies grow faster than quadratically a chain that starts far out is stuck there, since every step
overshoots: start close to the modes, and look at `acceptance_rate` chain by chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..states import Categorical, Real, Space
from ._gibbs import GibbsState, Scan, gibbs

__all__ = ["MalaWithinGibbs", "MalaWithinGibbsInfo", "MalaWithinGibbsState", "mala_within_gibbs"]


class MalaWithinGibbsState(NamedTuple):
    """`position`: one state of the space, a tuple."""

    position: tuple[jax.Array, ...]


class MalaWithinGibbsInfo(NamedTuple):
    """`acceptance_rate`: mean acceptance probability of the Langevin moves of this step, a floating scalar;
    `num_changed`: sites whose symbol changed, an integer scalar.
    """

    acceptance_rate: jax.Array
    num_changed: jax.Array


class MalaWithinGibbs(NamedTuple):
    """`init(position) -> state` and `step(key, state) -> (state, info)`, for one chain."""

    init: Callable[[tuple[Any, ...]], MalaWithinGibbsState]
    step: Callable[[jax.Array, MalaWithinGibbsState], tuple[MalaWithinGibbsState, MalaWithinGibbsInfo]]


def mala_within_gibbs(
    energy_fn: Callable[[Any], jax.Array],
    space: Space,
    *,
    step_size: float | jax.Array,
    num_mala: int = 1,
    scan: Scan = "systematic",
) -> MalaWithinGibbs:
    """A kernel for `exp(-energy_fn)` on a tuple of one `Real` and one `Categorical` space, in either order.

    Args:
        energy_fn: One state `-> scalar`, differentiable in the real part.
        space: `(Real(shape), Categorical(sites, num_states))`, or the other way round.
        step_size: `h > 0`, in squared units of the real part; may be traced.
        num_mala: Langevin moves before each Gibbs sweep.
        scan: The order of the Gibbs sweep, `"systematic"` or `"random"`.

    Raises:
        ValueError: `space` is another kind, `num_mala < 1`, `step_size` is a number not above zero, or
            `scan` is neither name.

    A step costs `num_mala + 1` gradients and `sites * num_states` energies. Needs blackjax.
    """
    kinds = [type(part) for part in space] if isinstance(space, tuple) else []
    if kinds not in ([Real, Categorical], [Categorical, Real]):
        raise ValueError(f"space: expected a tuple of one Real and one Categorical, got {space}")
    if not isinstance(num_mala, int) or num_mala < 1:
        raise ValueError(f"num_mala: expected an integer of at least 1, got {num_mala!r}")
    if not isinstance(step_size, jax.core.Tracer) and not float(step_size) > 0:
        raise ValueError(f"step_size: expected a positive number, got {float(step_size)}")
    from blackjax.mcmc import mala

    real, symbols = kinds.index(Real), kinds.index(Categorical)
    categorical = space[symbols]  # type: ignore[index]
    gibbs(lambda d: jnp.zeros(()), categorical, scan=scan)  # refuses a wrong `scan` now rather than in `step`
    langevin = mala.build_kernel()

    def join(y: jax.Array, d: jax.Array) -> tuple[jax.Array, ...]:
        return (y, d) if real == 0 else (d, y)

    def init(position: tuple[Any, ...]) -> MalaWithinGibbsState:
        y = jnp.asarray(position[real], dtype=float)
        return MalaWithinGibbsState(join(y, jnp.asarray(position[symbols], dtype=jnp.int32)))

    def step(key: jax.Array, state: MalaWithinGibbsState) -> tuple[MalaWithinGibbsState, MalaWithinGibbsInfo]:
        key_mala, key_gibbs = jax.random.split(key)
        y, d = state.position[real], state.position[symbols]

        def log_density(y: jax.Array) -> jax.Array:
            return -energy_fn(join(y, d))

        def move(carry: mala.MALAState, key: jax.Array) -> tuple[mala.MALAState, jax.Array]:
            carry, info = langevin(key, carry, log_density, step_size)
            return carry, jnp.nan_to_num(info.acceptance_rate)  # an energy that is nan declines

        moved, rates = jax.lax.scan(move, mala.init(y, log_density), jax.random.split(key_mala, num_mala))
        y = moved.position
        sweep = gibbs(lambda d: energy_fn(join(y, d)), categorical, scan=scan)
        swept, info = sweep.step(key_gibbs, GibbsState(d))
        new = MalaWithinGibbsState(join(y, swept.position))
        return new, MalaWithinGibbsInfo(jnp.mean(rates), info.num_changed)

    return MalaWithinGibbs(init, step)
