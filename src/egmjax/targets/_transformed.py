"""A density on a bounded support, pulled back to `R^d` by a bijector.

    x = b(y),     E_y(y) = E_x(b(y)) - log |det b'(y)|,     log Z_y = log Z_x

Paths, flows and MCMC on `R^d` then never leave the support, and what they draw is mapped back by `transform`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._precision import highest
from .._pytree import frozen_pytree, static
from ..states import Real
from ._base import Target
from ._from_energy import FromEnergy, check_energy

__all__ = ["Transformed", "transformed"]


@frozen_pytree
class Transformed(Target):
    """`base`, a target whose density lives on the image of `bijector`, in the coordinates `y = b^{-1}(x)`.

    `bijector` is static: any hashable object with `forward_and_log_det(y) -> (x, log_det)` and `inverse(x)
    -> y` for one state, such as a distrax bijector; an elementwise `log_det` is summed. `y` and `x` have the
    shape of `base.space`. Build it with `transformed`, which checks.
    """

    base: Target
    bijector: Any = static()

    @property
    def space(self) -> Real:
        """That of `base`, but unbounded."""
        return self.base.space  # type: ignore[return-value]

    def energy(self, x: jax.Array) -> jax.Array:
        """`E_base(b(x)) - log |det b'(x)|` for one unbounded state `x`, a scalar.

        Infinite wherever the energy of `base` is not finite: far out `b(x)` rounds to the edge of the
        support, where a density may diverge.
        """
        inside, log_det = highest(self.bijector.forward_and_log_det)(x)
        energy = self.base.energy(inside) - jnp.sum(log_det)
        return jnp.where(jnp.isfinite(energy), energy, jnp.inf)

    def transform(self, x: jax.Array) -> jax.Array:
        """The point `b(x)` of the support for one unbounded state `x`; `jax.vmap` it for samples."""
        return highest(self.bijector.forward_and_log_det)(x)[0]

    @property
    def log_z(self) -> float | None:
        """That of `base`."""
        return self.base.log_z

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array | None:
        """Draws of `base` in unbounded coordinates, `None` where it has none."""
        inside = self.base.sample(key, num_samples)
        return None if inside is None else jax.vmap(self.bijector.inverse)(inside)

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """Those of `base`, at `b(x)`."""
        return {name: self._at(fn) for name, fn in self.base.observables.items()}

    @property
    def mode_weights(self) -> np.ndarray | None:
        """Those of `base`."""
        return self.base.mode_weights

    def mode_index(self, x: jax.Array) -> jax.Array:
        """The cell of `b(x)`."""
        return self.base.mode_index(self.transform(x))

    def _at(self, fn: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        return lambda x: fn(self.transform(x))


def transformed(
    base: Target | Callable[[jax.Array], jax.Array], bijector: Any, shape: tuple[int, ...] | None = None
) -> Transformed:
    """A target on `R^shape` from a density on the image of `bijector`.

    Args:
        base: A target on a `Real` space, or a function `x -> log density` (any additive constant) on
            the support.
        bijector: `forward_and_log_det` and `inverse` for one state, e.g. `distrax.Sigmoid()` for the unit
            cube, `distrax.Block(distrax.Chain([distrax.ScalarAffine(a, b), distrax.Sigmoid()]), 1)` for
            another.
        shape: The shape of a state, for a function; a target has its own.

    Raises:
        ValueError: `base` is a target on another kind of space, or a function without `shape`; `bijector`
            lacks a method; or the energy in the new coordinates fails the checks of `check_energy`.
    """
    for method in ("forward_and_log_det", "inverse"):
        if not callable(getattr(bijector, method, None)):
            raise ValueError(f"bijector: needs a method {method}, got {type(bijector).__name__}")
    if not isinstance(base, Target):
        if shape is None:
            raise ValueError("shape: a log-density needs the shape of one state, e.g. (2,)")
        base = FromEnergy(_negated(base), Real(tuple(shape)))
    if not isinstance(base.space, Real):
        raise ValueError(f"base: a bijector needs a target on a Real space, got {base.space}")
    target = Transformed(base, bijector)
    check_energy(target.energy, target.space)
    return target


def _negated(fn: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return lambda x: -fn(x)
