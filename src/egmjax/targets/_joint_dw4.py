"""Four particles of two types in the plane, held together by type-dependent double wells.

    E(y, tau) = sum_{i<j} u(r_ij; tau_i, tau_j),     r_ij = sqrt(|x_i - x_j|^2 + 1e-6),     x = B y
    u(r; s, t) = 1/2 [ a_st (r - 2)^4 + b_st (r - 2)^2 ]
    a = [[.8, .4], [.4, .6]],   b = [[-3, -2.5], [-2.5, -2.8]];   minima r = 2 +- sqrt(-b / 2a), depth -b^2 / 8a

The mixed benchmark of the energy-based generator matching paper (Woo et al., 2025), whose energy does not
change under translation and is improper on `R^8`. Here `y` are orthonormal coordinates of the mean-free
subspace `R^6` (`egmjax/_mean_free.py`), where everything is finite; energies, distances and types are those of the
paper.

What is known (the constants below) comes from quadrature. With particles 1 and 2 on the first axis at
distance `r`,

    Z(tau) = 1/4 integral 2 pi r dr  w_12(r)  integral A_3(p) w_34(|p - q|) A_4(q) dp dq,
    w = exp(-u),   A_k(p) = w_1k(|p - x_1|) w_2k(|p - x_2|)

and the inner integral is a sum over Fourier modes. Gauss-Legendre nodes in `r` and square grids of spacing
.06 to .02 agree to the digits given; rejection sampling (`sample`) and MCMC (`tests/targets`) agree within
their errors.
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
from ..states import Categorical, Real
from ._base import Target
from ._enumeration import enumerate_states
from ._host import host_generator
from ._star_rejection import StarProposal, star_proposal, star_sample

__all__ = ["JointDW4"]

State = tuple[jax.Array, jax.Array]

NUM_PARTICLES, SPATIAL_DIM = 4, 2
QUARTIC = np.array([[0.8, 0.4], [0.4, 0.6]])
QUADRATIC = np.array([[-3.0, -2.5], [-2.5, -2.8]])
FIRST, SECOND = np.triu_indices(NUM_PARTICLES, 1)

LOG_Z = 18.8212  # all by quadrature, to half a unit of the last digit
MEAN_ENERGY = -7.8171
ENERGY_STD = 1.6242
MEAN_PAIR_DISTANCE = 2.7051
NUM_TYPE_1 = np.array([0.009196, 0.158987, 0.481904, 0.316303, 0.033610])


@frozen_pytree
class JointDW4(Target):
    """A state is `(y, tau)`, `y: float [6]` mean-free coordinates and `tau: int32 [4]` types 0 and 1.

    No fields. Energies are in units of kT.
    """

    @property
    def space(self) -> tuple[Real, Categorical]:
        """`(Real((6,)), Categorical(4, 2))`."""
        return Real(((NUM_PARTICLES - 1) * SPATIAL_DIM,)), Categorical(NUM_PARTICLES, 2)

    @property
    def num_particles(self) -> int:
        """4."""
        return NUM_PARTICLES

    def positions(self, y: jax.Array) -> jax.Array:
        """The positions `[4, 2]` of `y: [6]`, with mean zero."""
        return mean_free_positions(y, NUM_PARTICLES)

    def energy(self, x: State) -> jax.Array:
        """`E(y, tau)`, a scalar."""
        y, tau = x
        a, b = _coefficients(tau[FIRST], tau[SECOND], y.dtype)
        return jnp.sum(_pair_energy(self._distances(y)[FIRST, SECOND], a, b))

    def site_energies(self, x: State) -> jax.Array:
        """`sum_{j != i} u(r_ij; s, tau_j)`, `[4, 2]`: the part of `E` with `tau_i = s` that depends on `s`."""
        y, tau = x
        a, b = _coefficients(jnp.arange(2)[:, None], tau[None, :], y.dtype)
        pair = _pair_energy(self._distances(y)[:, None, :], a[None], b[None])
        others = 1.0 - jnp.eye(NUM_PARTICLES, dtype=y.dtype)
        return jnp.sum(pair * others[:, None, :], axis=-1)

    @property
    def log_z(self) -> float:
        """18.8212, on the mean-free subspace; see the module."""
        return LOG_Z

    @property
    def mean_energy(self) -> float:
        """-7.8171; see the module."""
        return MEAN_ENERGY

    @property
    def energy_std(self) -> float:
        """1.6242; see the module."""
        return ENERGY_STD

    def sample(self, key: jax.Array, num_samples: int) -> State:
        """Independent draws `(float [num_samples, 6], int32 [num_samples, 4])`, exact by rejection.

        Types and the distances of the other particles from the first are proposed, and accepted by the
        remaining three pairs (`_star_rejection.py`). Runs on the host in float64, seeded from `key`; one
        proposal in 31 is accepted, 40 microseconds for each draw.
        """
        rng = host_generator(key)
        y, tau = star_sample(rng, _proposal(), num_samples)
        return jnp.asarray(y, float), jnp.asarray(tau, jnp.int32)

    @property
    def observables(self) -> Mapping[str, Callable[[State], jax.Array]]:
        """`mean_distance`: mean of the six pair distances (2.7051); `num_type1`: particles of type 1."""
        return {"mean_distance": self._mean_distance, "num_type1": lambda x: jnp.sum(x[1], dtype=x[0].dtype)}

    def num_type1_law(self) -> tuple[np.ndarray, np.ndarray]:
        """The law of the number of particles of type 1: 0 .. 4 and their probabilities."""
        return np.arange(NUM_PARTICLES + 1.0), self.mode_weights

    @property
    def mode_weights(self) -> np.ndarray:
        """Probabilities `[5]` of the cells of `mode_index`, float64: .0092, .1590, .4819, .3163, .0336."""
        return NUM_TYPE_1 / NUM_TYPE_1.sum()

    def mode_index(self, x: State) -> jax.Array:
        """The number of particles of type 1."""
        return jnp.sum(x[1], dtype=jnp.int32)

    def _distances(self, y: jax.Array) -> jax.Array:
        return pair_distances(self.positions(y))

    def _mean_distance(self, x: State) -> jax.Array:
        return jnp.mean(self._distances(x[0])[FIRST, SECOND])


def _pair_energy(r: Any, a: Any, b: Any) -> Any:
    """`1/2 [a (r - 2)^4 + b (r - 2)^2]`, numpy or jax arrays of equal rank."""
    well = (r - 2.0) ** 2
    return 0.5 * well * (a * well + b)


def _coefficients(s: jax.Array, t: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """`(a_st, b_st)`."""
    return jnp.asarray(QUARTIC, dtype)[s, t], jnp.asarray(QUADRATIC, dtype)[s, t]


@functools.lru_cache(maxsize=1)
def _proposal() -> StarProposal:
    return star_proposal(
        lambda r, s, t: _pair_energy(r, QUARTIC[s, t], QUADRATIC[s, t]),
        depth=-(QUADRATIC**2) / (8 * QUARTIC),
        types=enumerate_states(NUM_PARTICLES, 2),
        max_distance=7.0,  # w(7) < 1e-40
    )
