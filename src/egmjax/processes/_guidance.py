"""Guidance: one network output from two.

    (1 + w) f_conditional - w f_unconditional

on raw predictions is the right rule for every head. Residuals of flows and diffusions are linear in velocity and
score, so these extrapolate linearly. Logits are logarithms, so posteriors and with them rates are geometric,
`D ~ D_c^{1 + w} D_u^{-w}`, normalised, and rates stay positive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ..paths._base import Scalar
from ._base import PredictFn


def guide(
    conditional: PredictFn, unconditional: PredictFn, weight: Scalar | Callable[[Scalar], Scalar]
) -> PredictFn:
    """A `predict_fn` for any sampler: guided by `weight`, a number or a function of `t`; 0 is `conditional` alone.

    Two network calls. The marginals of the guided chain are not those of any tilted path, so it does not sample
    `p_c^{1 + w} p_u^{-w}`; its log-weights remain right for whatever energy they are used with.
    """

    def predict(xt: Any, t: Scalar) -> Any:
        w = weight(t) if callable(weight) else weight
        pair = conditional(xt, t), unconditional(xt, t)
        return jax.tree.map(lambda c, u: (1.0 + w) * c - w * u, *pair)

    return predict
