"""The Edwards-Anderson spin glass on the `L x L` torus: own coupling for each bond, own field for each site.

    E(x) = beta (-sum_<ij> J_ij s_i s_j - sum_i h_i s_i),     s = 2 x - 1,     2 L^2 bonds

Edwards and Anderson, J. Phys. F 5 (1975) 965. Site `i` sits at row `i // L` and column `i % L`;
`coupling_right[r, c]` joins `(r, c)` with `(r, c + 1)`, `coupling_down[r, c]` with `(r + 1, c)`, both
periodic. All energies are in units of kT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree, static
from ..multispin import count
from ..states import Categorical
from . import _torus_transfer as transfer
from ._ising import magnetization
from ._torus_target import TorusTarget

__all__ = ["SpinGlass"]

MAX_LENGTH = 10


@frozen_pytree
class SpinGlass(TorusTarget):
    """Pairwise spins at inverse temperature `beta` with couplings and fields `[L, L]`, or scalars for all.

    `length` is static, the rest are leaves and may be traced for `energy`. The exact knowledge is computed on
    the host from their values, for `length <= 10`, so it needs concrete leaves: numpy float64 is taken in
    full. It is `None` where weights leave the range of float64, at `beta` about 6 for `length` 10 and couplings
    +-1, and takes about a second at 10. Raises `ValueError` for `length < 3`, where a torus has double bonds,
    and for couplings or fields of another shape.
    """

    length: int = static()
    beta: float | jax.Array
    coupling_right: float | jax.Array | np.ndarray
    coupling_down: float | jax.Array | np.ndarray
    field: float | jax.Array | np.ndarray = 0.0

    def __post_init__(self) -> None:
        length = self.length
        if not isinstance(length, int) or length < 3:
            raise ValueError(f"length: the torus needs an integer length >= 3, got {length!r}")
        for name in ("coupling_right", "coupling_down", "field"):
            shape = np.shape(getattr(self, name))
            if len(shape) >= 1 and shape[-2:] != (length, length):  # leading axes: a batch for vmap
                raise ValueError(
                    f"{name}: expected a scalar or an array [{length}, {length}], got shape {shape}"
                )

    @classmethod
    def plus_minus(cls, length: int, beta: float | jax.Array, seed: int = 0) -> SpinGlass:
        """The +-J glass: couplings 1 or -1 with probability 1/2, from `numpy.random.default_rng(seed)`."""
        right, down = 2.0 * np.random.default_rng(seed).integers(2, size=(2, length, length)) - 1.0
        return cls(length, beta, right, down)

    @property
    def space(self) -> Categorical:
        """`Categorical(length ** 2, 2)`."""
        return Categorical(self.length**2, 2)

    def energy(self, x: jax.Array) -> jax.Array:
        """`beta (-sum_<ij> J_ij s_i s_j - sum_i h_i s_i)` for `x: int [L * L]`, a scalar in units of kT.

        Floating `x` is taken as the same polynomial, so that a relaxed state has a gradient; ten operations a
        site.
        """
        spins = self._spins(x)
        local = (
            jnp.asarray(self.coupling_right, float) * jnp.roll(spins, -1, axis=1)
            + jnp.asarray(self.coupling_down, float) * jnp.roll(spins, -1, axis=0)
            + jnp.asarray(self.field, float)
        )
        return -self.beta * jnp.sum(spins * local)

    @property
    def multispin_energy(self) -> Callable[[jax.Array], jax.Array] | None:
        """`energy` of words `[L * L, n]`, `[32, n]`, where couplings are one number up to signs, without fields.

        `None` otherwise, and where they are traced: bits can be counted and not weighed.
        """
        given = (self.coupling_right, self.coupling_down, self.field)
        if any(isinstance(value, jax.core.Tracer) for value in given):
            return None
        length = self.length
        right, down = (np.broadcast_to(np.asarray(value), (length, length)) for value in given[:2])
        strength = np.abs(right[0, 0])
        if np.any(np.asarray(self.field)) or np.any(np.abs(np.stack([right, down])) != strength):
            return None

        def energy(words: jax.Array) -> jax.Array:
            grid = words.reshape(length, length, -1)
            broken = [
                grid ^ jnp.roll(grid, -1, axis) ^ np.where(signs < 0, ~np.uint32(0), np.uint32(0))[..., None]
                for axis, signs in ((1, right), (0, down))
            ]
            bond_sum = (2 * length**2 - 2 * count(jnp.concatenate(broken))).astype(float)
            return -self.beta * strength * bond_sum

        return energy

    def site_energies(self, x: jax.Array) -> jax.Array:
        """`-s beta (sum_j J_ij s_j + h_i)` for `s = -1, 1`, the sum over the four neighbours, `[L * L, 2]`.

        `E(x[i <- s])` up to a constant for each site, for integer or relaxed floating `x: [L * L]`; about the
        cost of two energies.
        """
        spins = self._spins(x)
        right, down = (
            jnp.broadcast_to(jnp.asarray(coupling, float), spins.shape)
            for coupling in (self.coupling_right, self.coupling_down)
        )
        around = (
            right * jnp.roll(spins, -1, axis=1)
            + down * jnp.roll(spins, -1, axis=0)
            + jnp.roll(right * spins, 1, axis=1)
            + jnp.roll(down * spins, 1, axis=0)
        )
        local_field = (self.beta * (around + jnp.asarray(self.field, float))).reshape(-1)
        return jnp.stack([local_field, -local_field], axis=-1)

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """`magnetization`: the mean spin in `[-1, 1]`; `abs_magnetization`: its absolute value."""
        return {"magnetization": magnetization, "abs_magnetization": lambda x: jnp.abs(magnetization(x))}

    @property
    def symmetric_under_flip(self) -> bool:
        """Whether every field is zero."""
        return not np.any(np.asarray(self.field))

    @property
    def _is_solved(self) -> bool:
        return self.length <= MAX_LENGTH

    @property
    def _torus(self) -> transfer.Torus:
        """The model in the form of the transfer matrix: `s s' = 2 * 1{s = s'} - 1`."""
        beta, shape = float(self.beta), (self.length, self.length)
        right, down, field = (
            beta * np.broadcast_to(np.asarray(leaf, np.float64), shape)
            for leaf in (self.coupling_right, self.coupling_down, self.field)
        )
        constant = -float(right.sum() + down.sum())
        return transfer.Torus(2 * right, 2 * down, np.stack([-field, field], axis=-1), constant)

    def _spins(self, x: jax.Array) -> jax.Array:
        """`2 x - 1` as floats on the grid, `[L, L]`."""
        values = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)
        return (2 * values - 1).reshape(self.length, self.length)
