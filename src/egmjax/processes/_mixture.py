"""The jump process of a mixture path, in ancestral steps.

    prediction   f [sites, S]: log of what the other sites say about x_1[i], relative to the prior, so that
                 D_i(z) = P(x_1[i] = z | x_t)  ~  exp(f_i(z)) prior(z) p_{t|1}(x_t[i] | z)
    generator    Q[i, y] = kappa'_i / kappa_i prior(x_t[i]) sum_z D_i(z) p_{t|1}(y | z) / p_{t|1}(x_t[i] | z)
    step         y ~ sum_z D_i(z) p_{s|t,1}(y | x_t[i], z), every site on its own
    increment    sum_i log prior(y) / prior(x_t[i]) - log sum_z D_i(z) p_{s|1}(y | z) / p_{t|1}(x_t[i] | z)

The generator is the time reversal of the noising chain, whose kernel `p_{t|s}` is the backward kernel of the
step. `f = 0` is the reference: weights of exactly one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ..generators import Jump
from ..paths import MixturePath
from ..paths._base import Scalar, check_times, is_one
from ..paths._masked import _log, _nonzero
from ._base import PredictFn
from ._jump import JumpProcess


@frozen_pytree
class MixtureProcess(JumpProcess):
    """The generative jump process of a `MixturePath`.

    `weighting` of the divergence: "rate" is the generalised KL divergence of the rates, whose integral over `t`
    is the negative ELBO up to a constant; "uniform" is the cross-entropy of every site.
    """

    mixture: MixturePath

    @property
    def path(self) -> MixturePath:
        return self.mixture

    def target(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """The column `x_r` of the inverse bridge, `[sites, S]`; one-hot `x_1` at `r=1`.

        `M^{-1} e_{x_r}` with `M[y, z] = p(x_r = y | x_t, x_1 = z)`, in closed form
        `p_{t|1}(x_t | z) (1{z = x_r} - (1 - kappa_r) prior(z)) / (kappa_r p_{t|r}(x_t | x_r))`. Its mean over `x_r`
        given `x_t` is the posterior of `x_1` for every `r`; its variance explodes as `r` approaches `t`.
        """
        check_times(t, r)
        path = self.path
        later = (xr[:, None] == jnp.arange(path.num_states)[None, :]).astype(float)
        if is_one(r):
            return later
        kappa, keep = path.kappa(r)[:, None], path.keep_prob(t, r)
        evidence = keep * (xt == xr) + (1.0 - keep) * jnp.exp(path.log_prior)[xt]
        unmixed = later - (1.0 - kappa) * jnp.exp(path.log_prior)[None, :]
        return path.likelihood(xt, t) * unmixed / (_nonzero(kappa) * evidence[:, None])

    def posterior(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        likelihood = _log(self.path.likelihood(xt, t))
        return jax.nn.log_softmax(prediction + self.path.log_prior[None, :] + likelihood, axis=-1)

    def intensities(self, posterior: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """Infinite as `t` goes to 0, where the noising chain redraws all sites at once; at 0 `kappa'` stands in."""
        away = xt[:, None] != jnp.arange(self.path.num_states)[None, :]
        rate = self.path.loss_rate(t) * jnp.exp(self.path.log_prior)[xt]
        return jnp.where(away, rate[:, None] * self._pulled(posterior, xt, t, t), 0.0)

    def backward_generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Jump:
        """The noising chain, seen backwards: every site redrawn from the prior at `kappa'_i / kappa_i`."""
        return Jump(self.path.loss_rate(t)[:, None] * jnp.exp(self.path.log_prior)[None, :])

    def log_ratios(self, predict_fn: PredictFn, xt: jax.Array, t: Scalar) -> jax.Array:
        """`log sum_z D_i(z) p_{t|1}(y | z) / p_{t|1}(x_t[i] | z)`; one network call."""
        return _log(self._pulled(jnp.exp(self.posterior(predict_fn(xt, t), xt, t)), xt, t, t))

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
        gain = _log(self._pulled(jnp.exp(self.posterior(raw, xt, t)), xt, t, s))
        logits = gain + _log(self.path.likelihood(xt, t, s))
        xs = jax.random.categorical(key, logits, axis=-1).astype(xt.dtype)
        return xs, self._moved(xt, xs, gain)

    def increment(
        self, key: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        posterior = jnp.exp(self.posterior(predict_fn(xt, t), xt, t))
        return self._moved(xt, xs, _log(self._pulled(posterior, xt, t, s)))

    def _pulled(self, posterior: jax.Array, xt: jax.Array, t: Scalar, s: Scalar) -> jax.Array:
        """`sum_z D(z) p_{s|1}(y | z) / p_{t|1}(x_t | z)` for every `y`, `[sites, S]`."""
        ratio = posterior / _nonzero(self.path.likelihood(xt, t))
        kappa = self.path.kappa(s)[:, None]
        total = jnp.sum(ratio, axis=-1, keepdims=True)
        return kappa * ratio + (1.0 - kappa) * jnp.exp(self.path.log_prior)[None, :] * total

    def _moved(self, xt: jax.Array, xs: jax.Array, gain: jax.Array) -> jax.Array:
        log_prior = self.path.log_prior
        chosen = jnp.take_along_axis(gain, xs[:, None], axis=-1)[:, 0]
        return jnp.sum(log_prior[xs] - log_prior[xt] - chosen)
