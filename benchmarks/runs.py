"""Finished runs: load one and draw certified samples from it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from egmjax.sharding import constrain
from egmjax.states import example_state
from egmjax.training import Checkpoints

from .checks import check
from .data_runs import build_from_data
from .options import (
    DataOptions,
    LatticeOptions,
    Options,
    RunOptions,
    configuration,
    read_configuration,
)
from .setups import Setup, build_from_energy

CHUNK = 1_000  # roll-outs at a time: memory stays flat, and one compiled program serves every count
CHUNK_NUMBERS = 2**22  # of larger states, fewer
LAYER = 16  # numbers of a network for each number of a state, at the least
RollOut = Callable[[Any, jax.Array], tuple[Any, jax.Array | None]]


class LoadedRun(NamedTuple):
    """A trained sampler: `sample(key, num_samples) -> (x, log_weight)`, its options and its functions."""

    name: str
    options: RunOptions
    setup: Setup
    params: Any
    roll_out: RollOut

    def sample(self, key: jax.Array, num_samples: int) -> tuple[Any, np.ndarray | None]:
        """`num_samples` states and their log-weights: `mean(exp(log_weight))` estimates Z without bias.

        `None` in place of log-weights where the sampler was trained from data: there is no energy to weigh by.
        """
        return draw(self.roll_out, self.params, key, num_samples)


def load(
    folder: str | Path, *, average: int | None = None, sites_per_step: Sequence[int] | None = None
) -> LoadedRun:
    """The run in `folder`; `average` and `sites_per_step` take the place of its own options of these names.

    Raises `ValueError` where there is no run, its checkpoint is damaged, or it cannot be sampled so.
    """
    folder = Path(folder)
    name, options = read_configuration(folder)
    store = checkpoints(folder, name, options)
    given: dict[str, Any] = {"average": average, "sites_per_step": sites_per_step}
    given = {option: value for option, value in given.items() if value is not None}
    if given and not isinstance(options, LatticeOptions):
        raise ValueError(f"{next(iter(given))}: an option of lattices, and {name} is none")
    options = replace(options, **given)
    check(options)
    setup = build(name, options)
    state = store.restore(setup.init(options.seed))
    return LoadedRun(name, options, setup, jax.device_get(state.ema_params), compile_roll_out(setup))


def build(name: str, options: RunOptions) -> Setup:
    """Composes the run of a target or of a data set."""
    if isinstance(options, DataOptions):
        return build_from_data(name, options)
    assert isinstance(options, Options)
    return build_from_energy(name, options)


def checkpoints(folder: Path, name: str, options: RunOptions) -> Checkpoints:
    """The checkpoints of the run in `folder`."""
    return Checkpoints(folder / "checkpoints", configuration(name, options))


def chunk_of(space: Any, with_jacobian: bool = False) -> int:
    """`CHUNK`, or as many states as have `CHUNK_NUMBERS` numbers, then a power of two, which devices can share.

    With a Jacobian a state has as many derivatives of a network, of some layers.
    """
    numbers = sum(leaf.size for leaf in jax.tree.leaves(example_state(space)))
    if with_jacobian:
        numbers *= LAYER * numbers
    return CHUNK if CHUNK * numbers <= CHUNK_NUMBERS else 2 ** int(np.log2(max(1, CHUNK_NUMBERS // numbers)))


def _chunk(setup: Setup) -> int:
    """`chunk_of` the states that are rolled out."""
    processes = getattr(setup.process, "processes", (setup.process,))
    return chunk_of(setup.sampled.space, any(process.is_deterministic for process in processes))


def compile_roll_out(setup: Setup, chunk_size: int | None = None) -> RollOut:
    """`(params, key) -> (x, log_weight)`, `chunk_size` certified samples, jitted; no log-weights without an energy.

    `None` is `chunk_of` the states that are rolled out; which samples are drawn depends on it.
    """
    num = _chunk(setup) if chunk_size is None else chunk_size

    @jax.jit
    def roll_out(params: Any, key: jax.Array) -> tuple[Any, jax.Array | None]:
        keys = constrain(jax.random.split(key, num), setup.mesh)
        rollouts = jax.vmap(lambda k: setup.sampler.sample(k, setup.predictor(params)))(keys)
        if not setup.has_energy:
            return constrain(rollouts.x, setup.mesh, PartitionSpec()), None
        with jax.default_matmul_precision("highest"):
            psi = jax.vmap(lambda x: setup.psi_fn(x, 1.0))(rollouts.x)
            x = setup.complete(jax.random.fold_in(key, 1), rollouts.x)
        return constrain((x, psi + rollouts.log_weight), setup.mesh, PartitionSpec())

    return roll_out


def draw(roll_out: RollOut, params: Any, key: jax.Array, num_samples: int) -> tuple[Any, Any]:
    """Certified samples, in chunks of one compiled program. Raises `ValueError` for `num_samples < 1`."""
    if num_samples < 1:
        raise ValueError(f"num_samples: at least 1, got {num_samples}")
    parts: list[Any] = []
    drawn = 0
    while drawn < num_samples:
        parts.append(jax.device_get(roll_out(params, jax.random.fold_in(key, len(parts)))))
        drawn += len(jax.tree.leaves(parts[-1])[0])
    x, log_weight = jax.tree.map(lambda *a: np.concatenate(a)[:num_samples], *parts)
    return x, log_weight


def save_states(file: Path, x: Any, **arrays: np.ndarray) -> None:
    """Writes states as `x`, or as `x0, x1, ...` for a product, and `arrays` beside them."""
    components = {f"x{i}": a for i, a in enumerate(x)} if isinstance(x, tuple) else {"x": x}
    np.savez(file, **components, **arrays)  # type: ignore[arg-type]


def weigh(setup: Setup, params: Any, key: jax.Array, x1: Any) -> np.ndarray:
    """Log-weights `[n]` of given states, each along one draw of the backward chain."""
    num = jax.tree.leaves(x1)[0].shape[0]

    @jax.jit
    def chunk(params: Any, keys: jax.Array, x: Any) -> jax.Array:
        keys, x = constrain((keys, x), setup.mesh)
        total = jax.vmap(lambda k, xi: setup.sampler.log_weight(k, setup.predictor(params), xi))(keys, x)
        with jax.default_matmul_precision("highest"):
            total += jax.vmap(lambda xi: setup.psi_fn(xi, 1.0))(x)
        return constrain(total, setup.mesh, PartitionSpec())

    x1 = setup.split(x1)
    keys = jax.random.split(key, num)
    size = min(_chunk(setup), num)
    parts = []
    for start in range(0, num, size):
        # the last chunk reaches back, so that every call has the same shape
        window = slice(min(start, num - size), min(start, num - size) + size)
        values = jax.device_get(chunk(params, keys[window], jax.tree.map(operator.itemgetter(window), x1)))
        parts.append(values[start - window.start :])
    return np.concatenate(parts)
