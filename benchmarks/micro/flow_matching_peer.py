"""A training step and a sampler of a flow in the plane, beside the package flow_matching, in one run.

    python -m benchmarks.micro.flow_matching_peer [--widths 128 1024] [--num-states 256] [--num-samples 2000]

Needs `pip install flow_matching` (its licence is not for commercial use, so no extra of ours holds it) and PyTorch;
without them their rows say so. Both train a perceptron of the same layers, weights and activation on the velocity of
straight paths to the checkerboard, by Adam, the batch drawn from the same rows; ours is the trainer as it is, with its
averaged parameters and metrics. Before anything is timed, loss and gradient of both are compared on the same `x_0`,
`x_1`, `t`: "loss differs by" and "gradient differs by" are relative. Sampling: Euler steps of equal number, one network
call each; ours steps along the angle of the path. Seconds are of one step and of one call of the sampler; "8 a call"
has the updates of an iteration in one compiled program, as `benchmarks.train` does. Ratios are ours to theirs, on one
thread or two, whichever is faster: below one is faster. Ours, too, have rows of "one thread", since small operations
are not worth a second, and of "two devices", each with half of the states.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from egmjax.paths import CondOT, GaussianPath
from egmjax.processes import FlowProcess
from egmjax.sharding import constrain, state_mesh
from egmjax.simulators import grid_sampler, time_grid
from egmjax.training import Examples, Objective, data_source, make_trainer, weighted_objective

from ..data_sets import load_data, rows_to_learn
from ..records import Record
from ._harness import (
    BenchOptions,
    Timing,
    compile_case,
    parse,
    report,
    rerun_with_devices,
    time_in_turn,
)

LEARNING_RATE = 1e-3
DIM, HIDDEN = 2, 3
TOLERANCE = 1e-5
UPDATES = 8  # of an iteration, as in `benchmarks.train`
THREADS = {"one thread": 1, "two threads": 2}
DEVICES = 2
# XLA's own names: of products, of its other library for them, and of all else; a version that does not know one says so
ONE_THREAD = {
    "xla_cpu_multi_thread_eigen": False,
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
}


@dataclass(kw_only=True)
class FlowMatchingOptions(BenchOptions):
    """Options of the measurement."""

    repeats: int = 7
    """Rounds; in each of them every case is run, for a tenth of a second or once."""
    widths: tuple[int, ...] = (128, 1024)
    """Widths of the networks, each of three hidden layers."""
    num_states: int = 256
    """States in a batch."""
    num_samples: int = 2_000
    """States sampled."""
    num_steps: int = 50
    """Steps of the sampler."""
    only: tuple[str, ...] = ()
    """Only rows whose name begins with one of these; all if empty."""


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the table and returns its records."""
    options = parse(FlowMatchingOptions, "flow_matching_peer", args)
    runs: dict[str, Callable[[], Any]] = {}
    compiling: dict[str, float | None] = {}
    timings: dict[str, Timing] = {}
    others: dict[str, dict[str, float]] = {}
    peers: dict[str, list[str]] = {}
    data = np.asarray(rows_to_learn(load_data("checkerboard")), np.float32)
    for width in options.widths:
        parts = Parts(width, data)
        step, sampling = f"training step, 3x{width}", f"sampling, 3x{width}"
        many = f"{step}, {UPDATES} a call"
        cases: dict[str, Callable[[FlowMatchingOptions], Any]] = {
            step: partial(parts.steps, updates=1),
            many: partial(parts.steps, updates=UPDATES),
            f"{many}, one thread": partial(parts.steps, updates=UPDATES, flags=ONE_THREAD),
            sampling: parts.sampling,
        }
        if jax.device_count() >= DEVICES:
            mesh = state_mesh(jax.devices()[:DEVICES])
            cases[f"{sampling}, two devices"] = partial(parts.sampling, mesh=mesh)
        wanted = [name for name in (step, sampling) if name.startswith(options.only or "")]
        for name in wanted:
            theirs = [f"{name}, flow_matching, {each}" for each in THREADS]
            ours = [row for row in cases if row.startswith(name)]
            peers |= dict.fromkeys(ours, theirs)
            timings |= dict.fromkeys((*ours, *theirs), Timing(None))
            for row in ours:
                try:
                    runs[row], compiling[row] = cases[row](options)
                except jax.errors.JaxRuntimeError as error:
                    timings[row] = Timing(None, error=f"{type(error).__name__}: {error}")
        try:
            peer = parts.peer()
        except ImportError as error:
            failed = Timing(None, error=f"{type(error).__name__}: {error}")
            timings |= {row: failed for name in wanted for row in peers[name]}
            continue
        others |= {step: parts.differences(peer, options.num_states)} if step in wanted else {}
        for name in wanted:
            what = partial(_steps if name == step else _samples, peer, options)
            for row, num in zip(peers[name], THREADS.values()):
                runs[row] = partial(peer.with_threads, num, what)
    for row, timing in time_in_turn(runs, options.repeats).items():
        share = 1.0 / UPDATES if row.startswith("training") else 1.0
        seconds, spent = (tuple(share * s for s in times) for times in (timing.seconds, timing.cpu_seconds))
        timings[row] = Timing(compiling.get(row), seconds, spent)
    baseline = {}
    for name, rows in peers.items():
        if not timings[name].error and not timings[rows[0]].error:
            baseline[name] = min(rows, key=lambda row: timings[row].median)
            cpu = [statistics.median(timings[row].cpu_seconds) for row in (name, baseline[name])]
            others.setdefault(name, {})["CPU ratio"] = cpu[0] / cpu[1]
    return report(
        "flow_matching",
        timings,
        options,
        shapes={
            "states": options.num_states,
            "samples": options.num_samples,
            "steps": options.num_steps,
        },
        baseline=baseline,
        others=others,
    )


