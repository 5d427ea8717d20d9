"""Energies learned by classifying noise levels (OuYang, Grenioux, Hernandez-Lobato, arXiv 2601.21025).

    logit_i(x) = log q(x, t_i) - F_i,          loss = -(1/k) sum_j [ logit_j(x_j) - lse_i logit_i(x_j) ],

`x_j ~ p_{t_j}`, `i` and `j` among the `k` levels that an example compares. The loss is a proper score: at its
minimum `log q(x, t_i) - F_i = log p_{t_i}(x) + c(x)` with an arbitrary function `c` of the state. Score
matching fixes what this leaves open, `grad_x`, and is blind to what this fixes, the weights of separate
modes; together they determine the densities up to one constant.

Only `log q - F` has a meaning: a function of time may be moved between them, and a constant may be added to
all `F`. Where a path's marginals at different times differ by a known function alone, as with masks, whose
`psi` does not depend on `t`, classification of levels has nothing to say; see `_contrastive.py` for what has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..paths import Path
from ..processes import Process
from ..training import Context, Objective, PsiApplyFn
from ._levels import PickFn

NormalizersFn = Callable[[Any], jax.Array]  # params -> F, [num_levels], or one more where the target is known


class LevelExample(NamedTuple):
    """One data point `x1` noised to `k` levels, `level [k]`, `xt` and `target` stacked; no target without
    matching."""

    x1: Any
    level: jax.Array
    xt: Any
    target: Any


def classification_loss(logits: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
    """`-(1/k) sum_j log softmax(logits_j + log_prior)_j`; `logits [k, k]`, row `j` a sample of class `j`.

    `log_prior [k]` is needed where classes are not drawn equally often. Raises `ValueError` unless `logits`
    is square.
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        raise ValueError(f"logits: expected [samples, classes] of equal number, got {list(logits.shape)}")
    if log_prior is not None:
        logits = logits + log_prior[None, :]
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits, axis=1)))


def fix_gauge(normalizers: jax.Array, anchor: int = 0) -> jax.Array:
    """`F - F[anchor]`: the losses do not see a constant, reports should not either. The first level is the
    noisiest."""
    return normalizers - normalizers[anchor]


def classification_objective(
    path: Path,
    psi_apply_fn: PsiApplyFn,
    levels: np.ndarray,
    pick_fn: PickFn,
    *,
    normalizers_fn: NormalizersFn | None = None,
    matching: Process | None = None,
    matching_weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
    classification_weight: float = 1.0,
    energy_fn: Callable[[Any], jax.Array] | None = None,
) -> Objective:
    """Classification of the `levels [N]` (times in `[0, 1)`) that `pick_fn` picks for each data point, from a
    `data_source`.

    A data point is noised to its `k` levels with independent noise; the times that the trainer draws are not
    used. `normalizers_fn(params)` gives `F [N]`, e.g. `lambda params: params["normalizers"]`; without it all
    are zero.

    `matching`, a process on this path with a residual head, adds denoising score matching,
    `divergence(target, prediction) / d` with `prediction` that of `grad psi`: with weight 1 it is
    `lambda(sigma) |D - x_1|^2 / d` of Karras et al. (2022). The value and gradient of `psi` at a state's own
    level are computed once for both.

    `energy_fn` is the target's energy where it is known too (`rho = exp(-energy)`): one more class with logit
    `-energy(x) - F[N]` whose sample is the data point itself. `normalizers_fn` then returns `N + 1` numbers,
    and `F[N] - F[i]` estimates `log Z_rho` less that of `q(., t_i)`.

    Cost of an example: `k` values and gradients of `psi`, `k (k - 1)` values (`k (k - 1) + k` and `k + 1`
    energies with `energy_fn`). Raises `ValueError` for levels outside `[0, 1)` or out of order, for
    `matching` on another path, and for `energy_fn` without normalisers.
    """
    if np.ndim(levels) != 1 or len(levels) < 2 or np.any(np.diff(levels) <= 0):
        raise ValueError("levels: expected two or more increasing times")
    if levels[0] < 0 or levels[-1] >= 1:
        raise ValueError(f"levels: expected times in [0, 1), got {levels[0]} to {levels[-1]}")
    if matching is not None and matching.path is not path:
        raise ValueError("matching: its path must be the one given")
    if energy_fn is not None and normalizers_fn is None:
        raise ValueError("normalizers_fn: needed with energy_fn, whose constant is not known")
    grid = jnp.asarray(levels, dtype=float)

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[LevelExample, dict]:
        def example(key_n: jax.Array, x: Any) -> LevelExample:
            key_pick, key_noise = jax.random.split(key_n)
            index = pick_fn(key_pick)
            times = grid[index]
            xt = jax.vmap(path.sample, (0, None, 0))(jax.random.split(key_noise, len(index)), x, times)
            if matching is None:
                return LevelExample(x, index, xt, None)
            return LevelExample(x, index, xt, jax.vmap(matching.target, (0, None, 0))(xt, x, times))

        return jax.vmap(example)(jax.random.split(key, t.shape[0]), x1), {}

    def loss(params: Any, example: LevelExample) -> jax.Array:
        num = example.level.shape[0]
        free = jnp.zeros_like(grid) if normalizers_fn is None else normalizers_fn(params)

        def logit(x: Any, i: jax.Array, psi: jax.Array) -> jax.Array:
            return path.log_reference(x, grid[i]) + psi - free[i]

        def at_level(x: Any, i: jax.Array) -> jax.Array:
            return logit(x, i, psi_apply_fn(params, x, grid[i]))

        def own(x: Any, i: jax.Array, target: Any) -> tuple[jax.Array, jax.Array]:
            """The logit of a state's own level and its share of score matching."""
            if matching is None:
                return at_level(x, i), jnp.zeros(())
            value, slope = jax.value_and_grad(psi_apply_fn, argnums=1)(params, x, grid[i])
            prediction = matching.target_from_psi(x, grid[i], lambda y: jnp.sum(slope * y))
            error = matching.divergence(target, prediction, x, grid[i]) / x.size
            return logit(x, i, value), matching_weight_fn(grid[i]) * error

        diagonal, matched = jax.vmap(own)(example.xt, example.level, example.target)
        # row j: the other levels, in any order, since the right class is put first
        turned = (jnp.arange(num)[:, None] + jnp.arange(1, num)[None, :]) % num
        others = jax.vmap(jax.vmap(at_level, (None, 0)))(example.xt, example.level[turned])
        rows = jnp.concatenate([diagonal[:, None], others], axis=1)
        if energy_fn is not None:
            known = lambda x: -energy_fn(x) - free[-1]  # noqa: E731
            rows = jnp.concatenate([rows, jax.vmap(known)(example.xt)[:, None]], axis=1)
            clean = jax.vmap(at_level, (None, 0))(example.x1, example.level)
            rows = jnp.concatenate([rows, jnp.append(known(example.x1), clean)[None, :]])
        told_apart = jnp.mean(jax.nn.logsumexp(rows, axis=1) - rows[:, 0])
        return jnp.mean(matched) + classification_weight * told_apart

    return Objective(examples, loss, weighted=True, num_energies=0)
