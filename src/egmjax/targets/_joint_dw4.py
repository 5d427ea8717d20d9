"""Four particles of two types in the plane, held together by type-dependent double wells.

    E(y, tau) = sum_{i<j} u(r_ij; tau_i, tau_j),     r_ij = sqrt(|x_i - x_j|^2 + 1e-6),     x = B y
    u(r; s, t) = 1/2 [ a_st (r - 2)^4 + b_st (r - 2)^2 ]
    a = [[.8, .4], [.4, .6]],     b = [[-3, -2.5], [-2.5, -2.8]],     minima r = 2 +- sqrt(-b / 2a), depth -b^2 / 8a

The mixed benchmark of the energy-based generator matching paper (Woo et al., 2025), whose energy does not change
under translation and is improper on `R^8`. Here `y` are orthonormal coordinates of the mean-free subspace `R^6`
(`_mean_free.py`), where everything is finite; energies, distances and types are those of the paper.

What is known (the constants below) comes from quadrature. With particles 1 and 2 on the first axis at distance `r`,

    Z(tau) = 1/4 integral 2 pi r dr  w_12(r)  integral A_3(p) w_34(|p - q|) A_4(q) dp dq,
    w = exp(-u),   A_k(p) = w_1k(|p - x_1|) w_2k(|p - x_2|)

and the inner integral is a sum over Fourier modes. Gauss-Legendre nodes in `r` and square grids of spacing .1 to
.02 agree to the digits given; rejection sampling (`sample`) and MCMC (`tests/targets`) agree within their errors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree
from ..states import Categorical, Real
from ._base import Target
from ._enumeration import enumerate_states
from ._mean_free import mean_free_basis, mean_free_positions, pair_distances

__all__ = ["JointDW4"]

State = tuple[jax.Array, jax.Array]

NUM_PARTICLES, SPATIAL_DIM = 4, 2
QUARTIC = np.array([[0.8, 0.4], [0.4, 0.6]])
QUADRATIC = np.array([[-3.0, -2.5], [-2.5, -2.8]])
REGULARIZER = 1e-6
FIRST, SECOND = np.triu_indices(NUM_PARTICLES, 1)

LOG_Z = 18.8212  # all by quadrature, to half a unit of the last digit
MEAN_ENERGY = -7.8171
ENERGY_STD = 1.6242
MEAN_PAIR_DISTANCE = 2.7051
NUM_TYPE_1 = np.array([0.009196, 0.158987, 0.481904, 0.316303, 0.033610])

MAX_DISTANCE, NUM_NODES = 7.0, 7_001  # w(7) < 1e-40
CHUNK = 2**16


@frozen_pytree
class JointDW4(Target):
    """A state is `(y, tau)`, `y: float [6]` mean-free coordinates and `tau: int32 [4]` types 0 and 1.

    No fields. Energies are in units of kT.
    """

    @property
    def space(self) -> tuple[Real, Categorical]:
        """`(Real((6,)), Categorical(4, 2))`."""
        return Real(((NUM_PARTICLES - 1) * SPATIAL_DIM,)), Categorical(NUM_PARTICLES, 2)

    def positions(self, y: jax.Array) -> jax.Array:
        """The positions `[4, 2]` of `y: [6]`, with mean zero."""
        return mean_free_positions(y, NUM_PARTICLES)

    def energy(self, x: State) -> jax.Array:
        """`E(y, tau)`, a scalar."""
        y, tau = x
        distances = self._distances(y)[FIRST, SECOND]
        return jnp.sum(_pair_energy(distances, tau[FIRST], tau[SECOND]))

    def site_energies(self, x: State) -> jax.Array:
        """`sum_{j != i} u(r_ij; s, tau_j)`, `[4, 2]`: the part of `E` with `tau_i = s` that depends on `s`."""
        y, tau = x
        pair = _pair_energy(self._distances(y)[:, None, :], jnp.arange(2)[None, :, None], tau[None, None, :])
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

        Types and the distances of particles 2, 3, 4 from particle 1 are proposed from their law without the other
        three pairs, in uniform directions; the proposal is accepted with probability `exp(-u + min u)` of those
        pairs. Distances are drawn by interpolating their distribution function on 7,000 nodes, which changes their
        density by less than 1e-5 of itself. Runs on the host in float64, seeded from `key`; one proposal in 31
        is accepted, 40 microseconds for each draw.
        """
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        num = 0
        while num < num_samples:
            kept.append(_accepted(rng, CHUNK))
            num += len(kept[-1][1])
        y, tau = (np.concatenate(parts)[:num_samples] for parts in zip(*kept))
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
        return pair_distances(self.positions(y), REGULARIZER)

    def _mean_distance(self, x: State) -> jax.Array:
        return jnp.mean(self._distances(x[0])[FIRST, SECOND])


