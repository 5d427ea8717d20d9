"""The masked mixture path: each site keeps its symbol with probability `kappa_i(t)`, else shows the mask.

    p_{t|r}:  data stays data with probability kappa_t / kappa_r; a mask stays a mask
    reference (flat): log_reference(x, t) = sum_masked log(S (1 - kappa)) + sum_data log kappa

so `psi(x)`, the log-density relative to it, is the log-mean of `exp(-E)` over uniform completions of the
masks and does not depend on `t`.

Evidence is a clock that has run out: sites whose symbols are given have `kappa_i = 1` at every `t`, and the prior
shows them. All else follows, so any process, sampler and weight on such a path is conditional on them.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree, static
from .._random import random_words
from ..states import Categorical
from ._base import Path, Scalar, as_time, check_times, is_one
from ._schedules import Linear, MixtureSchedule, derivative


@frozen_pytree
class MaskedPath(Path):
    """`sites` symbols of `num_states` values, the mask being `num_states`; `kappa(t)` is a scalar or `[sites]`.

    `evidence`: int `[sites]`, a symbol where it is given and the mask where it is not; `None` gives nothing. A leaf,
    so it may be swept under `vmap`; see `processes.condition`. Raises `ValueError` for a concrete `evidence` of another
    shape or with other values.
    """

    schedule: MixtureSchedule = Linear()
    sites: int = static(default=1)
    num_states: int = static(default=2)
    evidence: jax.Array | None = None

    def __post_init__(self) -> None:
        if isinstance(self.evidence, (np.ndarray, jax.Array)) and not isinstance(
            self.evidence, jax.core.Tracer
        ):
            _check_evidence(np.asarray(self.evidence), self.sites, self.num_states)

    @property
    def space(self) -> Categorical:
        return Categorical(self.sites, self.num_states)

    @property
    def mask(self) -> int:
        """The symbol that stands for a site not yet generated."""
        return self.num_states

    def kappa(self, t: Scalar) -> jax.Array:
        """`kappa_i(t)`, `[sites]`; 1 where evidence is given."""
        kappa = jnp.broadcast_to(self.schedule.kappa(as_time(t)), (self.sites,))
        return kappa if self.evidence is None else jnp.where(self.evidence == self.mask, kappa, 1.0)

    def hazard(self, t: Scalar) -> jax.Array:
        """The rate `kappa'_i / (1 - kappa_i)` at which a masked site is revealed, `[sites]`; 0 once `kappa = 1`."""
        kappa, slope = derivative(self.kappa, t)
        return slope / _nonzero(1.0 - kappa) * (kappa < 1)

    def reveal_prob(self, t: Scalar, s: Scalar) -> jax.Array:
        """The probability `(kappa_s - kappa_t) / (1 - kappa_t)` that a mask at `t` is revealed by `s`, `[sites]`."""
        now, later = self.kappa(t), self.kappa(s)
        return jnp.where(now < 1, (later - now) / _nonzero(1.0 - now), 1.0)

    def sample_prior(self, key: jax.Array) -> jax.Array:
        return self._start

    def prior_log_prob(self, x0: jax.Array) -> jax.Array:
        return jnp.where(jnp.all(x0 == self._start), 0.0, -jnp.inf)

    def sample(self, key: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        return jnp.where(jax.random.uniform(key, (self.sites,)) < self._keep_prob(t, r), xr, self.mask)

    def interpolate(self, key: jax.Array, x0: jax.Array, x1: jax.Array, t: Scalar) -> jax.Array:
        """Each site of `x_1` with probability `kappa_i(t)`, else that of `x_0`: `sample`, as there is one `x_0`."""
        return jnp.where(jax.random.uniform(key, (self.sites,)) < self.kappa(t), x1, x0)

    def log_prob(self, xt: jax.Array, xr: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        keep = self._keep_prob(t, r)
        was_masked, is_masked = xr == self.mask, xt == self.mask
        from_data = jnp.where(is_masked, _log(1.0 - keep), jnp.where(xt == xr, _log(keep), -jnp.inf))
        return jnp.sum(jnp.where(was_masked, jnp.where(is_masked, 0.0, -jnp.inf), from_data))

    def log_reference(self, x: jax.Array, t: Scalar) -> jax.Array:
        if is_one(t):  # flat: no mask is left, and kappa is one
            return jnp.zeros(())
        kappa = self.kappa(t)
        return jnp.sum(jnp.where(x == self.mask, math.log(self.num_states) + _log(1.0 - kappa), _log(kappa)))

    def propose(self, key: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        if is_one(r):
            return self.propose_many(key, xt, t, r, 1)[0]
        key_symbol, key_reveal = jax.random.split(key)
        revealed = jax.random.uniform(key_reveal, (self.sites,)) < self.reveal_prob(t, r) / _nonzero(
            self.reveal_prob(t, 1.0)
        )
        symbols = random_symbols(key_symbol, 1, self.sites, self.num_states)[0]
        return jnp.where((xt == self.mask) & revealed, symbols, xt)

    def propose_many(self, key: jax.Array, xt: jax.Array, t: Scalar, r: Scalar, num: int) -> jax.Array:
        if not is_one(r):
            return super().propose_many(key, xt, t, r, num)
        check_times(t, r)
        return jnp.where(
            xt[None] == self.mask, random_symbols(key, num, self.sites, self.num_states), xt[None]
        )

    def propose_log_prob(self, xr: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        check_times(t, r)
        reveal = self.reveal_prob(t, r)
        was_masked, is_masked = xt == self.mask, xr == self.mask
        fresh = jnp.where(is_masked, _log(1.0 - reveal), _log(reveal) - math.log(self.num_states))
        return jnp.sum(jnp.where(was_masked, fresh, jnp.where(xr == xt, 0.0, -jnp.inf)))

    def reflect(self, xr: jax.Array, xt: jax.Array, t: Scalar, r: Scalar = 1.0) -> jax.Array:
        """`S - 1 - x_r` at the sites revealed since `t`, whose symbols are uniform."""
        check_times(t, r)
        revealed = (xt == self.mask) & (xr != self.mask)
        return jnp.where(revealed, self.num_states - 1 - xr, xr)

    def as_data(self, x: jax.Array) -> jax.Array:
        return jnp.where(x == self.mask, 0, x)

    def bridge(
        self, key: jax.Array, xt: jax.Array, xr: jax.Array, t: Scalar, s: Scalar, r: Scalar = 1.0
    ) -> jax.Array:
        check_times(t, s)
        check_times(s, r)
        now, then, later = self.kappa(t), self.kappa(s), self.kappa(r)
        prob = jnp.where(now < later, (then - now) / _nonzero(later - now), 1.0)
        revealed = jax.random.uniform(key, (self.sites,)) < prob
        return jnp.where((xt == self.mask) & revealed, xr, xt)

    def hitting_times(self, key: jax.Array, t: Scalar = 0.0) -> jax.Array:
        """Times `[sites]` in `[t, 1)` at which sites masked at `t` are revealed.

        `kappa_i^{-1}(kappa_i(t) + u_i (1 - kappa_i(t)))`, `u_i` uniform.
        They do not depend on the symbols, which is what makes first-hitting simulation exact. `t` itself for
        sites given as evidence.
        """
        kappa = self.kappa(t)
        u = jax.random.uniform(key, (self.sites,))
        times = jnp.broadcast_to(self.schedule.inverse(kappa + u * (1.0 - kappa)), (self.sites,))
        return times if self.evidence is None else jnp.where(self._start == self.mask, times, t)

    @property
    def _start(self) -> jax.Array:
        """The one state at `t=0`."""
        if self.evidence is None:
            return jnp.full((self.sites,), self.mask, dtype=jnp.int32)
        return jnp.asarray(self.evidence, dtype=jnp.int32)

    def _keep_prob(self, t: Scalar, r: Scalar) -> jax.Array:
        if is_one(r):
            return self.kappa(t)
        # a site whose clock has not started at r is a mask there; any value serves
        return self.kappa(t) / _nonzero(self.kappa(r))


def _check_evidence(evidence: np.ndarray, sites: int, num_states: int) -> None:
    if not np.issubdtype(evidence.dtype, np.integer) or evidence.shape[-1:] != (sites,):
        raise ValueError(f"evidence: expected integers [{sites}], got {evidence.dtype}{list(evidence.shape)}")
    if evidence.size and not 0 <= evidence.min() <= evidence.max() <= num_states:
        raise ValueError(
            f"evidence: expected symbols 0..{num_states - 1} and the mask {num_states}, got {np.unique(evidence)}"
        )


def random_symbols(key: jax.Array, num: int, sites: int, num_states: int) -> jax.Array:
    """`num` states of uniform symbols, int32 `[num, sites]`.

    A power of two costs its logarithm in random bits for each symbol: a spin takes one. A word holds the symbols
    of one site in consecutive states, so that unpacking runs along the sites.
    """
    width = num_states.bit_length() - 1
    if num_states != 1 << width:
        return jax.random.randint(key, (num, sites), 0, num_states, dtype=jnp.int32)
    per_word = 32 // width
    words = random_words(key, (-(-num // per_word), 1, sites))
    shifts = (jnp.arange(per_word, dtype=jnp.uint32) * width)[None, :, None]
    symbols = ((words >> shifts) & jnp.uint32(num_states - 1)).astype(jnp.int32)
    return symbols.reshape(-1, sites)[:num]


def _nonzero(x: jax.Array) -> jax.Array:
    return jnp.where(x == 0, 1.0, x)


def _log(x: jax.Array) -> jax.Array:
    """`log x` with `-inf`, and no division warning in gradients, at zero."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), -jnp.inf)
