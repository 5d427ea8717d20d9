"""A target with real coordinates integrated out whose law given the rest is Gaussian.

    E(x, y) = c(x) + b(x) . y + y^T A(x) y / 2        for every x, A positive definite
    E_A(x) = c - b^T A^-1 b / 2 + log det(A / 2 pi) / 2,     y | x ~ N(-A^-1 b, A^-1),     log Z the same

A sampler of `x` alone, completed by an exact draw of `y`, is one of the whole: its log-weights are what they were,
since `-E(x, y) - log p(y | x) = -E_A(x)`. It is for real coordinates what the exact last sites are for a lattice. Where
all real coordinates go, symbols remain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from .._pytree import frozen_pytree, static
from ..states import Categorical, Real, Space
from ._base import Target
from ._conditioned import Conditioned, _components
from ._from_energy import _reference_states

__all__ = ["Integrated", "gaussian_coordinates", "integrated"]

Indices = tuple[tuple[int, ...], ...]


class _Gaussian(NamedTuple):
    """`E(x, .)` at one `x`: `c`, the factor `L` of `A = L L^T`, and `u = L^-1 b`."""

    constant: jax.Array
    factor: jax.Array
    slope: jax.Array


@frozen_pytree
class Integrated(Target):
    """`rest.base` without the coordinates `block` of each component (flat indices, static); `rest` is what remains.

    Build it with `integrated`, which checks. Nothing but log Z and samples are known exactly: observables and modes are
    those of the base at completed states.
    """

    rest: Conditioned
    block: Indices = static()

    @property
    def base(self) -> Target:
        """The whole target."""
        return self.rest.base

    @property
    def space(self) -> Space:
        """What remains, flat; a single component is not wrapped in a tuple. See `Conditioned.space`."""
        return self.rest.space

    @property
    def dim(self) -> int:
        """The number of coordinates integrated out."""
        return sum(map(len, self.block))

    def energy(self, x: Any) -> jax.Array:
        """`E_A(x)`, a scalar; infinite where the energy at `y = 0` is not finite.

        `nan` where `A(x)` is not positive definite, which no estimate counts as a weight. Costs the energy, its
        gradient, `dim` products with its Hessian, and `dim^3 / 3` multiplications.
        """
        constant, factor, slope = self._gaussian(x)
        log_det = jnp.sum(jnp.log(jnp.diagonal(factor))) - 0.5 * self.dim * np.log(2 * np.pi)
        energy = constant - 0.5 * jnp.sum(jnp.square(slope)) + log_det
        return jnp.where(jnp.isfinite(constant), energy, jnp.inf)

    @property
    def num_energies(self) -> int:
        """What an energy costs in evaluations of the base's: itself, with gradient, and the rows of the Hessian."""
        return 1 + self.dim

    def complete(self, key: jax.Array, x: Any) -> Any:
        """The full state with an exact draw of `y` given `x`, for one state, at the cost of an energy."""
        _, factor, slope = self._gaussian(x)
        noise = jax.random.normal(key, slope.shape, slope.dtype)
        y = solve_triangular(factor, noise - slope, lower=True, trans="T")
        return self._given(x).merge(self._parts(y))

    def split(self, x: Any) -> Any:
        """What remains of a full state of the base."""
        return self.rest.split(x)

    @property
    def log_z(self) -> float | None:
        """That of the base."""
        return self.base.log_z

    def sample(self, key: jax.Array, num_samples: int) -> Any:
        """Draws of the base without their `y`, `None` where it has none."""
        full = self.base.sample(key, num_samples)
        return None if full is None else jax.vmap(self.split)(full)

    def _given(self, x: Any) -> Conditioned:
        """The law of `y` given `x`: the base conditioned on everything else."""
        full = self.rest.merge(x)
        states = full if isinstance(self.base.space, tuple) else (full,)
        return Conditioned(self.base, tuple(jnp.ravel(a) for a in states), self.block)

    def _parts(self, y: jax.Array) -> Any:
        """Flat `y [dim]` as a state of `_given(x)`."""
        sizes = [len(indices) for indices in self.block if indices]
        parts = tuple(jnp.split(y, np.cumsum(sizes)[:-1]))
        return parts[0] if len(parts) == 1 else parts

    def _quadratic(self, x: Any, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Energy, gradient `[dim]` and Hessian `[dim, dim]` in `y`."""

        def energy(y: jax.Array) -> jax.Array:
            return self._given(x).energy(self._parts(y))

        return energy(y), jax.grad(energy)(y), jax.hessian(energy)(y)

    def _gaussian(self, x: Any) -> _Gaussian:
        real = [a.dtype for a in jax.tree.leaves(x) if jnp.issubdtype(a.dtype, jnp.floating)]
        with jax.default_matmul_precision("highest"):
            constant, slope, curvature = self._quadratic(x, jnp.zeros(self.dim, real[0] if real else float))
            factor = jnp.linalg.cholesky(curvature)
            return _Gaussian(constant, factor, solve_triangular(factor, slope, lower=True))


def integrated(target: Target, block: Sequence[Any] | None = None, *, tolerance: float = 1e-3) -> Integrated:
    """`target` on what remains when the real coordinates `block` are integrated out.

    Args:
        target: Any target whose energy can be differentiated twice.
        block: Flat indices of coordinates of a `Real` state; for a tuple one such sequence for each component, empty
            for those of symbols. `None`: `gaussian_coordinates(target)`.
        tolerance: By how much Hessians in `y` may differ, relative to their largest entry.

    Raises:
        ValueError: `block` is empty or everything, has indices out of range or twice, or names symbols; or the energy
            is not quadratic in it, or without a positive definite Hessian, at one of 16 random states.

    An energy that is quadratic at the states looked at and not elsewhere is not found out.
    """
    spaces = _components(target.space)
    if block is None:
        block = gaussian_coordinates(target)
        if not any(block):
            raise ValueError(f"target: no coordinate of {target.space} is Gaussian given the others")
    elif not isinstance(target.space, tuple):
        block = (block,)
    if len(block) != len(spaces):
        raise ValueError(f"block: expected indices for each of {len(spaces)} components, got {len(block)}")
    chosen = tuple(tuple(sorted(map(int, indices))) for indices in block)
    for space, indices in zip(spaces, chosen):
        size = int(np.prod(space.shape)) if isinstance(space, Real) else 0
        if len(set(indices)) != len(indices) or any(not 0 <= i < size for i in indices):
            raise ValueError(
                f"block: expected distinct indices of real coordinates of {space}, got {indices}"
            )
    free = tuple(
        tuple(i for i in range(_size(space)) if i not in set(indices))
        for space, indices in zip(spaces, chosen)
    )
    if not any(chosen) or not any(free):
        raise ValueError("block: must hold some coordinate, and leave one")
    values = tuple(
        jnp.zeros(_size(space), jnp.int32 if isinstance(space, Categorical) else float) for space in spaces
    )
    result = Integrated(Conditioned(target, values, free), chosen)
    _check_quadratic(result, tolerance)
    return result


def gaussian_coordinates(target: Target, *, tolerance: float = 1e-4) -> Indices:
    """Real coordinates that are jointly Gaussian given all others, flat indices for each component; empty where none.

    A set `B` is Gaussian given the rest if no third derivative `d^3 E / dy_i dy_j dy_k` with all of `i, j, k` in `B` is
    ever other than zero. Looks at 16 random states, so that a dependence which shows at none of them is missed;
    coordinates with most partners go first, until no such derivative is left. Derivatives below `tolerance` of the
    largest second one count as rounding. Costs `dim^2` gradients a state and the memory of `dim^3` numbers.
    """
    spaces = _components(target.space)
    is_real = [isinstance(space, Real) for space in spaces]
    sizes = [_size(space) for space, real in zip(spaces, is_real) if real]
    if not sizes:
        return tuple(() for _ in spaces)

    @jax.jit
    def derivatives(x: Any) -> tuple[jax.Array, jax.Array]:
        states = x if isinstance(target.space, tuple) else (x,)

        def energy(y: jax.Array) -> jax.Array:
            parts = iter(jnp.split(y, np.cumsum(sizes)[:-1]))
            full = tuple(next(parts).reshape(a.shape) if real else a for a, real in zip(states, is_real))
            return target.energy(full if isinstance(target.space, tuple) else full[0])

        y = jnp.concatenate([jnp.ravel(a) for a, real in zip(states, is_real) if real])
        return jax.hessian(energy)(y), jax.jacfwd(jax.hessian(energy))(y)

    second, third = (np.asarray(d, np.float64) for d in jax.lax.map(derivatives, _states(target.space)))
    scale = np.nanmax(np.abs(second), axis=(1, 2), keepdims=True)[..., None]
    moves = ~(np.abs(third) <= tolerance * scale)  # what is not a number counts as dependence
    partners = moves.any(axis=0)
    every = np.arange(len(partners))
    # a coordinate must be quadratic by itself, and not flat: that has no law
    kept = np.all(np.diagonal(second, axis1=1, axis2=2) > 0, axis=0) & ~partners[every, every, every]
    while (left := partners & kept[:, None, None] & kept[:, None] & kept).any():
        kept[np.argmax(left.sum(axis=(1, 2)))] = False
    found, start = [], 0
    for space, real in zip(spaces, is_real):
        size = _size(space) if real else 0
        found.append(tuple(map(int, np.flatnonzero(kept[start : start + size]))))
        start += size
    return tuple(found)


def _size(space: Any) -> int:
    return space.sites if isinstance(space, Categorical) else int(np.prod(space.shape))


def _states(space: Space) -> Any:
    return _reference_states(jax.random.key(0), space)


def _check_quadratic(target: Integrated, tolerance: float) -> None:
    """Hessians at zero and at a random `y`, at random `x`; states of no density say nothing."""

    @jax.jit
    def curvatures(x: Any, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return target._quadratic(x, jnp.zeros_like(y))[2], target._quadratic(x, y)[2]

    x = _states(target.space)
    y = 2.0 * jax.random.normal(jax.random.key(1), (jax.tree.leaves(x)[0].shape[0], target.dim))
    here, there = (np.asarray(a, np.float64) for a in jax.lax.map(lambda args: curvatures(*args), (x, y)))
    some = np.isfinite(np.asarray(jax.vmap(target.rest.energy)(x)))
    here, there = here[some], there[some]
    size = np.abs(here).max(axis=(1, 2), keepdims=True)
    if not np.all(np.abs(there - here) <= tolerance * size):
        raise ValueError("block: the energy is not quadratic in these coordinates")
    lowest = np.linalg.eigvalsh(here)[:, 0]
    if not np.all(lowest > 1e-6 * size[:, 0, 0]):
        raise ValueError("block: the Hessian in these coordinates is not positive definite everywhere")
