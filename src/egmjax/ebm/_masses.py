"""How much of a model's mass is where: by quadrature or enumeration, and by importance sampling that covers it.

    mass_k = E_q[w 1{x in cell k}] / E_q[w],      w = p / q

Of the *model*, never of the chains it was trained with: those may have the right histogram under a model with
arbitrary masses. Pair log Z of fresh draws (`log_z`, in the mean at most the truth) with the one from the model's own
draws (`metrics.summarize_forward_weights`, at least it).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..metrics import normalized_weights, summarize_weights
from ..proposals import Density
from ..states import Categorical
from ..targets import enumerate_states
from ._moves import StateDensityFn
from ._path_proposals import PathProposal, as_path_proposal

CellFn = Callable[[Any], jax.Array]  # x -> index of its cell
CHUNK = 4096  # states whose density is taken at once


class ModelMass(NamedTuple):
    """Host numbers. `mass [k]` adds up to one, with standard errors (zero where exact); `log_z` and its error;
    `ess_fraction` and `pareto_k` of the weights (1 and 0 where exact).
    """

    mass: np.ndarray
    stderr: np.ndarray
    log_z: float
    log_z_stderr: float
    ess_fraction: float
    pareto_k: float


def quadrature_masses(
    log_density_fn: StateDensityFn,
    cell_fn: CellFn,
    num_cells: int,
    low: np.ndarray,
    high: np.ndarray,
    num_points: int = 512,
    *,
    symbols: Categorical | None = None,
) -> ModelMass:
    """Midpoint rule with `num_points` a coordinate on the box from `low` to `high`, each `[d]`.

    With `symbols` states are pairs `(x [d], y)` of a space `(Real, symbols)`, summed over all `y` as well.

    Spectrally accurate where the density is smooth on the scale of the grid and vanishes at the boundary; cells cut
    that to first order in the density on their borders. Cost: `num_points^d` densities, for each `y`, summed in
    float64. Raises `ValueError` where there are too many `y` (`targets.enumerate_states`).
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    steps = (high - low) / num_points
    axes = [lo + h * (np.arange(num_points) + 0.5) for lo, h in zip(low, steps)]
    rows = np.array(list(itertools.product(*axes[:-1]))).reshape(-1 if len(axes) > 1 else 1, len(axes) - 1)
    last = jnp.asarray(axes[-1], dtype=float)

    @jax.jit
    def row_values(rows: jax.Array, y: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        def node(row: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = jnp.concatenate([row, end[None]])
            state = x if y is None else (x, y)
            return log_density_fn(state), cell_fn(state)

        one = lambda row: jax.vmap(lambda end: node(row, end))(last)  # noqa: E731
        return jax.lax.map(one, rows, batch_size=max(1, CHUNK // num_points))

    grid = jnp.asarray(rows, dtype=float)
    given = [None] if symbols is None else enumerate_states(symbols.sites, symbols.num_states)
    found = [tuple(map(np.asarray, row_values(grid, y))) for y in given]
    log_p, cell = (np.stack(parts) for parts in zip(*found))
    return _summed(log_p, cell, num_cells, float(np.log(steps).sum()))


def enumerated_masses(
    log_density_fn: StateDensityFn, cell_fn: CellFn, num_cells: int, space: Categorical
) -> ModelMass:
    """Exact sums over all states of `space`, in float64 of densities that the model computes in its own precision.

    Cost: `num_states^sites` densities; raises `ValueError` where there are too many (`targets.enumerate_states`).
    """
    states = jnp.asarray(enumerate_states(space.sites, space.num_states))

    @jax.jit
    def values(states: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.map(lambda x: (log_density_fn(x), cell_fn(x)), states, batch_size=CHUNK)

    log_p, cell = values(states)
    return _summed(log_p, cell, num_cells, 0.0)


def _summed(values: Any, cell: Any, num_cells: int, log_volume: float) -> ModelMass:
    """Masses of nodes of equal volume."""
    log_p = np.asarray(values, np.float64).ravel()
    top = log_p.max()
    sums = np.bincount(np.asarray(cell).ravel(), weights=np.exp(log_p - top), minlength=num_cells)
    log_z = top + np.log(sums.sum()) + log_volume
    return ModelMass(sums / sums.sum(), np.zeros(num_cells), float(log_z), 0.0, 1.0, 0.0)


def sampled_masses(
    key: jax.Array,
    log_density_fn: StateDensityFn,
    proposal: Density | PathProposal,
    cell_fn: CellFn,
    num_cells: int,
    num_samples: int = 50_000,
) -> ModelMass:
    """Self-normalised importance sampling from `proposal`, with standard errors by the delta method.

    Blind to mass the proposal has none of: mix what could hold some (`proposals.defensive_mixture` of the flow, exact
    draws of the modes, the base). Cost: a draw and a density of either kind for each sample, in chunks.
    """

    paths = as_path_proposal(proposal)

    @jax.jit
    def draw(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            x, log_ratio = paths.sample(key)
            return log_density_fn(x) + log_ratio, cell_fn(x)

        return jax.lax.map(one, keys, batch_size=CHUNK)

    log_w, cell = draw(jax.random.split(key, num_samples))
    summary: Any = summarize_weights(log_w)
    weight = np.asarray(normalized_weights(log_w), np.float64)
    weight /= weight.sum()
    inside = np.asarray(cell)[:, None] == np.arange(num_cells)
    mass = weight @ inside
    stderr = np.sqrt((weight**2) @ (inside - mass) ** 2)
    return ModelMass(
        mass,
        stderr,
        *(float(v) for v in (summary.log_z, summary.log_z_stderr, summary.ess_fraction, summary.pareto_k)),
    )
