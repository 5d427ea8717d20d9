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

from .._pytree import frozen_pytree, static
from ..generators import Generator, superpose
from ..paths import Path
from ..paths._base import Scalar
from ._base import PredictFn, Process


@frozen_pytree
class SuperpositionProcess(Process):
    """Processes that follow the same path with the same prediction, e.g. its flow and its diffusion.

    `weights`: one non-negative number each; what counts is their share of the sum. `separate`: every component has a
    model of its own, trained apart or not; predictions and targets are then tuples with one entry for each, and
    `predict_fn = lambda x, t: (first(x, t), second(x, t))`. A step of one component uses its entry alone, so that under
    `jit` the others are not computed for it. Under `vmap` every component computes its step and one is kept. Raises
    `ValueError` for unequal numbers, a negative weight, or processes whose paths, or unless `separate` predictions,
    differ in kind, or in a number that is Python's (arrays are not read).
    """

    processes: tuple[Process, ...]
    weights: tuple[float | jax.Array, ...]
    separate: bool = static(default=False)

    def __post_init__(self) -> None:
        if len(self.processes) != len(self.weights) or not self.processes:
            raise ValueError(
                f"weights: expected one for each of {len(self.processes)} processes, got {len(self.weights)}"
            )
        if any(isinstance(w, (int, float)) and w < 0 for w in self.weights):
            raise ValueError(f"weights: must not be negative, got {self.weights}")
        kinds = {
            (str(jax.tree.structure(p.path)), "" if self.separate else str(p.prediction_shape()))
            for p in self.processes
            if isinstance(p, Process)
        }
        known = [p.path for p in self.processes if isinstance(p, Process)]
        if len(kinds) > 1 or any(_are_unlike(known[0], path) for path in known[1:]):
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
    def can_bootstrap(self) -> bool:
        return all(p.can_bootstrap for p in self.processes)

    @property
    def follows_couplings(self) -> bool:
        return all(p.follows_couplings for p in self.processes)

    def prediction_shape(self) -> Any:
        return self._each(lambda p: p.prediction_shape())

    def target(self, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        """That of the first process, which is everyone's, or one for each where they are `separate`."""
        return self._each(lambda p: p.target(xt, xr, t, r))

    def weighted_target(self, weights: jax.Array, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return self._each(lambda p: p.weighted_target(weights, xt, xr, t, r))

    def conditional_target(self, xt: Any, x1: Any, t: Scalar, site_logits: jax.Array) -> Any:
        return self._each(lambda p: p.conditional_target(xt, x1, t, site_logits))

    def target_from_psi(self, xt: Any, t: Scalar, psi_fn: Callable[[Any], jax.Array]) -> Any:
        return self._each(lambda p: p.target_from_psi(xt, t, psi_fn))

    def sample_endpoint(self, key: jax.Array, prediction: Any, xt: Any, t: Scalar) -> Any:
        """From the prediction of the first process."""
        return self.processes[0].sample_endpoint(key, self._own(prediction, 0), xt, t)

    def endpoint_log_prob(self, x1: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        return self.processes[0].endpoint_log_prob(x1, self._own(prediction, 0), xt, t)

    def divergence(self, target: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        """The sum of all where they are `separate`."""
        if not self.separate:
            return self.processes[0].divergence(target, prediction, xt, t)
        parts = zip(self.processes, target, prediction)
        return sum(p.divergence(a, b, xt, t) for p, a, b in parts)  # type: ignore[return-value]

    def generator(self, prediction: Any, xt: Any, t: Scalar) -> Generator:
        parts = [p.generator(self._own(prediction, i), xt, t) for i, p in enumerate(self.processes)]
        return superpose(parts, list(self.probs))

    def backward_generator(self, prediction: Any, xt: Any, t: Scalar) -> Generator:
        parts = [p.backward_generator(self._own(prediction, i), xt, t) for i, p in enumerate(self.processes)]
        return superpose(parts, list(self.probs))

    def step(
        self, key: jax.Array, xt: Any, predict_fn: PredictFn, t: Scalar, s: Scalar, prediction: Any = None
    ) -> tuple[Any, jax.Array]:
        def of(i: int, key_step: jax.Array) -> tuple[Any, jax.Array]:
            known = None if prediction is None else self._own(prediction, i)
            return self.processes[i].step(key_step, xt, self._predict(predict_fn, i), t, s, known)

        return self._switch(key, of)

    def backward(self, key: jax.Array, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar) -> Any:
        return self._switch(
            key, lambda i, k: self.processes[i].backward(k, xs, self._predict(predict_fn, i), t, s)
        )

    def increment(
        self, key: jax.Array, xt: Any, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        """Of the component that `key` chose."""
        return self._switch(
            key, lambda i, k: self.processes[i].increment(k, xt, xs, self._predict(predict_fn, i), t, s)
        )

    def _switch(self, key: jax.Array, fn: Callable[[int, jax.Array], Any]) -> Any:
        """`fn(i, key)` of the component that `key` chooses."""
        key_which, key_step = jax.random.split(key)
        which = jax.random.categorical(key_which, jnp.log(self.probs))
        return jax.lax.switch(which, [functools.partial(fn, i) for i in range(len(self.processes))], key_step)

    def _each(self, fn: Callable[[Process], Any]) -> Any:
        return tuple(fn(p) for p in self.processes) if self.separate else fn(self.processes[0])

    def _own(self, prediction: Any, i: int) -> Any:
        return prediction[i] if self.separate else prediction

    def _predict(self, predict_fn: PredictFn, i: int) -> PredictFn:
        return (lambda x, t: predict_fn(x, t)[i]) if self.separate else predict_fn


def _are_unlike(path: Path, other: Path) -> bool:
    """Whether a number differs that can be told without reading an array: arrays may be traced or swept."""
    pairs = zip(jax.tree.leaves(path), jax.tree.leaves(other))
    return any(isinstance(a, float) and isinstance(b, float) and a != b for a, b in pairs)
