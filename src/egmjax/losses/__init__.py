"""Bregman divergences."""

from ._bregman import bregman, cross_entropy, generalized_kl, linex, squared_error
from ._covariances import itakura_saito, log_det_divergence
from ._rates import jump_kl, mixture_kl

__all__ = [
    "bregman",
    "cross_entropy",
    "generalized_kl",
    "itakura_saito",
    "jump_kl",
    "linex",
    "log_det_divergence",
    "mixture_kl",
    "squared_error",
]
