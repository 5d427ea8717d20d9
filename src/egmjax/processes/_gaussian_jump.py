"""Jumps along a Gaussian path: a state waits where it is, then one of its coordinates lands elsewhere.

    prediction   f [*shape, bins], see `BinnedHead`; D_i(b | x_t) its posterior, z_b the centre of bin b
    generator    Q_i(dy) = sum_b D_i(b | x_t) rate(x_t[i] | z_b) landing(dy | z_b)
    step         k = prod_i sum_b D_i(b | x_t) K_b(x_s[i] | x_t[i])
    backward     b = prod_i sum_b D_i(b | x_s) Kbar_b(x_t[i] | x_s[i])

`K_b` is the maximal coupling of `p_t(. | z_b)` and `p_s(. | z_b)` and `Kbar_b` its time reversal, so one endpoint's
marginals are carried along exactly by a step of any length. Both kernels are evaluated as sums over bins, the atom at
`x_t` included. Since the `z_b` are fixed, each has mass wherever the other one has, and `E[w] = Z` whatever the network
says. With an exact one in one dimension the ESS tends to one as bins get finer. The last step, to `t=1`, draws a bin
and the reference's belief within it; backwards it is `p_{t|1}`. It is best taken from where `sigma` is about a bin
wide (`simulators.scale_spacing`): later than that, centres do not stand for bins.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree
from ..generators import RealJump
from ..paths._base import Scalar, as_time
from ..paths._coupling import MaximalCoupling, conditional_coupling, log_less
from ..paths._jump_law import REACH, jump_coordinates, jump_rate, landing_density, landing_roots
from ._base import PredictFn
from ._gaussian import GaussianProcess
from ._heads import BinnedHead, Head, take

NODES = 32  # of the quadrature of one landing law


@frozen_pytree
class GaussianJumpProcess(GaussianProcess):
    """The jump process of a `GaussianPath` whose `sigma` decreases, with a `BinnedHead`.

    A step costs two network calls and `dim * bins` couplings. Raises `ValueError` for another head.
    """

    head: BinnedHead = dataclasses.field(default=BinnedHead(), kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.head, Head) and not isinstance(self.head, BinnedHead):
            raise ValueError(f"head: jumps need a BinnedHead, got {type(self.head).__name__}")

    def generator(self, prediction: jax.Array, xt: jax.Array, t: Scalar) -> RealJump:
        """Landing laws at `32 bins` nodes, by Gauss' and Legendre's rule for each bin."""
        atoms = self.head.atoms(self.path)
        weights = jnp.exp(self.head.posterior(self.path, prediction, xt, t))
        alpha, sigma = self.path.coefficients(t)
        points, masses = (jnp.asarray(a, dtype=float) for a in np.polynomial.legendre.leggauss(NODES))

        def law(atom: jax.Array) -> tuple[jax.Array, jax.Array]:
            """Intensities and locations `[nodes, *shape]` towards one endpoint."""
            e, r, speed = jump_coordinates(self.path, xt, atom, t)
            low, high = landing_roots(r)
            low, high = jnp.maximum(low, -REACH), jnp.minimum(high, REACH)
            half = 0.5 * (high - low)
            nodes = jax.vmap(lambda u: low + half * (1.0 + u))(points)
            density = jax.vmap(lambda n, m: m * half * landing_density(n, r))(nodes, masses)
            rate = speed * jump_rate(e, r)
            return jax.vmap(lambda d: rate * d)(density), jax.vmap(lambda n: alpha * atom + sigma * n)(nodes)

        intensities, locations = jax.vmap(law, in_axes=-1, out_axes=-1)(atoms)
        return RealJump(*(_nodes_last(a) for a in (weights[None] * intensities, locations)))

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

        def move() -> jax.Array:
            return self._move(key, self.head.posterior(self.path, raw, xt, t), xt, t, _before_one(t, s))

        xs = jax.lax.cond(as_time(s) < 1, move, lambda: self.head.sample_endpoint(key, self.path, raw, xt, t))
        return xs, self._increment(xt, xs, raw, predict_fn, t, s)

    def backward(
        self, key: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        inner = _before_one(t, s)

        def move() -> jax.Array:
            log_posterior = self.head.posterior(self.path, predict_fn(xs, inner), xs, inner)
            return self._move(key, log_posterior, xs, t, inner, is_backward=True)

        return jax.lax.cond(as_time(s) < 1, move, lambda: self.path.sample(key, xs, t))

    def increment(
        self, key: jax.Array, xt: jax.Array, xs: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        return self._increment(xt, xs, predict_fn(xt, t), predict_fn, t, s)

    def _move(
        self,
        key: jax.Array,
        log_posterior: jax.Array,
        x: jax.Array,
        t: Scalar,
        s: Scalar,
        *,
        is_backward: bool = False,
    ) -> jax.Array:
        """A bin of every coordinate, then the coupling of that bin or its reversal."""
        key_bin, key_stay, key_land = jax.random.split(key, 3)
        chosen = jax.random.categorical(key_bin, log_posterior, axis=-1)
        coupling = conditional_coupling(self.path, take(self.head.atoms(self.path), chosen), t, s)
        stay = coupling.backward_stay_prob(x) if is_backward else coupling.stay_prob(x)
        land = coupling.backward_landing_ppf if is_backward else coupling.landing_ppf
        y = land(jax.random.uniform(key_land, x.shape, dtype=x.dtype)).astype(x.dtype)
        return jnp.where(jax.random.uniform(key_stay, x.shape, dtype=x.dtype) < stay, x, y)

    def _increment(
        self, xt: jax.Array, xs: jax.Array, raw: jax.Array, predict_fn: PredictFn, t: Scalar, s: Scalar
    ) -> jax.Array:
        inner = _before_one(t, s)

        def between() -> jax.Array:
            coupling = conditional_coupling(self.path, self.head.atoms(self.path), t, inner)
            ahead = self.head.posterior(self.path, raw, xt, t)
            behind = self.head.posterior(self.path, predict_fn(xs, inner), xs, inner)
            log_ratio = jnp.sum(_log_kernel_ratio(coupling, ahead, behind, xt, xs))
            return log_ratio + self.path.log_reference(xs, inner) - self.path.log_reference(xt, t)

        def last() -> jax.Array:
            # the noising kernel undoes the belief, by Bayes' rule; what is left is the density relative to it
            relative = self.head.log_density(self.path, raw, xt, t)
            return -jnp.sum(take(relative, self.head.bin_of(self.path, xs)))

        return jax.lax.cond(as_time(s) < 1, between, last)


def _log_kernel_ratio(
    coupling: MaximalCoupling, ahead: jax.Array, behind: jax.Array, xt: jax.Array, xs: jax.Array
) -> jax.Array:
    """`log b(x_t | x_s) - log k(x_s | x_t)` of every coordinate; posteriors and couplings are `[*shape, bins]`."""
    has_stayed = xt == xs
    xt, xs = (jnp.broadcast_to(x[..., None], ahead.shape) for x in (xt, xs))
    earlier, later = coupling.log_ratio(xt), coupling.log_ratio(xs)
    total = jax.nn.logsumexp
    stay = total(behind + jnp.minimum(-later, 0.0), axis=-1) - total(
        ahead + jnp.minimum(earlier, 0.0), axis=-1
    )
    forward = log_less(earlier) + coupling.landing_log_prob(xs)
    backward = log_less(-later) + coupling.backward_landing_log_prob(xt)
    jump = total(behind + backward, axis=-1) - total(ahead + forward, axis=-1)
    return jnp.where(has_stayed, stay, jump)


def _before_one(t: Scalar, s: Scalar) -> jax.Array:
    """`s`, or a time between `t` and 1 in the branch that is not taken where `s` is 1."""
    t, s = as_time(t), as_time(s)
    return jnp.where(s < 1, s, 0.5 * (t + 1.0))


def _nodes_last(a: jax.Array) -> jax.Array:
    """`[nodes, *shape, bins]` as `[*shape, nodes * bins]`."""
    moved = jnp.moveaxis(a, 0, -1)
    return moved.reshape(*moved.shape[:-2], -1)
