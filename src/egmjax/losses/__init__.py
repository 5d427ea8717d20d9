"""Bregman divergences."""

from ._bregman import bregman, cross_entropy, generalized_kl, linex, squared_error

__all__ = ["bregman", "cross_entropy", "generalized_kl", "linex", "squared_error"]
