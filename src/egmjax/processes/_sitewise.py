"""Denoisers of a fixed order, which can be asked for one site, for all at once, and for the last ones.

A network whose rows look at earlier sites only gives all factors of `q(x) = prod_i D_i(x_i | earlier)` in one call, and
a roll-out needs one row at a time, not a call of the whole network for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..paths import MaskedPath, Ordered
from ._base import BindableApply

StepFn = Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]
DecodeFn = Callable[[jax.Array, Any, int, int], tuple[Any, StepFn]]


@dataclass(frozen=True)
class SitewisePredictor:
    """A `predict_fn(x, t)`, logits `[sites, S]`, whose row of a site looks at sites of lower rank only.

    `decode(x, memory, start, stop) -> (memory, step)` prepares the ranks from `start` to `stop` of a roll-out, given
    the symbols of earlier ones; `step(memory, y, n) -> ([S], memory)` is the row of the site of rank `n`, for each in
    turn, at states `y` that agree with `x` before `start`. The memory is what rows leave to later ones (keys and values
    of a transformer); it goes on from block to block and is `None` before the first, and where nothing is left.
    `last(x)`: the rows of the last rank, `[num_last, S]`. Masks and symbols at sites that are not earlier make no
    difference to any. `block_size`: ranks that are prepared at once, from multiples of it on; all if `None`.
    """

    predict: Callable[[jax.Array], jax.Array]
    decode: DecodeFn
    last: Callable[[jax.Array], jax.Array]
    block_size: int | None = None

    def __call__(self, x: jax.Array, t: Any) -> jax.Array:
        return self.predict(x)


class SiteOrder(NamedTuple):
    """Ranks `[sites]`; sites `[num_ranks - 1]` of all ranks but the last, by rank; the sites of the last."""

    rank: np.ndarray
    first: np.ndarray
    last: np.ndarray


def site_order(path: MaskedPath) -> SiteOrder:
    """The order of a path whose ranks, except for the last, have one site each.

    Raises `ValueError` for a schedule that is not `paths.Ordered`, and for several sites in an earlier rank.
    """
    schedule = path.schedule
    if not isinstance(schedule, Ordered):
        raise ValueError(f"path: expected an Ordered schedule, got {type(schedule).__name__}")
    rank = np.asarray(schedule.rank)
    sizes = np.bincount(rank)
    if np.any(sizes[:-1] != 1):
        raise ValueError(f"path: ranks before the last must have one site, got {sizes[:-1].max()} in one")
    by_rank = np.argsort(rank, kind="stable")
    return SiteOrder(rank, by_rank[: len(sizes) - 1], by_rank[len(sizes) - 1 :])


def sitewise(
    path: MaskedPath,
    apply_fn: Callable[[Any, jax.Array], jax.Array],
    decode_fn: Callable[[Any, jax.Array, Any, int, int], tuple[Any, StepFn]],
    site_energies_fn: Callable[[jax.Array], jax.Array] | None = None,
    *,
    block_size: int | None = None,
) -> BindableApply:
    """The `apply_fn` of a network that has all rows, `apply_fn(params, x) -> [rows, S]`, and decodes them in turn.

    Rows are by rank, e.g. `apply` and `decode` of `networks.OrderedMLPs(site_order(path).first)`, `MaskedMLP` or
    `CausalTransformer`, or of `networks.SiteMLPs` with the contexts of these sites; `decode_fn(params, x, memory,
    start, stop)` and `block_size` are as in `SitewisePredictor`. With `site_energies_fn`, e.g. `Target.site_energies`,
    the sites of the last rank follow their exact law given all others, `softmax(-E(x[i <- s]))`, and the network has no
    rows for them:

        log w = -E(x) - sum_i log D_i = -E_A(x_A) - sum_(i in A) log D_i,    E_A = -log sum_(x_B) exp(-E(x_A, x_B))

    so that they are summed out of the weights, and drawn, exactly. That takes sites that are independent given the
    others, `targets.independent_sites`; of others it is the law given symbol 0 at the rest of them, a factorised model
    whose weights are as unbiased as any. For the Ising model `E_A = -sum_(b in B) log 2 cosh(beta h_b)`, `h_b` the
    local field. Raises `ValueError` as `site_order` does.
    """
    _, first, last = site_order(path)
    sites = first if site_energies_fn is not None else np.concatenate([first, last])

    def bound(params: Any) -> SitewisePredictor:
        params = jax.tree.map(jnp.asarray, params)  # a traced rank cannot index numpy's

        def decode(x: jax.Array, memory: Any, start: int, stop: int) -> tuple[Any, StepFn]:
            return decode_fn(params, x, memory, start, stop)

        def last_rows(x: jax.Array) -> jax.Array:
            if site_energies_fn is None:
                # sites of one rank do not look at each other
                return apply_fn(params, x.at[last].set(path.mask))[len(first) :]
            with jax.default_matmul_precision("highest"):
                # a row must not look at the others of its rank, should they matter after all
                return -site_energies_fn(path.as_data(x).at[last].set(0))[last]

        def predict(x: jax.Array) -> jax.Array:
            found = apply_fn(params, x)
            logits = jnp.zeros((path.sites, path.num_states), found.dtype).at[sites].set(found)
            is_last_found = site_energies_fn is None and len(last) == 1
            return logits if is_last_found else logits.at[last].set(last_rows(x))

        return SitewisePredictor(predict, decode, last_rows, block_size)

    return BindableApply(bound)
