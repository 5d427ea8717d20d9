"""A product of processes: targets and predictions are tuples, divergences and increments add.

The joint prediction at `(xt, t)` is computed once and handed to every component. Components move at the same
time given the old state. Backwards, components that are noised go first and the deterministic one is inverted
given their earlier states, so the joint kernel and its weight stay exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from .._pytree import frozen_pytree
from ..generators import Generator
from ..paths import ProductPath
from ..paths._base import Scalar
from ._base import PredictFn, Process


@frozen_pytree
class ProductProcess(Process):
    """One process for each component of a tuple state, at most one of them deterministic.

    Two flows that move at once have a joint determinant that is not the product of theirs: put their
    coordinates into one `Real` component. Raises `ValueError` otherwise.
    """

    processes: tuple[Process, ...]

    def __post_init__(self) -> None:
        if sum(isinstance(p, Process) and p.is_deterministic for p in self.processes) > 1:
            raise ValueError("processes: at most one flow in a product; join their coordinates in one Real")

    @property
    def path(self) -> ProductPath:
        return ProductPath(tuple(p.path for p in self.processes))

    @property
    def is_reversal(self) -> bool:
        return all(p.is_reversal for p in self.processes)

    @property
    def can_bootstrap(self) -> bool:
        return all(p.can_bootstrap for p in self.processes)

    @property
    def follows_couplings(self) -> bool:
        return all(p.follows_couplings for p in self.processes)

    def prediction_shape(self) -> tuple[Any, ...]:
        return tuple(p.prediction_shape() for p in self.processes)

    def target(self, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return tuple(p.target(x, y, t, r) for p, x, y in zip(self.processes, xt, xr))

    def weighted_target(self, weights: jax.Array, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return tuple(p.weighted_target(weights, x, y, t, r) for p, x, y in zip(self.processes, xt, xr))

    def conditional_target(self, xt: Any, x1: Any, t: Scalar, site_logits: jax.Array) -> Any:
        """`site_logits` are those of the one component that has symbols."""
        return tuple(p.conditional_target(x, y, t, site_logits) for p, x, y in zip(self.processes, xt, x1))

    def target_from_psi(self, xt: Any, t: Scalar, psi_fn: Callable[[Any], jax.Array]) -> Any:
        def component(i: int) -> Callable[[Any], jax.Array]:
            return lambda xi: psi_fn((*xt[:i], xi, *xt[i + 1 :]))

        return tuple(
            p.target_from_psi(x, t, component(i)) for i, (p, x) in enumerate(zip(self.processes, xt))
        )

    def sample_endpoint(self, key: jax.Array, prediction: Any, xt: Any, t: Scalar) -> Any:
        keys = jax.random.split(key, len(self.processes))
        parts = zip(self.processes, keys, prediction, xt)
        return tuple(p.sample_endpoint(k, b, x, t) for p, k, b, x in parts)

    def endpoint_log_prob(self, x1: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        parts = zip(self.processes, x1, prediction, xt)
        return sum(p.endpoint_log_prob(y, b, x, t) for p, y, b, x in parts)  # type: ignore[return-value]

    def divergence(self, target: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        parts = zip(self.processes, target, prediction, xt)
        return sum(p.divergence(a, b, x, t) for p, a, b, x in parts)  # type: ignore[return-value]

    def generator(self, prediction: Any, xt: Any, t: Scalar) -> Generator:
        return tuple(p.generator(b, x, t) for p, b, x in zip(self.processes, prediction, xt))

    def backward_generator(self, prediction: Any, xt: Any, t: Scalar) -> Generator:
        return tuple(p.backward_generator(b, x, t) for p, b, x in zip(self.processes, prediction, xt))

    def step(
        self, key: jax.Array, xt: Any, predict_fn: PredictFn, t: Scalar, s: Scalar, prediction: Any = None
    ) -> tuple[Any, jax.Array]:
        joint = predict_fn(xt, t) if prediction is None else prediction
        keys = jax.random.split(key, len(self.processes))
        steps = [
            p.step(keys[i], xt[i], _component(predict_fn, xt, i), t, s, joint[i])
            for i, p in enumerate(self.processes)
        ]
        return tuple(x for x, _ in steps), sum(d for _, d in steps)  # type: ignore[return-value]

    def backward(self, key: jax.Array, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar) -> Any:
        keys = jax.random.split(key, len(self.processes))
        state = list(xs)
        for i in sorted(range(len(state)), key=lambda i: self.processes[i].is_deterministic):
            predict = _component(predict_fn, tuple(state), i)
            state[i] = self.processes[i].backward(keys[i], xs[i], predict, t, s)
        return tuple(state)

    def increment(
        self, key: jax.Array, xt: Any, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        joint = predict_fn(xt, t)
        keys = jax.random.split(key, len(self.processes))
        return sum(  # type: ignore[return-value]
            p.increment(keys[i], xt[i], xs[i], _component(predict_fn, xt, i, joint), t, s)
            for i, p in enumerate(self.processes)
        )


def _component(predict_fn: PredictFn, state: Any, i: int, joint: Any = None) -> PredictFn:
    """`predict_fn` as component `i` sees it, the others held at `state`; `joint` is its value at `state` itself."""

    def predict(xi: Any, t: Scalar) -> Any:
        if joint is not None and xi is state[i]:
            return joint[i]
        return predict_fn((*state[:i], xi, *state[i + 1 :]), t)[i]

    return predict
