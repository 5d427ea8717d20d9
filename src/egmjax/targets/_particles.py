"""Identical particles: the usual continuous benchmarks of equivariant samplers, in mean-free coordinates.

    DW4:   E = sum_{i<j} [.9 (r_ij - 4)^4 - 4 (r_ij - 4)^2],   4 particles in the plane
    LJ13:  E = 2 c sum_{i<j} [r_ij^-12 - 2 r_ij^-6] + 1/2 sum_i |x_i - mean|^2,   13 particles in space

Source: Koehler, Klein, Noe, Equivariant flows, ICML 2020. Energies are in units of kT.

The constants of DW4 are by the Fourier quadrature of `_joint_dw4.py`, which is exact to rounding here since
particles never meet: grids of spacing .12 to .05 agree to 14 digits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._mean_free import mean_free_positions, pair_distances
from .._pytree import frozen_pytree
from ..states import Real
from ._base import Target
from ._chain_sample import NUM_CHAINS, chain_sample
from ._host import host_generator
from ._star_rejection import StarProposal, star_proposal, star_sample

__all__ = ["DW4", "LJ13"]


@frozen_pytree
class DW4(Target):
    """Four particles in the plane with double-well pairs; a state is `y: float [6]`. No fields."""

    @property
    def space(self) -> Real:
        """`Real((6,))`."""
        return Real((6,))

    @property
    def num_particles(self) -> int:
        """4."""
        return 4

    def positions(self, y: jax.Array) -> jax.Array:
        """The positions `[4, 2]` of `y: [6]`, with mean zero."""
        return mean_free_positions(y, 4)

    def energy(self, x: jax.Array) -> jax.Array:
        """`E(y)`, a scalar; distances are `sqrt(r^2 + 1e-6)`, which changes energies by less than 1e-5."""
        return jnp.sum(_double_well(_pairs(self.positions(x))))

    @property
    def log_z(self) -> float:
        """29.667232, on the mean-free subspace."""
        return 29.667232

    @property
    def mean_energy(self) -> float:
        """-22.541510."""
        return -22.541510

    @property
    def energy_std(self) -> float:
        """1.905072."""
        return 1.905072

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Independent draws, float `[num_samples, 6]`, exact by rejection (`_star_rejection.py`).

        Runs on the host in float64, seeded from `key`; one proposal in 464 is accepted, .4 milliseconds a
        draw.
        """
        rng = host_generator(key)
        return jnp.asarray(star_sample(rng, _proposal(), num_samples)[0], float)

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """`mean_distance`: the mean of the six pair distances, 4.044987 on average."""
        return {"mean_distance": lambda x: jnp.mean(_pairs(self.positions(x)))}


@frozen_pytree
class LJ13(Target):
    """Thirteen Lennard-Jones particles in a harmonic trap; a state is `y: float [36]`.

    `factor` (`c`), a leaf, is 1 where every pair is counted twice, as in EGM, iDEM and ASBS, and 1/2 where
    it is counted once. Nothing is known in closed form. At `c = 1` the icosahedron has energy -83.0896, and chains
    have a mean of -43.01 +- .06 with a standard deviation of 6.9: a liquid. Where particles meet the energy is
    infinite and forces are no numbers.
    """

    factor: float | jax.Array = 1.0

    @property
    def space(self) -> Real:
        """`Real((36,))`."""
        return Real((36,))

    @property
    def num_particles(self) -> int:
        """13."""
        return 13

    def positions(self, y: jax.Array) -> jax.Array:
        """The positions `[13, 3]` of `y: [36]`, with mean zero."""
        return mean_free_positions(y, 13)

    def energy(self, x: jax.Array) -> jax.Array:
        """`E(y)`, a scalar; infinite where particles are so close that the float type overflows."""
        positions = self.positions(x)
        first, second = np.triu_indices(13, 1)
        square = jnp.sum(jnp.square(positions[first] - positions[second]), axis=-1)
        sixth = square**-3
        pairs = jnp.sum(sixth * (sixth - 2.0))  # a product, so that overflow is infinite and not nan
        return 2.0 * jnp.asarray(self.factor, x.dtype) * pairs + 0.5 * jnp.sum(jnp.square(x))

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array | None:
        """`num_samples` draws of 256 chains, float `[num_samples, 36]`; `None` for a `factor` outside of [1/2, 1].

        See `_chain_sample.py`; about a millisecond a draw. Energies of successive draws of a chain have a correlation
        of .1. Colder clusters, `c > 1`, freeze, and such chains would not melt them.
        """
        if not 0.5 <= float(self.factor) <= 1.0:
            return None
        x = chain_sample(key, self, -(-num_samples // NUM_CHAINS), scale=0.7, step_size=0.02)
        return x[:num_samples]

    @property
    def observables(self) -> Mapping[str, Callable[[jax.Array], jax.Array]]:
        """`mean_distance`: the mean of the 78 pair distances."""
        return {"mean_distance": lambda x: jnp.mean(_pairs(self.positions(x)))}


def _pairs(positions: jax.Array) -> jax.Array:
    """Every pair distance once."""
    return pair_distances(positions)[np.triu_indices(positions.shape[0], 1)]


def _double_well(r: Any) -> Any:
    well = (r - 4.0) ** 2
    return well * (0.9 * well - 4.0)


@functools.lru_cache(maxsize=1)
def _proposal() -> StarProposal:
    return star_proposal(
        lambda r, s, t: _double_well(r) + 0.0 * s,
        depth=np.full((1, 1), -4 / 0.9),
        types=np.zeros((1, 4), dtype=np.int64),
        max_distance=8.2,  # exp(-u) < 1e-94
    )
