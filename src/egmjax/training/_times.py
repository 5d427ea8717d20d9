"""Laws of the training times `t`: all are stratified draws through a quantile function.

    t_i = last_time q((pi_i + u_i) / n),     pi a random permutation, u_i uniform in [0, 1)

Each of `n` equally likely strata is hit once, so a batch sees the whole clock. Another law than the uniform one is
another weighting of the loss in `t`: the minimiser is the same, the noise of its gradient is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

TimeFn = Callable[[jax.Array, int], jax.Array]  # (key, num) -> t [num] in [0, 1)


def stratified_times(
    quantile_fn: Callable[[jax.Array], jax.Array] = lambda u: u, *, last_time: float = 0.999
) -> TimeFn:
    """`quantile_fn` of stratified uniform numbers, times `last_time`; the identity, the default, is uniform in time.

    `quantile_fn` increases from `[0, 1]` to `[0, 1]`. Close to 1 the hazard of a masked site, `1 / (1 - t)`, is all
    noise, hence `last_time`. Raises `ValueError` unless it lies in (0, 1].
    """
    if not 0 < last_time <= 1:
        raise ValueError(f"last_time: in (0, 1], got {last_time}")

    def times(key: jax.Array, num: int) -> jax.Array:
        strata = jax.random.permutation(jax.random.fold_in(key, 1), num)
        u = (strata + jax.random.uniform(key, (num,))) / num
        return last_time * quantile_fn(u)

    return times


def logit_normal_times(mean: float = 0.0, std: float = 1.0, *, last_time: float = 0.999) -> TimeFn:
    """`t = last_time sigmoid(mean + std n)`, `n` standard normal: more of the middle, or of an end, of the clock.

    `mean = std = 1.2` is the skewed law often used for images (Flow Matching Guide). Raises `ValueError` unless
    `std` is positive.
    """
    if not 0 < std < math.inf or not math.isfinite(mean):
        raise ValueError(f"std: must be positive and finite with a finite mean, got {std} and {mean}")
    return stratified_times(
        lambda u: jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(u)), last_time=last_time
    )


def log_times(*, last_time: float = 0.999) -> TimeFn:
    """Uniform in `-log(1 - t)` on `[0, last_time]`, density `~ 1 / (1 - t)`: levels the hazard of a masked site.

    With it `weight_fn(t) = 1 - t` leaves the loss what it is under uniform times, up to a factor. Raises `ValueError`
    unless `0 < last_time < 1`.
    """
    if not 0 < last_time < 1:
        raise ValueError(f"last_time: in (0, 1), got {last_time}")
    end = math.log1p(-last_time)
    return stratified_times(lambda u: -jnp.expm1(u * end) / last_time, last_time=last_time)
