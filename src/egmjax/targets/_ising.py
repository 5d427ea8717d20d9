"""The Ising model on the `L x L` torus.

    E(x) = beta (-J sum_<ij> s_i s_j - h sum_i s_i),     s = 2 x - 1,     2 L^2 bonds

Site `i` sits at row `i // L` and column `i % L`; each site is joined with its right and its lower
neighbour. All energies are in units of `beta E`, that is of kT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree, static
from ..multispin import count
from ..states import Categorical
from . import _ising_exact as exact
from . import _ising_transfer as transfer
from ._base import Target
from ._cluster_sample import NUM_CHAINS, cluster_sample
from ._host import host_generator
from ._space_group import space_group
from ._torus_transfer import Torus

__all__ = ["Ising"]


@frozen_pytree
class Ising(Target):
    """The Ising torus at inverse temperature `beta`, with coupling `J` and field `h`.

    `length` is static; `beta`, `coupling` and `field` are scalar leaves and may be traced for `energy`. The
    exact knowledge is computed on the host from their values, so it needs concrete leaves: Python floats
    are taken in full double precision, float32 arrays at the value they hold. Raises `ValueError` for
    `length < 3`, where a torus has double bonds.
    """

    length: int = static()
    beta: float | jax.Array
    coupling: float | jax.Array = 1.0
    field: float | jax.Array = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or self.length < 3:
            raise ValueError(f"length: the Ising torus needs an integer length >= 3, got {self.length!r}")

    @property
    def space(self) -> Categorical:
        """`Categorical(length ** 2, 2)`."""
        return Categorical(self.length**2, 2)

    def energy(self, x: jax.Array) -> jax.Array:
        """`beta (-J sum_<ij> s_i s_j - h sum_i s_i)` for `x: int [L * L]`, a scalar in units of kT.

        Bonds and spins of integer states are counted in integers (20 ns for each state of 100 sites on two
        cores); floating `x` is taken as the polynomial above, so that a relaxed state has a gradient.
        """
        length = self.length
        is_relaxed = jnp.issubdtype(x.dtype, jnp.floating)
        grid = (x if is_relaxed else x.astype(jnp.int32)).reshape(length, length)
        right, down = jnp.roll(grid, -1, axis=1), jnp.roll(grid, -1, axis=0)
        if is_relaxed:
            spins = 2 * grid - 1
            bond_sum = jnp.sum(spins * (2 * right + 2 * down - 2))
            spin_sum = jnp.sum(spins) if self._has_field else 0.0
        else:
            unequal = jnp.sum((grid ^ right) + (grid ^ down), dtype=jnp.int32)
            bond_sum = (2 * length**2 - 2 * unequal).astype(float)
            spin_sum = (
                (2 * jnp.sum(grid, dtype=jnp.int32) - length**2).astype(float) if self._has_field else 0.0
            )
        return -self.beta * (self.coupling * bond_sum + self.field * spin_sum)

    @property
    def multispin_energy(self) -> Callable[[jax.Array], jax.Array]:
        """`energy` of words `[L * L, n]`, `[32, n]`: a bond is an exclusive or, about 8 operations a state and site."""
        length = self.length

        def energy(words: jax.Array) -> jax.Array:
            grid = words.reshape(length, length, -1)
            unequal = count(jnp.concatenate([grid ^ jnp.roll(grid, -1, axis) for axis in (0, 1)]))
            bond_sum = (2 * length**2 - 2 * unequal).astype(float)
            spin_sum = (2 * count(grid) - length**2).astype(float) if self._has_field else 0.0
            return -self.beta * (self.coupling * bond_sum + self.field * spin_sum)

        return energy

    @property
    def _has_field(self) -> bool:
        """Whether there may be one: a traced field may be any."""
        return not (isinstance(self.field, (int, float)) and self.field == 0)

    def site_energies(self, x: jax.Array) -> jax.Array:
        """`-s beta (J sum_j s_j + h)` for `s = -1, 1`, the sum over the four neighbours, `[L * L, 2]`.

        `E(x[i <- s])` up to a constant for each site, for integer or relaxed floating `x: [L * L]`; ten
        operations a site.
        """
        spins = 2 * (x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.int32)) - 1
        grid = spins.reshape(self.length, self.length)
        around = sum(jnp.roll(grid, shift, axis) for shift in (1, -1) for axis in (0, 1))
        local_field = (self.beta * (self.coupling * jnp.asarray(around, float) + self.field)).reshape(-1)
        return jnp.stack([local_field, -local_field], axis=-1)

    @property
    def log_z(self) -> float | None:
        """Exact: Kaufman's formula at zero field, the transfer matrix for `length <= 12`; else `None`."""
        k, b = self._reduced
        if b == 0:
            return float(exact.kaufman_log_z(self.length, k).real)
        return transfer.transfer_moments(self.length, k, b)[0] if self.length <= transfer.MAX_LENGTH else None

    @property
    def mean_energy(self) -> float | None:
        """Exact mean of `energy`, in units of kT; `None` with a field beyond `length` 12."""
        moments = self._moments
        return None if moments is None else moments[0]

    @property
    def energy_std(self) -> float | None:
        """Exact standard deviation of `energy`, in units of kT; `None` with a field beyond `length` 12."""
        moments = self._moments
        return None if moments is None else moments[1]

    def energy_law(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The exact law of `energy`: sorted values and probabilities, float64 `[n]`; `None` where unknown.

        Known at zero field for every `length` (Fourier transform of Kaufman's formula along imaginary `beta`,
        absolute error about 1e-13), and with a field for `length <= 5` (density of states).
        """
        k, b = self._reduced
        if b == 0:
            bond_sum, probs = exact.bond_law(self.length, k)
            return exact.merge_atoms(-k * bond_sum, probs)
        return exact.joint_law(self.length, k, b) if self.length <= 5 else None

    def magnetization_law(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The exact law of the mean spin: values in `[-1, 1]` and probabilities, float64 `[L^2 + 1]` each.

        By the transfer matrix in imaginary fields, for any field and `length <= 12`; `None` beyond. Takes
        under a second for `length <= 10`, about ten at 12; cached.
        """
        if self.length > transfer.MAX_LENGTH:
            return None
        return transfer.magnetization_law(self.length, *self._reduced)

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array | None:
        """`num_samples` draws, int32 `[num_samples, L * L]`; `None` where no sampler is trusted.

        `length <= 12`: independent and exact, by the transfer matrix in float64 on the host, seeded from
        `key`, for every coupling and field. Longer tori with `beta J > 0` and no field: 128 Swendsen-Wang
        chains, half of them started from all spins up and half from random spins, 200 sweeps of burn-in and
        24 sweeps between draws; at the critical coupling the correlation between successive draws of a
        chain is below .03 up to `length` 24, and hot and cold starts agree after 40 sweeps.
        """
        k, b = self._reduced
        if self.length <= transfer.MAX_LENGTH:
            rng = host_generator(key)
            return jnp.asarray(transfer.transfer_sample(rng, num_samples, self.length, k, b))
        if b != 0 or k <= 0:
            return None
        num_draws = -(-num_samples // NUM_CHAINS)
        return cluster_sample(key, k, self.length, 2, num_draws)[:num_samples]

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """`magnetization`: the mean spin in `[-1, 1]`; `abs_magnetization`: its absolute value."""
        return {"magnetization": magnetization, "abs_magnetization": lambda x: jnp.abs(magnetization(x))}

    @property
    def mode_weights(self) -> np.ndarray | None:
        """Probabilities `[3]` of negative, positive and zero magnetisation (`mode_index` 0, 1, 2).

        Exact from `magnetization_law` for `length <= 12`; `[.5, .5, 0]` for a longer odd torus without a
        field; else `None`.
        """
        _, b = self._reduced
        if b == 0 and self.length % 2:
            return np.array([0.5, 0.5, 0.0])
        law = self.magnetization_law()
        if law is None:
            return None
        values, probs = law
        return np.array([probs[values < 0].sum(), probs[values > 0].sum(), probs[values == 0].sum()])

    def mode_index(self, x: jax.Array) -> jax.Array:
        """0 where most spins are down, 1 where most are up, 2 for an exact tie (even tori only)."""
        spin_sum = 2 * jnp.sum(x, dtype=jnp.int32) - self.length**2
        return jnp.where(spin_sum < 0, 0, jnp.where(spin_sum > 0, 1, 2))

    @property
    def site_symmetries(self) -> np.ndarray:
        """The space group of the torus: translations, rotations and reflections, `[8 L^2, L^2]`."""
        return space_group(self.length)

    @property
    def symmetric_under_flip(self) -> bool:
        """Whether the field is zero."""
        return float(self.field) == 0.0

    @property
    def _reduced(self) -> tuple[float, float]:
        """`(K, B) = (beta J, beta h)` as Python floats."""
        beta = float(self.beta)
        return beta * float(self.coupling), beta * float(self.field)

    @property
    def _torus(self) -> Torus:
        """The model in the form of the transfer matrix with clamped sites: `s s' = 2 * 1{s = s'} - 1`."""
        k, b = self._reduced
        bonds = np.full((self.length, self.length), 2 * k)
        field = np.broadcast_to([-b, b], (self.length, self.length, 2)).copy()
        return Torus(bonds, bonds, field, -2 * self.length**2 * k)

    @property
    def _moments(self) -> tuple[float, float] | None:
        """The mean and the standard deviation of `energy`."""
        k, b = self._reduced
        if b == 0:
            bond_sum, probs = exact.bond_law(self.length, k)
            mean = float(probs @ bond_sum)
            return -k * mean, abs(k) * float(np.sqrt(probs @ (bond_sum - mean) ** 2))
        return (
            transfer.transfer_moments(self.length, k, b)[1:] if self.length <= transfer.MAX_LENGTH else None
        )


def magnetization(x: jax.Array) -> jax.Array:
    """The mean spin of one state, a scalar in `[-1, 1]`."""
    return 2 * jnp.mean(x, dtype=float) - 1
