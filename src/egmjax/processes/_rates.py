"""Jump processes on general discrete paths: three families of rates for one and the same path.

    prediction    f [sites, S]: what the other sites say about x_1[i],  D_i(z) ~ exp(f_i(z)) p_t(x_t[i] | z)
    generator     Q[i, y] = sum_z D_i(z) F^z(x_t[i], y) / p_t(x_t[i] | z),     F^z the flux of probability:
                  minimal   [dp_x]_- [dp_y]_+ / sum [dp]_+           least total rate (Holderrieth et al., 2024)
                  campbell  [dp_y - dp_x]_+ / S                      symmetric in sign (Campbell et al., 2024)
                  kinetic   [p_x dp_y - p_y dp_x]_+                  least kinetic energy (Shaul et al., 2412.03487)
    step          k(y | x) = sum_z D_i(z | x_t) J^z(x, y) / p_t(x | z)
    backward      b(x | y) = sum_z D_i(z | x_s) J^z(x, y) / p_s(y | z),        J^z a coupling of p_t and p_s

with `dp` the derivative in time. Forwards and backwards are the same joint law summed over `x_1`, with what the model
believes of it at either end; `f = 0` is the reference, with weights of exactly one.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree, static
from ..generators import Jump
from ..paths import DiscretePath
from ..paths._base import Scalar, check_times, is_one
from ..paths._discrete import landing
from ..paths._masked import _log, _nonzero
from ._base import PredictFn
from ._jump import JumpProcess


@frozen_pytree
class RateProcess(JumpProcess):
    """The generative jump process of a `DiscretePath`, trained on posteriors at `r = 1`.

    `family` of rates, see the module's docstring; all solve the forward equation of the path. `stepper`: "coupling" is
    the maximal coupling of the two times given `x_1`, exact for every single endpoint at any step, whose limit is
    the minimal family; "leap" lets every site jump with probability `1 - exp(-h rate)` of any family, and draws
    the endpoint in the last step. `weighting` of the divergence: "rate" is the generalised KL divergence of the rates,
    "uniform" the cross-entropy of every site. Costs `sites * S^2` a step, of the leap `sites * S^3` in operations.
    Raises `ValueError` for unknown names and a coupling of another family than the minimal one.
    """

    mixture: DiscretePath  # type: ignore[assignment]
    family: Literal["minimal", "campbell", "kinetic"] = static(default="minimal")
    stepper: Literal["coupling", "leap"] = static(default="coupling")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.family not in ("minimal", "campbell", "kinetic"):
            raise ValueError(f'family: expected "minimal", "campbell" or "kinetic", got {self.family!r}')
        if self.stepper not in ("coupling", "leap"):
            raise ValueError(f'stepper: expected "coupling" or "leap", got {self.stepper!r}')
        if self.stepper == "coupling" and self.family != "minimal":
            raise ValueError('stepper: the maximal coupling follows the minimal rates; use "leap" for others')

    @property
    def path(self) -> DiscretePath:
        return self.mixture

    @property
    def is_reversal(self) -> bool:
        """The backward kernel needs the prediction: no noising chain of the path exists without `x_1`."""
        return False

    def target(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """One-hot `x_1`, `[sites, S]`. Raises `ValueError` for `r` other than the literal 1."""
        check_times(t, r)
        if not is_one(r):
            raise ValueError("r: this path is not Markov in r, so only r=1 exists")
        return (xr[:, None] == jnp.arange(self.path.num_states)[None, :]).astype(float)

    def posterior(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        return jax.nn.log_softmax(prediction + _log(self.path.likelihood(xt, t)), axis=-1)

    def intensities(self, posterior: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        odds = posterior / _nonzero(self.path.likelihood(xt, t))
        return self._off(_mix(odds, self._flux(xt, t)[0]), xt)

    def backward_generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Jump:
        """The reversal of the rates given `x_1`, averaged: `sum_z D_i(z) F^z(y, x_t[i]) / p_t(x_t[i] | z)`."""
        odds = self._odds(prediction, xt, t)
        return Jump(self._off(_mix(odds, self._flux(xt, t)[1]), xt))

    def log_ratios(self, predict_fn: PredictFn, xt: jax.Array, t: Scalar) -> jax.Array:
        """`log sum_z D_i(z) p_t(y | z) / p_t(x_t[i] | z)`; one network call."""
        odds = self._odds(predict_fn(xt, t), xt, t)
        return _log(_mix(odds, self.path.table(t)))

    def step(
        self,
        key: jax.Array,
        xt: jax.Array,
        predict_fn: PredictFn,
        t: Scalar,
        s: Scalar,
        prediction: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        raw = predict_fn(xt, t) if prediction is None else prediction
        ahead = self._ahead(raw, xt, t, s)
        xs = jax.random.categorical(key, ahead, axis=-1).astype(xt.dtype)
        return xs, self._ratio(ahead, xt, xs, predict_fn, t, s)

    def backward(
        self, key: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        behind = self._behind(predict_fn(xs, s), xs, t, s)
        return jax.random.categorical(key, behind, axis=-1).astype(xs.dtype)

    def increment(
        self, key: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        return self._ratio(self._ahead(predict_fn(xt, t), xt, t, s), xt, xs, predict_fn, t, s)

    def _ratio(
        self, ahead: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        behind = self._behind(predict_fn(xs, s), xs, t, s)
        moved = jnp.take_along_axis(behind, xt[:, None], -1) - jnp.take_along_axis(ahead, xs[:, None], -1)
        return jnp.sum(moved) + self.path.log_reference(xs, s) - self.path.log_reference(xt, t)

    def _odds(self, prediction: jax.Array, x: jax.Array, t: Scalar) -> jax.Array:
        """`D_i(z) / p_t(x[i] | z) = exp(f_z) / sum_z' exp(f_z') p_t(x[i] | z')`, finite where `p_t` underflows."""
        lift = jnp.exp(prediction - jax.lax.stop_gradient(jnp.max(prediction, axis=-1, keepdims=True)))
        total = jnp.sum(lift * self.path.likelihood(x, t), axis=-1, keepdims=True)
        return lift / _nonzero(total)

    def _ahead(self, prediction: jax.Array, xt: jax.Array, t: Scalar, s: Scalar) -> jax.Array:
        """`log k(y | x_t)`, `[sites, S]`."""
        odds = self._odds(prediction, xt, t)
        if self.stepper == "leap":
            rates = self._off(_mix(odds, self._flux(xt, t)[0]), xt)
            return jnp.where(
                jnp.asarray(s) < 1, self._leap(rates, xt, t, s), self.posterior(prediction, xt, t)
            )
        now, later = self.path.table(t), self.path.table(s)
        stay, leave, _ = self._kept(now, later, xt)
        return _log(self._split(odds, stay, leave, landing(now, later), xt))

    def _behind(self, prediction: jax.Array, xs: jax.Array, t: Scalar, s: Scalar) -> jax.Array:
        """`log b(x | x_s)`, `[sites, S]`."""
        odds = self._odds(prediction, xs, s)
        now, later = self.path.table(t), self.path.table(s)
        if self.stepper == "leap":
            # rates of the time t, so that both kernels have the same support
            back = odds * self._at(later, xs) / _nonzero(self._at(now, xs))
            rates = self._off(_mix(back, self._flux(xs, t)[1]), xs)
            end = _log(_mix(odds * self._at(later, xs), now))
            return jnp.where(jnp.asarray(s) < 1, self._leap(rates, xs, t, s), end)
        stay, _, enter = self._kept(now, later, xs)
        return _log(self._split(odds, stay, enter, landing(later, now), xs))

    def _kept(self, now: jax.Array, later: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Mass at `x` that stays, leaves and enters, given every endpoint, `[sites, z]`."""
        p, q = self._at(now, x), self._at(later, x)
        return jnp.minimum(p, q), jnp.maximum(p - q, 0.0), jnp.maximum(q - p, 0.0)

    def _split(
        self, odds: jax.Array, stay: jax.Array, move: jax.Array, law: jax.Array, x: jax.Array
    ) -> jax.Array:
        here = x[:, None] == jnp.arange(self.path.num_states)[None, :]
        return here * jnp.sum(odds * stay, axis=-1, keepdims=True) + _mix(odds * move, law)

    def _leap(self, rates: jax.Array, x: jax.Array, t: Scalar, s: Scalar) -> jax.Array:
        """Log-probabilities of one leap of the off-diagonal `rates`."""
        total = jnp.sum(rates, axis=-1, keepdims=True)
        here = x[:, None] == jnp.arange(self.path.num_states)[None, :]
        jump = -jnp.expm1(-(jnp.asarray(s) - t) * total)
        return _log(jnp.where(here, 1.0 - jump, jump * rates / _nonzero(total)))

    def _flux(self, x: jax.Array, t: Scalar) -> tuple[jax.Array, jax.Array]:
        """`F^z(x, y)` out of `x` and `F^z(y, x)` into it, each `[sites, z, y]`."""
        p, dp = self.path.table_with_slope(t)
        px, dx = self._at(p, x)[..., None], self._at(dp, x)[..., None]
        if self.family == "minimal":
            rise, fall = jnp.maximum(dp, 0.0), jnp.maximum(-dp, 0.0)
            total = _nonzero(jnp.sum(rise, axis=-1, keepdims=True))
            return jnp.maximum(-dx, 0.0) * rise / total, fall * jnp.maximum(dx, 0.0) / total
        gain = (dp - dx) / self.path.num_states if self.family == "campbell" else px * dp - p * dx
        return jnp.maximum(gain, 0.0), jnp.maximum(-gain, 0.0)

    def _at(self, table: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(table, x[:, None, None], axis=-1)[..., 0]

    def _off(self, rates: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.where(x[:, None] != jnp.arange(self.path.num_states)[None, :], rates, 0.0)


def _mix(odds: jax.Array, table: jax.Array) -> jax.Array:
    """`sum_z odds[i, z] table[i, z, y]`; weights are made of it, so at the highest precision."""
    return jnp.einsum("iz,izy->iy", odds, table, precision="highest")
