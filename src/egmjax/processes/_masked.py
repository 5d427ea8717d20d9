"""The jump process of a masked path: masks are revealed one by one.

    prediction   logits [sites, S] of the denoiser D_i(y) = P(x_1[i] = y | x_t)
    generator    Q[i, y] = 1{x_t[i] = mask} kappa'_i / (1 - kappa_i) D_i(y)
    step         a mask is revealed with probability (kappa_s - kappa_t) / (1 - kappa_t), exactly, to y ~ D_i
    increment    - sum over newly revealed sites of log(S D_i(x_s[i]))

All factors of the clock cancel between the noising kernel, the step and the reference: weights hold for any
grid, and a site by site roll-out needs no times at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._pytree import frozen_pytree
from ..generators import Jump
from ..losses import cross_entropy
from ..paths import MaskedPath, derivative
from ..paths._base import Scalar, check_times, is_one
from ..paths._masked import _log, _nonzero
from ._base import PredictFn
from ._jump import JumpProcess

REVEALED_TOGETHER = 16  # evaluations of psi, for each state of a batch; at least those of one site


@frozen_pytree
class MaskedProcess(JumpProcess):
    """The generative jump process of a `MaskedPath`.

    `weighting` of the divergence: "rate" multiplies each site's cross-entropy by its hazard, which is the
    generalised KL divergence of the rates, integrates over `t` to the negative ELBO, and is what orders
    (`paths.Ordered`) need; "uniform" counts every masked site once.
    """

    mixture: MaskedPath

    @property
    def path(self) -> MaskedPath:
        return self.mixture

    @property
    def follows_couplings(self) -> bool:
        return True

    def target(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`(1-kappa_t)/(kappa_r-kappa_t) 1{x_r} - (1-kappa_r)/(kappa_r-kappa_t) 1{x_t}`, `[sites, S]`.

        One-hot `x_1` at `r=1`. For `r < 1` single targets leave the simplex; their posterior mean is the
        denoiser for every `r`, with a variance that grows as `r` approaches `t`. Sites whose clock stands
        still between `t` and `r` carry no information and get zeros.
        """
        check_times(t, r)
        symbols = jnp.arange(self.path.num_states)[None, :]
        later = (xr[:, None] == symbols).astype(float)
        if is_one(r):
            return later
        now = (xt[:, None] == symbols).astype(float)
        kappa_t, kappa_r = self.path.kappa(t)[:, None], self.path.kappa(r)[:, None]
        gap = kappa_r - kappa_t
        moved = ((1.0 - kappa_t) * later - (1.0 - kappa_r) * now) / _nonzero(gap)
        return jnp.where(gap > 0, moved, now)

    def conditional_target(
        self, xt: jax.Array, x1: jax.Array, t: Scalar, site_logits: jax.Array
    ) -> jax.Array:
        """`softmax(site_logits)` where masked: a mask says nothing about its symbol."""
        return jnp.where((xt == self.path.mask)[:, None], jax.nn.softmax(site_logits), self.target(xt, x1, t))

    def target_from_psi(
        self, xt: jax.Array, t: Scalar, psi_fn: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        """`P(x_1[i] = y | x_t) ~ exp(psi(x_t[i <- y]))`; costs `sites * S` evaluations of `psi_fn`, 16 at a time."""
        symbols = jnp.arange(self.path.num_states, dtype=xt.dtype)

        def revealed(site: jax.Array) -> jax.Array:
            return jax.vmap(lambda symbol: psi_fn(xt.at[site].set(symbol)))(symbols)

        # for a batch of states all sites at once leave the cache
        together = max(1, REVEALED_TOGETHER // self.path.num_states)
        psi = jax.lax.map(revealed, jnp.arange(self.path.sites), batch_size=together)
        return jnp.where((xt == self.path.mask)[:, None], jax.nn.softmax(psi), self.target(xt, xt, t))

    def sample_endpoint(self, key: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """Every mask drawn from its `D_i`."""
        return jnp.where(xt == self.path.mask, sample_symbols(key, prediction).astype(xt.dtype), xt)

    def endpoint_log_prob(self, x1: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        known = jnp.where(x1 == xt, 0.0, -jnp.inf)
        return jnp.sum(jnp.where(xt == self.path.mask, log_symbol_prob(prediction, x1), known))

    def divergence(self, target: jax.Array, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        entropy = cross_entropy(target, prediction)
        weight = self.path.hazard(t) if self.weighting == "rate" else 1.0
        return jnp.sum(jnp.where(xt == self.path.mask, weight * entropy, 0.0))

    def posterior(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        """The softmax where masked; a symbol that shows is certain."""
        known = _log((xt[:, None] == jnp.arange(self.path.num_states)[None, :]).astype(float))
        return jnp.where((xt == self.path.mask)[:, None], jax.nn.log_softmax(prediction, axis=-1), known)

    def intensities(self, posterior: jax.Array, xt: jax.Array, t: Scalar) -> jax.Array:
        hazard = jnp.where(xt == self.path.mask, self.path.hazard(t), 0.0)
        return hazard[:, None] * posterior

    def backward_generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> Jump:
        """Symbols are masked at `kappa'_i / kappa_i`; one column more than `generator`, for the mask."""
        path = self.path
        kappa, slope = derivative(path.kappa, t)
        loss = jnp.where(xt == path.mask, 0.0, slope / _nonzero(kappa))
        return Jump(loss[:, None] * (jnp.arange(path.num_states + 1) == path.mask)[None, :])

    def log_ratios(self, predict_fn: PredictFn, xt: jax.Array, t: Scalar) -> jax.Array:
        """From the odds `kappa_i D_i(y)` of a symbol to `1 - kappa_i` of the mask, the site being hidden.

        `[sites, S + 1]`; `sites` network calls.
        """
        path, sites = self.path, jnp.arange(self.path.sites)
        hidden = jnp.where(sites[:, None] == sites[None, :], path.mask, xt[None, :])
        logits = jax.vmap(lambda x, i: predict_fn(x, t)[i])(hidden, sites)
        kappa = path.kappa(t)[:, None]
        symbols = jax.nn.log_softmax(logits, axis=-1) + _log(kappa)
        log_probs = jnp.concatenate([symbols, _log(1.0 - kappa)], axis=-1)
        return log_probs - jnp.take_along_axis(log_probs, xt[:, None], axis=-1)

    def step(
        self,
        key: jax.Array,
        xt: jax.Array,
        predict_fn: PredictFn,
        t: Scalar,
        s: Scalar,
        prediction: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        logits = predict_fn(xt, t) if prediction is None else prediction
        key_reveal, key_symbol = jax.random.split(key)
        reveal = jax.random.uniform(key_reveal, xt.shape) < self.path.reveal_prob(t, s)
        symbols = sample_symbols(key_symbol, logits).astype(xt.dtype)
        xs = jnp.where((xt == self.path.mask) & reveal, symbols, xt)
        return xs, self._revealed(xt, xs, logits)

    def increment(
        self, key: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        return self._revealed(xt, xs, predict_fn(xt, t))

    def _revealed(self, xt: jax.Array, xs: jax.Array, logits: jax.Array) -> jax.Array:
        new = (xt == self.path.mask) & (xs != self.path.mask)
        return -jnp.sum(jnp.where(new, log_symbol_prob(logits, xs) + math.log(self.path.num_states), 0.0))


def sample_symbols(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Symbols with probabilities `softmax(logits)` along the last axis; two-valued ones take one word of bits each."""
    if logits.shape[-1] != 2:
        return jax.random.categorical(key, logits, axis=-1)
    bits = jax.random.bits(key, logits.shape[:-1], jnp.uint32) >> 9
    # midpoints: neither symbol is drawn where its probability is below their resolution
    u = (bits.astype(float) + 0.5) * 2.0**-23
    return (u > jax.nn.sigmoid(logits[..., 0] - logits[..., 1])).astype(jnp.int32)


def log_symbol_prob(logits: jax.Array, x: jax.Array) -> jax.Array:
    """`log softmax(logits)[..., x]` along the last axis; the mask reads as symbol 0 and is to be discarded."""
    num_states = logits.shape[-1]
    if num_states == 2:  # reductions over two entries do not vectorise
        gap = logits[..., 1] - logits[..., 0]
        # log(1 + e), not log1p: rounding is that of the probability itself, at a fraction of the time
        return jnp.minimum(jnp.where(x == 1, gap, -gap), 0.0) - jnp.log(1.0 + jnp.exp(jnp.minimum(gap, -gap)))
    symbols = jnp.arange(num_states).reshape((1,) * x.ndim + (-1,))
    chosen = jnp.where((x % num_states)[..., None] == symbols, jax.nn.log_softmax(logits, axis=-1), 0.0)
    return jnp.sum(chosen, axis=-1)
