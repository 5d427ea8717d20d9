"""The contract of a process: a way to follow a path.

    target(xt, xr, t, r)                      conditional generator, in a linear parameterisation
    divergence(target, prediction, xt, t)     a Bregman divergence there; `prediction` is raw network output
    generator(prediction, xt, t)              coefficients, for algebra and for `L f`
    step(key, xt, predict_fn, t, s)           a draw of `k(x_s | x_t)` and the increment of its log-weight

Every step has a backward kernel `b(x_t | x_s)`; `backward` draws from it and `increment` evaluates

    log b(x_t | x_s) - log k(x_s | x_t) + log reference_s(x_s) - log reference_t(x_t).

Increments are relative to the path's reference, so they add up to the log-weight of a finished roll-out,

    log w = psi(x_1, 1) + log reference_0(x_0) - log p_0(x_0) + sum of increments,     E[w] = Z,

whatever the network says, and `exp(psi)` may serve as twist in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ..generators import Generator
from ..paths import Path
from ..paths._base import Scalar

PredictFn = Callable[[Any, Scalar], Any]  # (xt, t) -> raw network output


@dataclass(frozen=True)
class BindableApply:
    """An `apply_fn(params, x, t)` that becomes a predictor with more to be asked for where its parameters are bound."""

    bind: Callable[[Any], PredictFn]

    def __call__(self, params: Any, x: Any, t: Any) -> Any:
        return self.bind(params)(x, t)


def bind(apply_fn: Callable[[Any, Any, Any], Any], params: Any) -> PredictFn:
    """`predict_fn(x, t)` of a network with these parameters."""
    if isinstance(apply_fn, BindableApply):
        return apply_fn.bind(params)
    return lambda x, t: apply_fn(params, x, t)


@frozen_pytree
class Process:
    """One state at a time; see the module docstring for what each function means."""

    @property
    def path(self) -> Path:
        raise NotImplementedError

    @property
    def is_deterministic(self) -> bool:
        """Whether `step` is a map of the state, whose weight is the log-determinant of that map."""
        return False

    @property
    def is_reversal(self) -> bool:
        """Whether the backward kernel is the path's own noising kernel `p_{t|s}`, whatever the prediction.

        Roll-outs from any `(x_t, t)` then have `E[exp(psi(x_1, 1) + increments)] = exp(psi(x_t, t))`. With another
        backward kernel only roll-outs from the prior have weights that mean something.
        """
        return False

    @property
    def can_bootstrap(self) -> bool:
        """Whether `target` exists at `r < 1`; if not, only `r = 1` does, and bootstrapping refuses the process."""
        return self.path.is_markov

    @property
    def follows_couplings(self) -> bool:
        """Whether the mean of `target` still generates `x_t` where `x_0` and `x_1` are not independent.

        A flow needs `E[x_1 | x_t]` alone, and a mask says nothing about its `x_0`. A diffusion, whose score
        is that of the path's own noise, and the reversed noising chain of a mixture path need independence.
        """
        return False

    def prediction_shape(self) -> Any:
        """Shape of the raw network output (a tuple of shapes for a product)."""
        raise NotImplementedError

    def target(self, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        raise NotImplementedError

    def weighted_target(self, weights: jax.Array, xt: Any, xr: Any, t: Scalar, r: Scalar = 1.0) -> Any:
        """`sum_k weights[k] target(xt, xr[k], t, r)`, `xr` stacked; overridden where that is cheaper than its terms."""
        targets = jax.vmap(lambda x: self.target(xt, x, t, r))(xr)
        return jax.tree.map(lambda f: jnp.tensordot(weights, f, axes=1), targets)

    def conditional_target(self, xt: Any, x1: Any, t: Scalar, site_logits: jax.Array) -> Any:
        """`target(xt, x1, t, 1)` with each symbol replaced by its law given the rest of `x1` and `x_t`.

        `site_logits [sites, S]`: log-probability of each symbol of a site given the others, up to a constant.
        Averaging over a site given all else changes no mean and removes its variance. Parts of the state
        without symbols keep their target.
        """
        return self.target(xt, x1, t)

    def target_from_psi(self, xt: Any, t: Scalar, psi_fn: Callable[[Any], jax.Array]) -> Any:
        """The marginal target that `psi_fn(x) = psi(x, t)`, the log-density relative to the reference, implies.

        Raises `NotImplementedError` for processes whose target `psi` at one time does not give.
        """
        raise NotImplementedError(f"{type(self).__name__} has no target from psi")

    def sample_endpoint(self, key: jax.Array, prediction: Any, xt: Any, t: Scalar) -> Any:
        """A draw of `x_1` given `x_t` from the factorised law that a raw prediction describes.

        Symbols are independent with their predicted probabilities; R^d gets the predicted endpoint and the scale of
        the reference's belief. It has mass wherever `p_{t|1}(x_t | .)` has. Raises `NotImplementedError` for
        processes whose prediction describes no law.
        """
        raise NotImplementedError(f"{type(self).__name__} has no law of the endpoint")

    def endpoint_log_prob(self, x1: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        """Log-probability of `sample_endpoint`."""
        raise NotImplementedError(f"{type(self).__name__} has no law of the endpoint")

    def divergence(self, target: Any, prediction: Any, xt: Any, t: Scalar) -> jax.Array:
        raise NotImplementedError

    def generator(self, prediction: Any, xt: Any, t: Scalar) -> Generator:
        raise NotImplementedError

    def backward_generator(self, prediction: Any, xt: Any, t: Scalar) -> Generator:
        """Coefficients of the same marginals followed backwards in time: `d/dt E f = -E (Lbar f)`.

        For `generators.predictor_corrector`. Often infinite at `t=0`. Raises `NotImplementedError` for processes
        that state none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward generator")

    def step(
        self, key: jax.Array, xt: Any, predict_fn: PredictFn, t: Scalar, s: Scalar, prediction: Any = None
    ) -> tuple[Any, jax.Array]:
        """`(x_s, increment)`. `prediction`, where given, is `predict_fn(xt, t)` computed already."""
        raise NotImplementedError

    def backward(self, key: jax.Array, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar) -> Any:
        """A draw of `x_t` from the backward kernel `b(. | x_s)`."""
        raise NotImplementedError

    def increment(
        self, key: jax.Array, xt: Any, xs: Any, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        """The increment of the log-weight of the move between `xt` and `xs`.

        `key` is the one that `step` or `backward` made the move with: auxiliary choices are functions of it.
        """
        raise NotImplementedError
