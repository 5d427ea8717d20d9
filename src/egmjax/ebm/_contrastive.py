"""Energies learned by telling a move from its reverse, on any path, masks included.

Bayes' rule of a path, `p_{t|r}(x_t | x_r) reference_r(x_r) = reference_t(x_t) propose(x_r | x_t)`, turns every such
question into one about `psi` alone:

    temporal   (x_r ~ p_r, noised to x_t)   against   (x_t ~ p_t, x_r proposed)
               logit psi(x_r, r) - psi(x_t, t)
    spatial    x ~ p_r, moved to y by noising to t and proposing back, against y -> x
               logit psi(x, r) - psi(y, r)

At its minimum the first gives `psi(x_r, r) - psi(x_t, t)` of the marginals wherever both can be: it relates states and
times at once (spatio-temporal noise contrastive estimation, cf. arXiv 2605.26850), and determines `psi` up to one
constant, or altogether where it is known at `r = 1`. The second is conditional noise contrastive estimation (Ceylan,
Gutmann, 2018) with a kernel that is reversible under the reference; like score matching it is local, and blind to the
weights of separate modes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..estimators import PsiFn
from ..paths import Path
from ..processes import Process
from ..training import Context, Objective, PsiApplyFn

LaterFn = Callable[[jax.Array], jax.Array]  # t -> r, t < r <= 1


class Pairs(NamedTuple):
    """States `xr` at `r` and `xt` at `t`; `key` of a step, where one is made; `known` is `psi(xr, 1)`, where it is."""

    xr: Any
    xt: Any
    r: jax.Array
    t: jax.Array
    key: jax.Array
    known: jax.Array | None = None


def halfway(t: jax.Array) -> jax.Array:
    """`r = (1 + t) / 2`."""
    return 0.5 * (1.0 + t)


def move_contrastive_objective(
    path: Path, psi_apply_fn: PsiApplyFn, *, later_fn: LaterFn = halfway, psi_fn: PsiFn | None = None
) -> Objective:
    """`softplus(-l(noised pair)) / 2 + softplus(l(proposed pair)) / 2`, `l = psi(x_r, r) - psi(x_t, t)`.

    Times `t` are the trainer's, `r = later_fn(t)`. It is a proper score of the identity `E[exp(psi(x_r, r))] =
    exp(psi(x_t, t))` over proposals, the one that the bootstrap of `psi_objective` regresses on with an energy; this
    one takes data, or own samples drawn by weight. `psi_fn`, e.g. `psi_from_energy(energy, path)`, is used at `r = 1`,
    tempered as the trainer says, where `later_fn` gets there: without one `r < 1`, and `psi` has a free constant. Costs
    four values of `psi`, and two of `psi_fn`. Raises `ValueError` for a path that is not Markov.
    """
    _check(path)

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Any, dict]:
        def pair(key_n: jax.Array, xr: Any, xt: Any, r: jax.Array, ti: jax.Array) -> Pairs:
            if psi_fn is None:
                return Pairs(xr, xt, r, ti, key_n)
            # a state before the end may hold masks, which the energy is not to see
            return Pairs(xr, xt, r, ti, key_n, context.temper * psi_fn(path.as_data(xr), 1.0))

        def pairs(key_n: jax.Array, x: Any, ti: jax.Array) -> tuple[Pairs, Pairs]:
            keys = jax.random.split(key_n, 4)
            r = later_fn(ti)
            xr = path.sample(keys[0], x, r)
            xt = path.sample(keys[2], x, ti)
            noised = pair(keys[1], xr, path.sample(keys[1], xr, ti, r), r, ti)
            return noised, pair(keys[3], path.propose(keys[3], xt, ti, r), xt, r, ti)

        return jax.vmap(pairs)(jax.random.split(key, t.shape[0]), x1, t), {}

    def loss(params: Any, example: tuple[Pairs, Pairs]) -> jax.Array:
        def logit(pair: Pairs) -> jax.Array:
            later = psi_apply_fn(params, pair.xr, pair.r)
            if pair.known is not None:
                later = jnp.where(pair.r >= 1, pair.known, later)
            return later - psi_apply_fn(params, pair.xt, pair.t)

        noised, proposed = example
        return 0.5 * (jax.nn.softplus(-logit(noised)) + jax.nn.softplus(logit(proposed)))

    return Objective(examples, loss, weighted=True, num_energies=0 if psi_fn is None else 2)


def swap_contrastive_objective(
    path: Path, psi_apply_fn: PsiApplyFn, *, later_fn: LaterFn = halfway
) -> Objective:
    """`softplus(psi(y, r) - psi(x, r))`: a state of the data at `r = later_fn(t)` against the one it moves to.

    The move noises to `t` and proposes back, so it is as long as `r - t` says. Costs two values of `psi`. Raises
    `ValueError` for a path that is not Markov.
    """
    _check(path)

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Any, dict]:
        def moved(key_n: jax.Array, x: Any, ti: jax.Array) -> tuple[Any, Any, jax.Array]:
            keys = jax.random.split(key_n, 3)
            r = later_fn(ti)
            xr = path.sample(keys[0], x, r)
            return xr, path.propose(keys[2], path.sample(keys[1], xr, ti, r), ti, r), r

        return jax.vmap(moved)(jax.random.split(key, t.shape[0]), x1, t), {}

    def loss(params: Any, example: tuple[Any, Any, jax.Array]) -> jax.Array:
        x, y, r = example
        return jax.nn.softplus(psi_apply_fn(params, y, r) - psi_apply_fn(params, x, r))

    return Objective(examples, loss, weighted=True, num_energies=0)


def step_consistency_objective(
    process: Process, psi_apply_fn: PsiApplyFn, *, gap: float = 1e-2, last_time: float = 1.0 - 1e-3
) -> Objective:
    """The squared log-ratio of a short step seen from either side (RNE regularisation, arXiv 2506.05668).

        ( psi(x_s, s) - psi(x_t, t) + increment(x_t, x_s) )^2,    s = t + gap (1 - t),    x_s ~ p_s, x_t ~ p_{t|s}

    `increment` is that of the process's step whose prediction is `grad psi`, held fixed: zero where `psi` is exact and
    the step short. A regulariser, to be added to an objective that fixes the score (`training.sum_objectives`). Times
    past `last_time` are taken as it. Raises `ValueError` unless the process is the reversal of its path's noising and
    `0 < gap < 1`.
    """
    if not process.is_reversal:
        raise ValueError("process: its backward kernel must be the path's own, e.g. DiffusionProcess(path)")
    if not 0 < gap < 1:
        raise ValueError(f"gap: a fraction in (0, 1), got {gap}")
    path = process.path

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Pairs, dict]:
        def pair(key_n: jax.Array, x: Any, ti: jax.Array) -> Pairs:
            keys = jax.random.split(key_n, 3)
            ti = jnp.minimum(ti, last_time)
            s = ti + gap * (1.0 - ti)
            xs = path.sample(keys[0], x, s)
            return Pairs(xs, path.sample(keys[1], xs, ti, s), s, ti, keys[2])

        return jax.vmap(pair)(jax.random.split(key, t.shape[0]), x1, t), {}

    def loss(params: Any, pair: Pairs) -> jax.Array:
        held = jax.lax.stop_gradient(params)

        def predict(x: Any, t: Any) -> Any:
            return process.target_from_psi(x, t, lambda y: psi_apply_fn(held, y, t))

        moved = process.increment(pair.key, pair.xt, pair.xr, predict, pair.t, pair.r)
        change = psi_apply_fn(params, pair.xr, pair.r) - psi_apply_fn(params, pair.xt, pair.t)
        return (change + moved) ** 2

    return Objective(examples, loss, weighted=True, num_energies=0)


def _check(path: Path) -> None:
    if not path.is_markov:
        raise ValueError("path: must be Markov, two times are compared")
