"""Denoisers of masks in any order that can be asked for the row of one site.

A roll-out in random order needs one row of each context that it meets, and so does the log-weight of a given state: a
network whose rows share nothing gives both at the price of one call for all sites.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from .._precision import highest
from ._base import BindableApply


@dataclass(frozen=True)
class RowwisePredictor:
    """A `predict_fn(x, t)`, logits `[sites, S]` that do not depend on `t`, with rows of other contexts than one.

    row(x, i) = predict(x)[i]                    [S]
    each(contexts)[i] = predict(contexts[i])[i]  [sites, S]        of contexts [sites, sites], one for each site
    """

    predict: Callable[[jax.Array], jax.Array]
    row: Callable[[jax.Array, Any], jax.Array]
    each: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array, t: Any) -> jax.Array:
        return self.predict(x)


def rowwise(
    apply_fn: Callable[[Any, jax.Array], jax.Array],
    row_fn: Callable[[Any, jax.Array, Any], jax.Array],
    each_fn: Callable[[Any, jax.Array], jax.Array],
) -> BindableApply:
    """The `apply_fn(params, x, t)` of such a network, whose `bind` has rows.

        net = networks.OrderAgnosticMLPs(sites=12)
        rowwise(net.apply, partial(net.apply, method="row"), partial(net.apply, method="each"))

    `first_hitting_sampler` then makes a roll-out of a row for each site, and a log-weight of one call of `each_fn`.
    These are two programs, which are one law as far as their arithmetic agrees, so all products are at the highest
    precision.
    """

    def bound(params: Any) -> RowwisePredictor:
        return RowwisePredictor(
            highest(lambda x: apply_fn(params, x)),
            highest(lambda x, i: row_fn(params, x, i)),
            highest(lambda contexts: each_fn(params, contexts)),
        )

    return BindableApply(bound)
