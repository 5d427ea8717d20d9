"""Digits whose classes are skewed on purpose and whose pixels are blurred: what an energy is to learn the masses of.

    P(class k) = (k + 1) / 55,        x = 2 (g + 1/2 + BLUR eps) / 17 - 1,   eps ~ N(0, I), g the levels of an image

Rows are drawn again and again, so the rare classes keep all of their images, and each draw has noise of its own. Were
a level spread evenly over its interval, as in `data_sets.digits`, a pixel would have edges, and at level zero a spike,
and a continuous density of 64 of them would be learned for the sake of those. The blur is half the standard
deviation; it takes the classifier from .96 to .94 of held-out images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from egmjax.states import Real

from .data_sets import GREY_LEVELS, SEED, digit_class, labelled_digits

MASSES = np.arange(1, 11) / 55.0
BLUR = 2.0  # standard deviation, in grey levels
NUM_HELD_OUT = 20_000  # draws of held-out rows


class LabelledRows(NamedTuple):
    """`levels [n, 64]` and `label [n]`; `blur` is the standard deviation of the noise, in grey levels."""

    levels: np.ndarray
    label: np.ndarray
    blur: float = BLUR


class SkewedDigits(NamedTuple):
    """The law: `masses [10]` of the modes, which are classes, as `mode_index(x)` tells them; rows of either kind."""

    space: Real
    masses: np.ndarray
    mode_index: Callable[[jax.Array], jax.Array]
    train: LabelledRows
    held_out: LabelledRows

    def noised(self, sigma: float) -> SkewedDigits:
        """The law of `x + sigma eps`: more blur."""
        blur = math.hypot(self.train.blur, 0.5 * GREY_LEVELS * sigma)
        return self._replace(train=self.train._replace(blur=blur), held_out=self.held_out._replace(blur=blur))


def skewed_digits(holdout: str = "test") -> SkewedDigits:
    """Held out are the test rows, or for `validation` a quarter of the training rows, taken from these."""
    digits = labelled_digits()
    seen, unseen = np.flatnonzero(~digits.is_test), np.flatnonzero(digits.is_test)
    if holdout == "validation":
        order = np.random.default_rng(SEED).permutation(len(seen))
        seen, unseen = seen[order[len(seen) // 4 :]], seen[order[: len(seen) // 4]]
    rows = (LabelledRows(digits.levels[i], digits.label[i]) for i in (seen, unseen))
    return SkewedDigits(Real((64,)), MASSES, digit_class, *rows)


def draw_rows(rows: LabelledRows, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`num` blurred images `[num, 64]` float32 and their labels: classes in proportion to `MASSES`, to the nearest row,
    rows of a class alike.
    """
    rng = np.random.default_rng(seed)
    ends = np.round(num * np.cumsum(MASSES)).astype(int)
    index = np.concatenate(
        [rng.choice(np.flatnonzero(rows.label == k), size) for k, size in enumerate(np.diff(ends, prepend=0))]
    )
    levels = rows.levels[index] + 0.5 + rows.blur * rng.standard_normal((num, rows.levels.shape[1]))
    return (2.0 * levels / GREY_LEVELS - 1.0).astype(np.float32), rows.label[index]
