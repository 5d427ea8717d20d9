"""Finished runs: load one and draw certified samples from it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from egmjax.training import Checkpoints

from .options import Options, configuration, read_configuration
from .setups import Setup, build

CHUNK = 1_000  # roll-outs at a time: memory stays flat, and one compiled program serves every count
RollOut = Callable[[Any, jax.Array], tuple[Any, jax.Array]]


class LoadedRun(NamedTuple):
    """A trained sampler: `sample(key, num_samples) -> (x, log_weight)`, its options and its functions."""

    name: str
    options: Options
    setup: Setup
    params: Any
    roll_out: RollOut

    def sample(self, key: jax.Array, num_samples: int) -> tuple[Any, np.ndarray]:
        """`num_samples` states and their log-weights: `mean(exp(log_weight))` estimates Z without bias."""
        return draw(self.roll_out, self.params, key, num_samples)


def load(folder: str | Path) -> LoadedRun:
    """The run in `folder`. Raises `ValueError` where there is none, or its checkpoint is damaged."""
    folder = Path(folder)
    name, options = read_configuration(folder)
    setup = build(name, options)
    state = checkpoints(folder, name, options).restore(setup.init(options.seed))
    return LoadedRun(name, options, setup, state.ema_params, compile_roll_out(setup))


def checkpoints(folder: Path, name: str, options: Options) -> Checkpoints:
    """The checkpoints of the run in `folder`."""
    return Checkpoints(folder / "checkpoints", configuration(name, options))


def compile_roll_out(setup: Setup) -> RollOut:
    """`(params, key) -> (x, log_weight)`, `CHUNK` certified samples, jitted."""

    @jax.jit
    def roll_out(params: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        keys = jax.random.split(key, CHUNK)
        rollouts = jax.vmap(lambda k: setup.sampler.sample(k, setup.predictor(params)))(keys)
        with jax.default_matmul_precision("highest"):
            psi = jax.vmap(lambda x: setup.psi_fn(x, 1.0))(rollouts.x)
        return rollouts.x, psi + rollouts.log_weight

    return roll_out


def draw(roll_out: RollOut, params: Any, key: jax.Array, num_samples: int) -> tuple[Any, np.ndarray]:
    """Certified samples, in chunks of one compiled program. Raises `ValueError` for `num_samples < 1`."""
    if num_samples < 1:
        raise ValueError(f"num_samples: at least 1, got {num_samples}")
    indices = range(-(-num_samples // CHUNK))
    parts = [jax.device_get(roll_out(params, jax.random.fold_in(key, i))) for i in indices]
    x, log_weight = jax.tree.map(lambda *a: np.concatenate(a)[:num_samples], *parts)
    return x, log_weight


def weigh(setup: Setup, params: Any, key: jax.Array, x1: Any) -> np.ndarray:
    """Log-weights `[n]` of given states, each along one draw of the backward chain."""
    num = jax.tree.leaves(x1)[0].shape[0]

    @jax.jit
    def chunk(params: Any, keys: jax.Array, x: Any) -> jax.Array:
        total = jax.vmap(lambda k, xi: setup.sampler.log_weight(k, setup.predictor(params), xi))(keys, x)
        with jax.default_matmul_precision("highest"):
            return total + jax.vmap(lambda xi: setup.psi_fn(xi, 1.0))(x)

    keys = jax.random.split(key, num)
    size = min(CHUNK, num)
    parts = []
    for start in range(0, num, size):
        # the last chunk reaches back, so that every call has the same shape
        window = slice(min(start, num - size), min(start, num - size) + size)
        values = jax.device_get(chunk(params, keys[window], jax.tree.map(operator.itemgetter(window), x1)))
        parts.append(values[start - window.start :])
    return np.concatenate(parts)
