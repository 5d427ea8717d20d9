"""Processes on one path, learned from images: what the suite `gm` runs.

    bins       one network that predicts the posterior of every pixel over bins (`BinnedHead`); it is trained once, and
               every process reads it: flow (Euler, Heun), diffusion, jumps, and both flows superposed with jumps
    residual   the network one would train for a flow alone, for the same time; flow (Euler, Heun), diffusion

A sample of a method is as large as the set of real images it is compared with, and all methods take 50 steps. Distances
are those of `DataSet.features`, a fixed classifier's, beside those of as many training images.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from egmjax import metrics
from egmjax.processes import (
    BinnedHead,
    DiffusionProcess,
    FlowProcess,
    GaussianJumpProcess,
    GaussianProcess,
    Process,
    SuperpositionProcess,
)
from egmjax.simulators import grid_sampler, scale_spacing, time_grid
from egmjax.training import fit

from .data_sets import GREY_LEVELS, SEED, DataSet, take
from .options import DigitsOptions
from .runs import build, save_states
from .setups import Setup

NETWORKS = ("bins", "residual")
NUM_STEPS = 50
NUM_FLOORS = 10
# chosen on seed 7 with `holdout="validation"`; both train for 23 seconds of one core, compilation included
RECIPES: dict[str, dict[str, Any]] = {
    "bins": {"iterations": 6, "learning_rate": 1e-3},
    "residual": {"iterations": 15, "learning_rate": 3e-3},
}
TINY: dict[str, Any] = {"iterations": 1, "updates_per_iteration": 2, "batch_size": 8, "width": 8, "depth": 1}

Draw = Callable[[Any, jax.Array], jax.Array]  # (params, keys) -> states


class Learner(NamedTuple):
    """A network's run, its compiled samplers by method, and the floor of each distance."""

    options: DigitsOptions
    setup: Setup
    draws: dict[str, Draw]
    floor: dict[str, float]


def run(network: str, seed: int, folder: Path, *, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Trains one network on the digits and returns a row for each method that it serves; writes its samples."""
    options, setup, draws, floor = learner(network, tuple(sorted(recipe.items())))
    started = time.process_time()  # of all cores, which other work on the machine does not lengthen
    result = fit(setup.phases[0].trainer, setup.init(seed), options.iterations)
    cpu_seconds = time.process_time() - started
    params, data = result.state.ema_params, setup.target
    shared = {
        "network": network,
        "train_seconds": result.train_seconds,
        "train_cpu_seconds": cpu_seconds,
        "num_updates": int(result.state.num_updates),
        "num_parameters": sum(a.size for a in jax.tree.leaves(params)),
    }
    key = jax.random.fold_in(jax.random.key(seed), 2)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for method, draw in draws.items():
        # the same keys for every method: they start from the same noise
        x = jax.device_get(draw(params, _keys(key, data)))
        save_states(folder / f"{file_name(method)}.npz", x)
        rows.append({"method": method, "metrics": compare(data, x, floor), **shared})
    return rows


class Composed(NamedTuple):
    """A network's options and functions, for whatever seed."""

    options: DigitsOptions
    setup: Setup


def compose(network: str, recipe: dict[str, Any]) -> Composed:
    """`bins` or `residual`; what `recipe` leaves out is `DigitsOptions`."""
    # a cell for each grey level and an empty one beyond either end, since outer bins are open
    bins = GREY_LEVELS + 2
    values: dict[str, Any] = {"out": Path(), **recipe}
    scale = values.get("scale", DigitsOptions.scale)
    if network == "bins":
        values |= {"process": "flow+jump", "bins": bins, "reach": bins / GREY_LEVELS / scale}
    options = DigitsOptions(**values)
    return Composed(options, build("digits", options))


@functools.cache
def learner(network: str, recipe: tuple[tuple[str, Any], ...]) -> Learner:
    """Composed and compiled once for all seeds."""
    options, setup = compose(network, dict(recipe))
    params = jax.eval_shape(setup.init_params, jax.random.key(0))
    draws = {
        method: _compile(setup, process, times, params)
        for method, (process, times) in processes(setup.process).items()
    }
    return Learner(options, setup, draws, floors(setup.target))


def processes(trained: Process) -> dict[str, tuple[Process, np.ndarray]]:
    """Methods that the prediction of a trained process serves, each with its grid of times.

    Where there are jumps the last step starts where the endpoint is known to a bin.
    """
    first = trained.processes[0] if isinstance(trained, SuperpositionProcess) else trained
    assert isinstance(first, GaussianProcess)
    path, head = first.gaussian, first.head
    euler, heun = (FlowProcess(path, stepper=s, head=head) for s in ("euler", "heun"))  # type: ignore[arg-type]
    diffusion = DiffusionProcess(path, head=head)
    even = time_grid(NUM_STEPS)
    if not isinstance(head, BinnedHead):
        prefix = "residual "
        return {
            prefix + "flow, Euler": (euler, even),
            prefix + "flow, Heun": (heun, even),
            prefix + "diffusion": (diffusion, even),
        }
    jump = GaussianJumpProcess(path, head=head)
    until_bin = time_grid(NUM_STEPS, scale_spacing(path, float(head.width)))
    return {
        "flow, Euler": (euler, even),
        "flow, Heun": (heun, even),
        "diffusion": (diffusion, even),
        "jump": (jump, until_bin),
        "flow + jump, Euler": (SuperpositionProcess((euler, jump), (0.5, 0.5)), until_bin),
        "flow + jump, Heun": (SuperpositionProcess((heun, jump), (0.5, 0.5)), until_bin),
    }


def file_name(method: str) -> str:
    """`flow + jump, Euler` as `flow-jump-Euler`."""
    return re.sub(r"\W+", "-", method)


def compare(data: DataSet, x: np.ndarray, floor: dict[str, float]) -> dict[str, dict[str, float]]:
    """`{metric: {"value", "floor"}}` of samples, as many as held-out rows.

    `nearer` is P(a sample lies nearer to the training rows than a held-out row does), whose floor is .5 by definition.
    """
    test = data.features(data.test)
    near = metrics.nearest_distance(data.features(x), data.features(data.train), test)
    distances = _distances(data.features(x), test)
    entries = {name: {"value": distances[name], "floor": floor[name]} for name in floor}
    return {**entries, "nearer": {"value": near.closer.value, "floor": 0.5}}


def floors(data: DataSet) -> dict[str, float]:
    """The distances of as many training rows as there are held-out ones, averaged over choices of them."""
    test, rng = data.features(data.test), np.random.default_rng(SEED)
    each = [
        _distances(data.features(take(data.train, rng.permutation(len(data.train))[: len(test)])), test)
        for _ in range(NUM_FLOORS)
    ]
    return {name: float(np.mean([d[name] for d in each])) for name in each[0]}


def _distances(x: np.ndarray, test: np.ndarray) -> dict[str, float]:
    return {
        "frechet": metrics.frechet_distance(x, test),
        "kernel_distance": metrics.kernel_distance(x, test, kernel="rbf").value,
    }


def _keys(key: jax.Array, data: DataSet) -> jax.Array:
    return jax.random.split(jax.random.fold_in(key, 0), len(data.test))


def _compile(setup: Setup, process: Process, times: np.ndarray, params: Any) -> Draw:
    sampler = grid_sampler(process, times)

    def draw(params: Any, keys: jax.Array) -> jax.Array:
        return jax.vmap(lambda k: sampler.sample(k, setup.predictor(params)).x)(keys)

    keys = jax.eval_shape(lambda: _keys(jax.random.key(0), setup.target))
    return jax.jit(draw).lower(params, keys).compile()