def _pair_energy(r: jax.Array, s: jax.Array, t: jax.Array) -> jax.Array:
    """`u(r; s, t)`; shapes broadcast, of equal rank."""
    well = jnp.square(r - 2.0)
    a, b = jnp.asarray(QUARTIC, r.dtype)[s, t], jnp.asarray(QUADRATIC, r.dtype)[s, t]
    return 0.5 * well * (a * well + b)


@functools.lru_cache(maxsize=1)
def _proposal() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes `r [n]`, distribution functions `[2, 2, n]` of the density `r w(r; s, t)`, type patterns `[16, 4]` and
    their unnormalised masses `[16]` under the proposal of `JointDW4.sample`, float64.
    """
    r = np.linspace(np.sqrt(REGULARIZER), MAX_DISTANCE, NUM_NODES)
    well = (r - 2.0) ** 2
    density = r * np.exp(-0.5 * (QUARTIC[..., None] * well**2 + QUADRATIC[..., None] * well))
    steps = 0.5 * (density[..., 1:] + density[..., :-1]) * (r[1] - r[0])
    cdf = np.concatenate([np.zeros((2, 2, 1)), np.cumsum(steps, axis=-1)], axis=-1)
    mass, depth = 2 * np.pi * cdf[..., -1], -(QUADRATIC**2) / (8 * QUARTIC)
    types = enumerate_states(NUM_PARTICLES, 2)
    pattern = np.ones(len(types))
    for i, j in zip(FIRST, SECOND):
        s, t = types[:, i], types[:, j]
        pattern *= mass[s, t] if i == 0 else np.exp(-depth[s, t])
    return r, cdf / cdf[..., -1:], types, pattern


def _accepted(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Those of `num` proposals that are accepted: `y [m, 6]` and `tau [m, 4]`, float64 and int."""
    nodes, cdf, types, pattern = _proposal()
    tau = types[rng.choice(len(types), size=num, p=pattern / pattern.sum())]
    angle, u = 2 * np.pi * rng.random((num, 3)), rng.random((num, 3))
    radius = np.empty((num, 3))
    for s, t in np.ndindex(2, 2):
        drawn = (tau[:, :1] == s) & (tau[:, 1:] == t)
        radius[drawn] = np.interp(u[drawn], cdf[s, t], nodes)
    radius = np.sqrt(np.maximum(radius**2 - REGULARIZER, 0.0))
    x = np.zeros((num, NUM_PARTICLES, SPATIAL_DIM))
    x[:, 1:] = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    log_ratio = np.zeros(num)
    for i, j in zip(FIRST, SECOND):
        if i > 0:
            well = (np.sqrt(np.sum((x[:, i] - x[:, j]) ** 2, axis=-1) + REGULARIZER) - 2.0) ** 2
            a, b = QUARTIC[tau[:, i], tau[:, j]], QUADRATIC[tau[:, i], tau[:, j]]
            log_ratio -= 0.5 * well * (a * well + b) + b**2 / (8 * a)
    keep = np.log(rng.random(num)) < log_ratio
    basis = mean_free_basis(NUM_PARTICLES, SPATIAL_DIM)
    return x[keep].reshape(-1, NUM_PARTICLES * SPATIAL_DIM) @ basis, tau[keep]
