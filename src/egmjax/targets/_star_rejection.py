"""Exact draws of a few particles in the plane with pair energies bounded below, by rejection (host numpy).

    p(x, tau)  ~  prod_{i<j} exp(-u(r_ij; tau_i, tau_j)),     u(.; s, t) >= depth_st
    proposal:   tau ~ prod_{j>1} z(tau_1, tau_j) prod_{1<i<j} exp(-depth(tau_i, tau_j)),
                r_1j ~ r exp(-u(r; tau_1, tau_j)) / z * 2 pi,   directions uniform
    accepted with probability  prod_{1<i<j} exp(depth - u(r_ij))

The star of pairs with the first particle is drawn as it is, the other pairs accept. The accepted fraction
times the mass of the proposal is `N Z` in the plane, `Z` on the mean-free subspace of `N` particles
(`egmjax/_mean_free.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .._mean_free import REGULARIZER, mean_free_basis

__all__ = ["StarProposal", "star_accepted", "star_proposal", "star_sample"]

PairEnergy = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
NUM_NODES = 7_001
CHUNK = 2**16


class StarProposal(NamedTuple):
    """`nodes [n]` of the regularised distance, distribution functions `cdf [S, S, n]`, the type patterns
    `types [P, N]` and their unnormalised masses `mass [P]`, all float64; the pair energy, and `depth [S, S]`.
    """

    nodes: np.ndarray
    cdf: np.ndarray
    types: np.ndarray
    mass: np.ndarray
    pair_energy: PairEnergy
    depth: np.ndarray


def star_proposal(
    pair_energy: PairEnergy, *, depth: np.ndarray, types: np.ndarray, max_distance: float
) -> StarProposal:
    """The proposal for `pair_energy(r, s, t) >= depth[s, t]` and the patterns `types: [P, N]`.

    Distances end at `max_distance`, beyond which `exp(-u)` must not matter. They are drawn by linear
    interpolation of their distribution function on 7,001 nodes, which changes densities by about 1e-6 of
    themselves.
    """
    nodes = np.linspace(np.sqrt(REGULARIZER), max_distance, NUM_NODES)
    kinds = np.indices(depth.shape)[..., None]
    density = nodes * np.exp(-pair_energy(nodes, kinds[0], kinds[1]))  # r dr is the same regularised
    steps = 0.5 * (density[..., 1:] + density[..., :-1]) * (nodes[1] - nodes[0])
    cdf = np.concatenate([np.zeros((*depth.shape, 1)), np.cumsum(steps, axis=-1)], axis=-1)
    integral: np.ndarray = 2 * np.pi * cdf[..., -1]
    mass = np.ones(len(types))
    for i, j in zip(*np.triu_indices(types.shape[1], 1)):
        pair = types[:, i], types[:, j]
        mass *= integral[pair] if i == 0 else np.exp(-depth[pair])
    return StarProposal(nodes, cdf / cdf[..., -1:], types, mass, pair_energy, depth)


def star_accepted(
    rng: np.random.Generator, proposal: StarProposal, num: int
) -> tuple[np.ndarray, np.ndarray]:
    """Those of `num` proposals that are accepted: coordinates `[m, (N - 1) 2]`, float64, and types `[m, N]`."""
    tau = proposal.types[rng.choice(len(proposal.types), size=num, p=proposal.mass / proposal.mass.sum())]
    num_particles = tau.shape[1]
    angle, u = 2 * np.pi * rng.random((num, num_particles - 1)), rng.random((num, num_particles - 1))
    distance = np.empty(u.shape)
    for s, t in np.ndindex(proposal.depth.shape):
        drawn = (tau[:, :1] == s) & (tau[:, 1:] == t)
        distance[drawn] = np.interp(u[drawn], proposal.cdf[s, t], proposal.nodes)
    radius = np.sqrt(np.maximum(distance**2 - REGULARIZER, 0.0))
    x = np.zeros((num, num_particles, 2))
    x[:, 1:] = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    log_ratio = np.zeros(num)
    for i, j in zip(*np.triu_indices(num_particles, 1)):
        if i > 0:
            r = np.sqrt(np.sum((x[:, i] - x[:, j]) ** 2, axis=-1) + REGULARIZER)
            pair = tau[:, i], tau[:, j]
            log_ratio += proposal.depth[pair] - proposal.pair_energy(r, *pair)
    keep = np.log(rng.random(num)) < log_ratio
    return x[keep].reshape(-1, 2 * num_particles) @ mean_free_basis(num_particles, 2), tau[keep]


def star_sample(
    rng: np.random.Generator, proposal: StarProposal, num_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """`num_samples` independent draws: coordinates `[num_samples, (N - 1) 2]`, float64, and types."""
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    while sum(len(tau) for _, tau in kept) < num_samples or not kept:
        kept.append(star_accepted(rng, proposal, CHUNK))
    y, tau = (np.concatenate(parts)[:num_samples] for parts in zip(*kept))
    return y, tau
