"""A superposition of processes on one path: every step is taken by one of them, drawn at random.

    generator    sum_i probs[i] L_i
    step         component i with probability probs[i], then its step; backwards the same

The component is an auxiliary variable whose law does not depend on the state and is the same in both
directions, so it cancels from the weight, which is the increment of the component that moved: unbiased at every
step size. As steps shrink the chain tends to the superposed generator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ..generators import Generator, superpose
from ..paths import Path
from ..paths._base import Scalar
from ._base import PredictFn, Process


@frozen_pytree
class SuperpositionProcess(Process):
    """Processes that follow the same path with the same prediction, e.g. its flow and its diffusion.

    `weights`: one non-negative number each; what counts is their share of the sum. Under `vmap` every component
    computes its step and one is kept. Raises `ValueError` for unequal numbers, a negative weight, or processes
    whose paths or predictions differ in kind.
    """

    processes: tuple[Process, ...]
    weights: tuple[float | jax.Array, ...]

    def __post_init__(self) -> None:
        if len(self.processes) != len(self.weights) or not self.processes:
            raise ValueError(
                f"weights: expected one for each of {len(self.processes)} processes, got {len(self.weights)}"
            )
        if any(isinstance(w, (int, float)) and w < 0 for w in self.weights):
            raise ValueError(f"weights: must not be negative, got {self.weights}")
        kinds = {
            (str(jax.tree.structure(p.path)), str(p.prediction_shape()))
            for p in self.processes
            if isinstance(p, Process)
        }
        if len(kinds) > 1:
            raise ValueError("processes: a superposition needs one path and one prediction for all")

    @property
    def probs(self) -> jax.Array:
        """The share of each process, `[n]`."""
        weights = jnp.stack([jnp.asarray(w, dtype=float) for w in self.weights])
        return weights / jnp.sum(weights)

    @property
    def path(self) -> Path:
        return self.processes[0].path

    @property
    def is_deterministic(self) -> bool:
        """As soon as one component is: its step has to be inverted."""
        return any(p.is_deterministic for p in self.processes)

    @property
    def is_reversal(self) -> bool:
        return all(p.is_reversal for p in self.processes)

    @property
    def follows_couplings(self) -> bool:
        return all(p.follows_couplings for p in self.processes)

    def prediction_shape(self) -> Any:
        return self.processes[0].prediction_shape()

    def target(self, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        """That of the first process."""
        return self.processes[0].target(xt, xr, t, r)

    def weighted_target(self, weights: jax.Array, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return self.processes[0].weighted_target(weights, xt, xr, t, r)

    def conditional_target(self, xt: Any, x1: Any, t: Scalar, site_logits: jax.Array) -> Any:
        return self.processes[0].conditional_target(xt, x1, t, site_logits)

    def target_from_psi(self, xt: Any, t: Scalar, psi_fn: Callable[[Any], jax.Array]) -> Any:
        return self.processes[0].target_from_psi(xt, t, psi_fn)

    def sample_endpoint(self, key: jax.Array, prediction: Any, xt: Any, t: Scalar) -> Any:
        return self.processes[0].sample_endpoint(key, prediction, xt, t)

    def endpoint_log_prob(self, x1: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        return self.processes[0].endpoint_log_prob(x1, prediction, xt, t)

    def divergence(self, target: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        return self.processes[0].divergence(target, prediction, xt, t)

    def generator(self, prediction: Any, xt: Any, t: Scalar) -> Generator:
        return superpose([p.generator(prediction, xt, t) for p in self.processes], list(self.probs))

    def step(
        self, key: jax.Array, xt: Any, predict_fn: PredictFn, t: Scalar, s: Scalar, prediction: Any = None
    ) -> tuple[Any, jax.Array]:
        key_which, key_step = jax.random.split(key)
        return self._switch(key_which, lambda p: p.step(key_step, xt, predict_fn, t, s, prediction))

    def backward(self, key: jax.Array, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar) -> Any:
        key_which, key_step = jax.random.split(key)
        return self._switch(key_which, lambda p: p.backward(key_step, xs, predict_fn, t, s))

    def increment(
        self, key: jax.Array, xt: Any, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        """Of the component that `key` chose."""
        key_which, key_step = jax.random.split(key)
        return self._switch(key_which, lambda p: p.increment(key_step, xt, xs, predict_fn, t, s))

    def _switch(self, key: jax.Array, fn: Callable[[Process], Any]) -> Any:
        which = jax.random.categorical(key, jnp.log(self.probs))
        return jax.lax.switch(which, [functools.partial(fn, p) for p in self.processes])