def _steps(peer: Any, options: FlowMatchingOptions) -> None:
    for _ in range(UPDATES):
        peer.step(options.num_states)


def _samples(peer: Any, options: FlowMatchingOptions) -> None:
    peer.sample(options.num_samples, options.num_steps)


class VelocityMLP(nn.Module):
    """`(x, t)` through linear layers with SiLU between them: the layers of `peers.torch_flow.VelocityMLP`."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        h = jnp.append(x, t)
        for _ in range(HIDDEN):
            h = nn.silu(nn.Dense(self.width)(h))
        return nn.Dense(DIM)(h)


class Parts:
    """Path, process, network and objective.

    The network predicts the velocity `u`, the process asks for the residual `eta`, in which `u` is affine with a slope
    of `1 / sqrt(V)`, `V = t^2 + (1 - t)^2`. So `|u - (x_1 - x_0)|^2` is the process's squared error over `V`.
    """

    def __init__(self, width: int, x1: np.ndarray) -> None:
        self.x1 = x1
        self.path = GaussianPath(CondOT(), shape=(DIM,))
        self.process = FlowProcess(self.path, stepper="euler")
        self.network = VelocityMLP(width)
        init = jax.jit(self.network.init)
        self.params: Any = init(jax.random.key(0), jnp.zeros(DIM), jnp.zeros(()))
        self.objective: Objective = weighted_objective(
            self.process, self.apply, weight_fn=lambda t: 1.0 / (DIM * self._variance(t))
        )

    def apply(self, params: Any, x: jax.Array, t: Any) -> jax.Array:
        """The residual whose velocity the network predicts."""
        velocity = jnp.asarray(self.network.apply(params, x, t))
        return (velocity - self.path.velocity(jnp.zeros(DIM), x, t)) * jnp.sqrt(self._variance(t))

    def steps(
        self, options: FlowMatchingOptions, *, updates: int, flags: dict[str, Any] | None = None
    ) -> tuple[Callable[[], Any], float | None]:
        """What makes the updates of an iteration, so many a call, and the seconds that its compilation took.

        Raises `JaxRuntimeError` for `flags`, compiler options, that are not known here.
        """
        trainer = make_trainer(
            data_source(self.x1, self.path.space),
            self.objective,
            optax.adam(LEARNING_RATE),
            batch_size=options.num_states,
            updates_per_iteration=updates,
        )
        state = trainer.init(jax.random.key(1), self.params)
        started = time.perf_counter()
        step = jax.jit(trainer.step, donate_argnums=0).lower(state).compile(compiler_options=flags)
        seconds = time.perf_counter() - started

        def steps() -> None:
            nonlocal state
            for _ in range(UPDATES // updates):
                state, metrics = step(state)
                float(metrics["loss"])

        return steps, seconds

    def sampling(
        self, options: FlowMatchingOptions, *, mesh: Mesh | None = None
    ) -> tuple[Callable[[], Any], float | None]:
        """What samples, on the devices of a mesh, and the seconds that its compilation took."""
        sampler = grid_sampler(self.process, time_grid(options.num_steps))

        def sample(key: jax.Array, params: Any) -> jax.Array:
            keys = constrain(jax.random.split(key, options.num_samples), mesh)
            return jax.vmap(lambda k: sampler.sample(k, lambda x, t: self.apply(params, x, t)).x)(keys)

        arguments = (jax.random.key(2), self.params)
        if mesh is not None:
            arguments = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec()))
        return compile_case((sample, arguments))

    def peer(self) -> Any:
        """The package's, with the same weights. Raises `ImportError` where it is missing."""
        # threads that spin for each other take a loaded machine a hundred times as long
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from ..peers.torch_flow import Peer

        return Peer(self._layers(self.params), self.x1, LEARNING_RATE)

    def differences(self, peer: Any, num_states: int) -> dict[str, float]:
        """Of loss and gradient on the same noise, relative. Raises `ValueError` where they are not the same."""
        rng = np.random.default_rng(0)
        x0 = rng.normal(size=(num_states, DIM)).astype(np.float32)
        x1 = self.x1[rng.integers(len(self.x1), size=num_states)]
        t = rng.uniform(size=num_states).astype(np.float32)
        theirs, their_gradient = peer.loss_and_gradient(x0, x1, t)
        ours, our_gradient = jax.jit(jax.value_and_grad(self.loss))(self.params, x0, x1, t)
        a, b = (
            np.concatenate([leaf.ravel() for layer in layers for leaf in layer])
            for layers in (self._layers(our_gradient), their_gradient)
        )
        found = {
            "loss differs by": abs(float(ours) / theirs - 1.0),
            "gradient differs by": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        }
        if max(found.values()) > TOLERANCE:
            raise ValueError(f"widths: both are to compute the same at {self.network.width}, and {found}")
        return found

    def loss(self, params: Any, x0: jax.Array, x1: jax.Array, t: jax.Array) -> jax.Array:
        """The objective's, at given noise."""
        keys = jax.random.split(jax.random.key(0), len(t))
        xt = jax.vmap(self.path.interpolate)(keys, x0, x1, t)
        target = jax.vmap(self.process.target)(xt, x1, t)
        each = jax.vmap(lambda example: self.objective.loss(params, example))
        return jnp.mean(each(Examples(xt, t, target, jnp.ones_like(t))))

    def _variance(self, t: Any) -> jax.Array:
        return jnp.square(self.path.reference_moments(t)[1])

    def _layers(self, params: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        named = params["params"]
        return [
            (np.asarray(named[f"Dense_{n}"]["kernel"]), np.asarray(named[f"Dense_{n}"]["bias"]))
            for n in range(HIDDEN + 1)
        ]


if __name__ == "__main__":
    if jax.default_backend() == "cpu":
        rerun_with_devices("flow_matching_peer", DEVICES, sys.argv[1:])
    main()
