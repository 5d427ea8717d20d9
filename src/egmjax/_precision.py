"""Where products of float32 numbers are to be products of float32 numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


def highest(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, all of whose matrix products are at the highest precision, those of functions that it calls included.

    Accelerators otherwise round the operands of float32 products to 8 bits (TPU) or 11 (TF32): enough for a network,
    not for an energy, a log-determinant or two programs that must agree on a density. A product that states its own
    precision keeps it. Derivatives of `fn` are at its precision, wherever they are taken.
    """

    @functools.wraps(fn)
    def at_highest(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return fn(*args, **kwargs)

    return at_highest
