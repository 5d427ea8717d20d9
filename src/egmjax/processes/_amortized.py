"""Amortised sampling: one process for a family of energies `E(c, x)`, such as one model at every temperature.

    state (c, x),   c given and still,   x follows the process,   prediction that of the process at (c, x)

The network sees `c` as part of the state. Weights are conditional, `E[w | c] = Z(c)`, so those of different `c` are
not comparable: a weighted replay buffer normalises them within groups of like `c` (`training.replay_buffer`). With a
trained network and a value of `c`, the inner process under `lambda x, t: predict_fn((c, x), t)` is an ordinary
process for `E(c, .)`, with all its samplers and certificates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ..generators import Flow, Generator, Jump
from ..paths import GivenPath, ProductPath
from ..paths._base import Scalar
from ..states import Categorical, Real, Space
from ._base import PredictFn, Process


@frozen_pytree
class AmortizedProcess(Process):
    """`process` given conditions drawn by `given`; a state is the tuple `(c, x)`."""

    given: GivenPath
    process: Process

    @property
    def path(self) -> ProductPath:
        return ProductPath((self.given, self.process.path))

    @property
    def is_deterministic(self) -> bool:
        return self.process.is_deterministic

    @property
    def is_reversal(self) -> bool:
        return self.process.is_reversal

    @property
    def can_bootstrap(self) -> bool:
        return self.process.can_bootstrap

    def prediction_shape(self) -> Any:
        """That of the inner process: nothing is predicted about `c`."""
        return self.process.prediction_shape()

    def target(self, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return self.process.target(xt[1], xr[1], t, r)

    def weighted_target(self, weights: jax.Array, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        return self.process.weighted_target(weights, xt[1], xr[1], t, r)

    def conditional_target(self, xt: Any, x1: Any, t: Scalar, site_logits: jax.Array) -> Any:
        return self.process.conditional_target(xt[1], x1[1], t, site_logits)

    def target_from_psi(self, xt: Any, t: Scalar, psi_fn: Callable[[Any], jax.Array]) -> Any:
        return self.process.target_from_psi(xt[1], t, lambda x: psi_fn((xt[0], x)))

    def sample_endpoint(self, key: jax.Array, prediction: Any, xt: Any, t: Scalar) -> Any:
        return xt[0], self.process.sample_endpoint(key, prediction, xt[1], t)

    def endpoint_log_prob(self, x1: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        return self.process.endpoint_log_prob(x1[1], prediction, xt[1], t)

    def divergence(self, target: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        return self.process.divergence(target, prediction, xt[1], t)

    def generator(self, prediction: Any, xt: Any, t: Scalar) -> Generator:
        return _still(self.given.space), self.process.generator(prediction, xt[1], t)

    def step(
        self, key: jax.Array, xt: Any, predict_fn: PredictFn, t: Scalar, s: Scalar, prediction: Any = None
    ) -> tuple[Any, jax.Array]:
        xs, increment = self.process.step(key, xt[1], at_condition(predict_fn, xt[0]), t, s, prediction)
        return (xt[0], xs), increment

    def backward(self, key: jax.Array, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar) -> Any:
        return xs[0], self.process.backward(key, xs[1], at_condition(predict_fn, xs[0]), t, s)

    def increment(
        self, key: jax.Array, xt: Any, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        return self.process.increment(key, xt[1], xs[1], at_condition(predict_fn, xt[0]), t, s)


def at_condition(predict_fn: PredictFn, condition: Any) -> PredictFn:
    """`predict_fn` of states `(c, x)` as a function of `x` at `c = condition`: what the inner process takes."""
    return lambda x, t: predict_fn((condition, x), t)


def _still(space: Space) -> Any:
    """The generator that is zero."""
    match space:
        case Real(shape):
            return Flow(jnp.zeros(shape))
        case Categorical(sites, num_states):
            return Jump(jnp.zeros((sites, num_states)))
    return tuple(map(_still, space))
