"""The `q`-state Potts model on the `L x L` torus.

    E(x) = -beta J sum_<ij> 1{x_i = x_j},     x in {0 .. q-1},     2 L^2 bonds

Wu, Rev. Mod. Phys. 54 (1982) 235. Site `i` sits at row `i // L` and column `i % L`; each site is joined with
its right and its lower neighbour. On the infinite lattice it orders at `beta J = log(1 + sqrt(q))`,
continuously for `q <= 4`. Two states are the Ising model at half the coupling. All energies are in units of
kT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree, static
from ..states import Categorical
from . import _torus_transfer as transfer
from ._cluster_sample import NUM_CHAINS, cluster_sample
from ._space_group import space_group
from ._torus_target import TorusTarget

__all__ = ["Potts"]


@frozen_pytree
class Potts(TorusTarget):
    """The Potts torus of `num_states` symbols at inverse temperature `beta`, with coupling `J`.

    `length` and `num_states` are static; `beta` and `coupling` are scalar leaves and may be traced for
    `energy`. The exact knowledge needs concrete leaves and `q^(2L-1) <= 2^21`: up to `L = 11` for two states,
    7 for three, 5 for four and five, 4 up to eight, 3 up to eighteen. It is `None` where weights leave the
    range of float64, at `beta J` above 18 for `length` 7; `log_z_by_columns` goes further. Raises
    `ValueError` for `length < 3`, where a torus has double bonds, and for `num_states < 2`.
    """

    length: int = static()
    num_states: int = static()
    beta: float | jax.Array
    coupling: float | jax.Array = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or self.length < 3:
            raise ValueError(f"length: the Potts torus needs an integer length >= 3, got {self.length!r}")
        if not isinstance(self.num_states, int) or self.num_states < 2:
            raise ValueError(f"num_states: the Potts model needs at least 2 states, got {self.num_states!r}")

    @property
    def space(self) -> Categorical:
        """`Categorical(length ** 2, num_states)`."""
        return Categorical(self.length**2, self.num_states)

    def energy(self, x: jax.Array) -> jax.Array:
        """`-beta J` times the number of equal neighbours of `x: int [L * L]`, a scalar in units of kT."""
        grid = x.reshape(self.length, self.length)
        equal = (grid == jnp.roll(grid, -1, axis=1)).astype(jnp.int32) + (grid == jnp.roll(grid, -1, axis=0))
        return -self.beta * (self.coupling * jnp.sum(equal).astype(float))

    def site_energies(self, x: jax.Array) -> jax.Array:
        """`-beta J` times the number of neighbours with symbol `s`, `[L * L, q]`, for `x: int [L * L]`.

        `E(x[i <- s])` up to a constant for each site; five operations a site and symbol.
        """
        grid = jax.nn.one_hot(x, self.num_states, dtype=float).reshape(self.length, self.length, -1)
        counts = sum(jnp.roll(grid, shift, axis) for shift in (1, -1) for axis in (0, 1))
        return -self.beta * (self.coupling * jnp.asarray(counts).reshape(-1, self.num_states))

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array | None:
        """`num_samples` draws, int32 `[num_samples, L * L]`; `None` where no sampler is trusted.

        `q^(2L-1) <= 2^21`: independent and exact, by the transfer matrix in float64 on the host, seeded from
        `key`. Larger ferromagnets of up to four states: 128 Swendsen-Wang chains, half of them started from
        one symbol and half from random symbols, 200 sweeps of burn-in, and 24, 48 or 96 sweeps between draws
        for two, three or four states. At the critical coupling the energies of successive draws of a chain
        then have correlation .01 at `L = 24` for three states, .01 and .06 at 16 and 24 for four. More states
        change phase abruptly, which cluster moves cross slowly.
        """
        exact = super().sample(key, num_samples)
        if exact is not None:
            return exact
        k = float(self.beta) * float(self.coupling)
        if self.num_states > 4 or k <= 0:
            return None
        num_draws = -(-num_samples // NUM_CHAINS)
        thinning = {2: 24, 3: 48, 4: 96}[self.num_states]
        x = cluster_sample(key, k / 2, self.length, self.num_states, num_draws, thinning)
        return x[:num_samples]

    def log_z_by_columns(self) -> float:
        """Exact `log_z` of wider tori, one column of the transfer matrix for each kind of row: minutes at 12, q = 3.

        `q^L <= 2^22`: up to `L = 13` for three states, 11 for four, 9 for five. Raises `ValueError` beyond that, and
        for `beta J` above 162 / L in absolute value. Needs concrete leaves.
        """
        return transfer.uniform_log_z(self.length, self.num_states, float(self.beta) * float(self.coupling))

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """`order_parameter`: `(q m - 1) / (q - 1)` in `[0, 1]`, `m` the share of the most frequent symbol."""
        q = self.num_states

        def order_parameter(x: jax.Array) -> jax.Array:
            shares = jnp.mean(jax.nn.one_hot(x, q, dtype=float), axis=0)
            return (q * jnp.max(shares) - 1) / (q - 1)

        return {"order_parameter": order_parameter}

    @property
    def site_symmetries(self) -> np.ndarray:
        """The space group of the torus: translations, rotations and reflections, `[8 L^2, L^2]`."""
        return space_group(self.length)

    @property
    def symmetric_under_flip(self) -> bool:
        """Whether the sites are two-valued."""
        return self.num_states == 2

    @property
    def symmetric_under_relabelling(self) -> bool:
        """Always: only equality of symbols counts."""
        return True

    @property
    def _is_solved(self) -> bool:
        return self.num_states ** (2 * self.length - 1) <= transfer.MAX_ENTRIES

    @property
    def _torus(self) -> transfer.Torus:
        bonds = np.full((self.length, self.length), float(self.beta) * float(self.coupling))
        return transfer.Torus(bonds, bonds, np.zeros((self.length, self.length, self.num_states)))
