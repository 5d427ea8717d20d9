"""A few invariant moves for a state of any space, for refreshing samples that are held already.

Categorical: Gibbs sweeps      Real: Metropolis-adjusted Langevin      one of each: both in turn
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ..states import Categorical, Real, Space
from ._gibbs import gibbs
from ._mala_within_gibbs import mala_within_gibbs

__all__ = ["RefreshFn", "refreshing_moves"]

RefreshFn = Callable[[jax.Array, Any, Callable[[Any], jax.Array]], Any]


def refreshing_moves(
    space: Space, *, num_steps: int, step_size: float | jax.Array | None = None
) -> RefreshFn:
    """`refresh(key, x, log_density_fn) -> x`: `num_steps` moves of one state that leave `exp(log_density_fn)` as it is.

    Args:
        space: `Categorical`, `Real`, or a tuple of one of each.
        num_steps: Gibbs sweeps, Langevin moves, or pairs of them.
        step_size: Of the Langevin moves, in squared units of the real part; needed where there is one.

    Raises:
        ValueError: `num_steps < 1`, another space, or a real part and no `step_size`.

    A sweep costs `sites * num_states` densities, a Langevin move a gradient. Real parts need blackjax.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: at least 1, got {num_steps}")
    if not isinstance(space, Categorical) and step_size is None:
        raise ValueError(f"step_size: needed for the real part of {space}")

    def repeat(key: jax.Array, state: Any, step: Callable[[jax.Array, Any], tuple[Any, Any]]) -> Any:
        moved, _ = jax.lax.scan(lambda s, k: (step(k, s)[0], None), state, jax.random.split(key, num_steps))
        return moved.position

    def refresh(key: jax.Array, x: Any, log_density_fn: Callable[[Any], jax.Array]) -> Any:
        def energy_fn(y: Any) -> jax.Array:
            return -log_density_fn(y)

        if isinstance(space, Categorical):
            sweeps = gibbs(energy_fn, space)
            return repeat(key, sweeps.init(x), sweeps.step)
        assert step_size is not None
        if isinstance(space, Real):
            from blackjax.mcmc import mala

            kernel = mala.build_kernel()
            start = mala.init(x, log_density_fn)
            return repeat(key, start, lambda k, s: kernel(k, s, log_density_fn, step_size))
        mixed = mala_within_gibbs(energy_fn, space, step_size=step_size)
        return repeat(key, mixed.init(x), mixed.step)

    return refresh
