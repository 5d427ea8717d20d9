"""Laws of the data that energies are learned from: draws, and masses of modes that are known exactly.

All but the digits are mixtures with a density, known at every level of noise too (`targets.MixtureTarget`): what a
model is held against is `law.noised(alpha, sigma)` and its components. Of the digits nothing but masses is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from egmjax.targets import GaussianMixture, MixtureTarget, Rings

from .skewed_digits import SkewedDigits, draw_rows, skewed_digits

Law = MixtureTarget | SkewedDigits

LAWS = {
    "two-modes": "Two Gaussian modes far apart, of weights 2/3 and 1/3, in any dimension.",
    "forty-modes": "Forty equal Gaussian modes at random places, in any dimension.",
    "four-modes": "Four Gaussian modes of weights .1, .2, .3, .4, in two dimensions and more.",
    "rings": "Four concentric rings in the plane, of weights .1, .2, .3, .4.",
    "digits-skewed": "Blurred digits of 64 pixels; class k has mass (k + 1) / 55 (scikit-learn).",
}


@dataclass(kw_only=True)
class LawOptions:
    """What data are drawn from, and how many draws of the model are kept."""

    target: Annotated[str, tyro.conf.Suppress] = "two-modes"
    """One of `LAWS`; the first word of the command."""
    dim: int = 2
    """Dimension of the modes; rings have 2, digits 64."""
    holdout: Literal["test", "validation"] = "test"
    """Digits that are not learned from: the test rows, or a quarter of the training rows for the choice of options."""
    num_samples: int = 20_000
    """Draws of the model, with weights, in samples.npz."""


def make_law(options: LawOptions) -> Law:
    """The law that the options name. Raises `ValueError` for a dimension in which there is none."""
    name, dim = options.target, options.dim
    if name not in LAWS:
        raise ValueError(f"target: one of {', '.join(LAWS)}, got {name!r}")
    if name == "rings" and dim != 2:
        raise ValueError(f"dim: rings are in the plane, got {dim}")
    if name == "digits-skewed":
        if dim != 64:
            raise ValueError(f"dim: digits have 64 pixels, got {dim}")
        return skewed_digits(options.holdout)
    return {
        "two-modes": GaussianMixture.two_modes,
        "forty-modes": GaussianMixture.forty_modes,
        "four-modes": GaussianMixture.four_modes,
        "rings": lambda _: Rings(),
    }[name](dim)


def draw_data(law: Law, key: jax.Array, num: int, seed: int) -> np.ndarray:
    """`num` samples `[num, d]` to learn from; those of digits are rows drawn with `seed`, noise and all."""
    if isinstance(law, SkewedDigits):
        return draw_rows(law.train, num, seed)[0]
    return np.asarray(law.sample(key, num))


def true_masses(law: Law) -> np.ndarray:
    """Probabilities of the cells of `law.mode_index`, float64; of components, where cells are not known."""
    if isinstance(law, SkewedDigits):
        return law.masses
    return law.component_weights if law.mode_weights is None else law.mode_weights
