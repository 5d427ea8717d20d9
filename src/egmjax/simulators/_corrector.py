"""Predictor-corrector steps: a step ahead, then moves at the new time that leave its marginal alone.

    predictor    x_t -> x_s                      the process's step
    corrector    x_s -> x_t' -> x_s              its backward kernel, then its step;   s - t' = c(s) (s - t)

With an exact model a correction keeps `p_s`, whatever came before it, so errors that earlier steps have made fade.
As steps shrink the chain is that of `(1 + c) L + c Lbar` (`generators.predictor_corrector`).

The weight stays exact. Seen backwards a correction is again "back, then forth", so each multiplies the weight by

    [b(x_t' | x_s') / k(x_s' | x_t')] / [b(x_t' | x_s) / k(x_s | x_t')]

for the move `x_s -> x_t' -> x_s'`: an increment less an increment, of the same step of the same process. With an exact
model both are one, and a correction costs nothing; a poor one pays for it in variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..paths._base import Scalar
from ..processes import PredictFn, Process

CorrectorFn = Callable[[jax.Array], jax.Array]  # t -> c_t >= 0


class Moves(NamedTuple):
    """One step of a chain, `advance(key, xt, predict_fn, t, s)` and `retreat(key, xs, predict_fn, t, s)`.

    Both return the state at the other end and the increment of the log-weight.
    """

    advance: Callable[[jax.Array, Any, PredictFn, Scalar, Scalar], tuple[Any, jax.Array]]
    retreat: Callable[[jax.Array, Any, PredictFn, Scalar, Scalar], tuple[Any, jax.Array]]


def plain_moves(process: Process) -> Moves:
    """The step of the process, and its backward kernel."""

    def retreat(key: jax.Array, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar) -> tuple:
        xt = process.backward(key, xs, predict_fn, t, s)
        return xt, process.increment(key, xt, xs, predict_fn, t, s)

    return Moves(lambda key, xt, predict_fn, t, s: process.step(key, xt, predict_fn, t, s), retreat)


def corrected_moves(process: Process, corrector_fn: CorrectorFn, num_corrections: int) -> Moves:
    """`plain_moves` with `num_corrections` corrections at the end of each step ahead."""
    plain = plain_moves(process)

    def correct(key: jax.Array, x: Any, predict_fn: PredictFn, t: Scalar, s: Scalar, ahead: bool) -> tuple:
        back = jnp.maximum(s - corrector_fn(jnp.asarray(s)) * (s - t), 0.0)
        active = back < s
        start = jnp.where(active, back, t)  # any earlier time serves where nothing is to move
        key_back, key_forth = jax.random.split(key)
        between, left = plain.retreat(key_back, x, predict_fn, start, s)
        moved, entered = plain.advance(key_forth, between, predict_fn, start, s)
        gain = entered - left if ahead else left - entered
        return jax.tree.map(lambda a, b: jnp.where(active, a, b), (moved, gain), (x, jnp.zeros_like(gain)))

    def corrections(
        key: jax.Array, x: Any, predict_fn: PredictFn, t: Scalar, s: Scalar, ahead: bool
    ) -> tuple:
        def body(carry: tuple, key_n: jax.Array) -> tuple:
            x, total = carry
            x, gain = correct(key_n, x, predict_fn, t, s, ahead)
            return (x, total + gain), None

        keys = jax.random.split(key, num_corrections)
        (x, total), _ = jax.lax.scan(body, (x, jnp.zeros(())), keys, reverse=not ahead)
        return x, total

    def advance(key: jax.Array, xt: Any, predict_fn: PredictFn, t: Scalar, s: Scalar) -> tuple:
        key_step, key_correct = jax.random.split(key)
        xs, increment = plain.advance(key_step, xt, predict_fn, t, s)
        xs, gain = corrections(key_correct, xs, predict_fn, t, s, True)
        return xs, increment + gain

    def retreat(key: jax.Array, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar) -> tuple:
        key_step, key_correct = jax.random.split(key)
        xs, gain = corrections(key_correct, xs, predict_fn, t, s, False)
        xt, increment = plain.retreat(key_step, xs, predict_fn, t, s)
        return xt, increment + gain

    return Moves(advance, retreat)
