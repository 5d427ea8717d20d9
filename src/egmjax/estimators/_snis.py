"""The self-normalised importance-sampling estimate of the marginal generator.

    x_r^k ~ q(. | x_t),    w_k = exp(psi(x_r^k, r) + log_ratio_k),    k = 1..K
    F_hat(x_t) = sum_k w_k target(x_t, x_r^k, t, r) / sum_k w_k,      psi_hat(x_t, t) = log (1/K) sum_k w_k

(Woo et al., Energy-based generator matching; `r = 1` with `psi` from the energy is the plain estimator, `r < 1` with
a learned `psi` the bootstrapped one.) Proposals stream through in chunks that carry a running maximum and
running sums, so memory does not depend on `K`. Bias O(1 / ESS), consistent as `K` grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from .._precision import highest
from ..paths import Path
from ..paths._base import Scalar, check_times, is_one
from ..processes import Process
from ..proposals import Proposal
from ..sharding import constrain

PsiFn = Callable[[Any, Scalar], jax.Array]  # (x, r) -> log-density relative to the path's reference
MAX_CHUNK = 128  # proposals at a time, as long as they are
CHUNK_NUMBERS = 2**15  # at most so many numbers


class SNISInfo(NamedTuple):
    """Diagnostics of the weights: `ess` in `0..K`, `largest_weight` (normalised), `num_nonfinite` weights.

    A proposal whose energy is not finite gets weight zero and is counted; one with `log_ratio = -inf`, which the
    path cannot have led to `x_t` from, has weight zero and is not. `ess = 0` means that no proposal had
    weight; the estimate is then all zeros and must not be trained on.
    """

    ess: jax.Array
    largest_weight: jax.Array
    num_nonfinite: jax.Array


class SNISEstimate(NamedTuple):
    """`target` (what `process.target` returns, averaged), `log_normalizer` = psi_hat(x_t, t), and `info`."""

    target: Any
    log_normalizer: jax.Array
    info: SNISInfo


def psi_from_energy(energy_fn: Callable[[Any], jax.Array], path: Path) -> PsiFn:
    """`psi(x, 1) = -E(x) - log_reference(x, 1)`; defined at `r = 1` only. Products at the highest precision."""

    @highest
    def psi(x: Any, r: Scalar = 1.0) -> jax.Array:
        return -energy_fn(x) - path.log_reference(x, 1.0)

    return psi


def snis(
    key: jax.Array,
    xt: Any,
    t: Scalar,
    r: Scalar = 1.0,
    *,
    process: Process,
    proposal: Proposal,
    psi_fn: PsiFn,
    num_proposals: int,
    chunk_size: int | None = None,
    site_logits_fn: Callable[[Any], jax.Array] | None = None,
    mesh: Mesh | None = None,
) -> SNISEstimate:
    """Estimates the marginal generator target at one state `xt`; batch with `jax.vmap`.

    `site_logits_fn(x1) -> [sites, S]`, log-probabilities of each site given the others (minus
    `Target.site_energies`), replaces one-hot symbols by these laws: the same mean, less variance; `r = 1` only.
    With a `mesh` chunks are dealt to the devices of its `proposals` axis; where they are fewer, some devices idle.

    Cost: `num_proposals` draws and evaluations of `psi_fn`; memory of `chunk_size` of them, `None` being 128, or as
    many as make `2^15` numbers where states have more than 256; which draws are made depends on it. Raises `ValueError`
    for `num_proposals < 1`, `chunk_size < 1`, `t >= r`, `r < 1` on a path that is not Markov, for a
    process that cannot bootstrap, or with `site_logits_fn`.
    """
    if num_proposals < 1:
        raise ValueError(f"num_proposals: at least 1, got {num_proposals}")
    if chunk_size is None:
        numbers = sum(leaf.size for leaf in jax.tree.leaves(xt))
        chunk_size = min(MAX_CHUNK, max(1, CHUNK_NUMBERS // max(1, numbers)))
    if chunk_size < 1:
        raise ValueError(f"chunk_size: at least 1, got {chunk_size}")
    check_times(t, r)
    if not process.can_bootstrap and not is_one(r):
        raise ValueError("r: the target of this process exists at r=1 only")
    if site_logits_fn is not None and not is_one(r):
        raise ValueError("site_logits_fn: one-site conditionals are known at r=1 only")
    size = min(chunk_size, num_proposals)

    def draw(key_c: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        xr, log_ratio = proposal.propose(key_c, xt, t, r, size)
        with jax.default_matmul_precision("highest"):
            log_w = jax.vmap(lambda x: psi_fn(x, r))(xr) + log_ratio
        return xr, log_w, ~jnp.isfinite(log_w) & (log_ratio != -jnp.inf)

    def average(xr: Any, weights: jax.Array) -> Any:
        with jax.default_matmul_precision("highest"):
            if site_logits_fn is None:
                return process.weighted_target(weights, xt, xr, t, r)
            laws = jax.vmap(lambda x: process.conditional_target(xt, x, t, site_logits_fn(x)))(xr)
            return jax.tree.map(lambda f: jnp.tensordot(weights, f, axes=1), laws)

    return stream(key, draw, average, num_proposals, size, mesh)


def stream(
    key: jax.Array,
    draw: Callable[[jax.Array], tuple[Any, jax.Array, jax.Array]],
    average: Callable[[Any, jax.Array], Any],
    num_proposals: int,
    size: int,
    mesh: Mesh | None = None,
) -> SNISEstimate:
    """The estimate from chunks of `size` proposals, whatever form they have.

    `draw(key) -> (xr, log_w, wrong)`: log-weights in an array of `size` entries, and which of them count as non-finite;
    `average(xr, weights)`: the weighted sum of their targets. The last chunk may be padded. A chunk draws the same
    proposals on whichever device of the `proposals` axis it is made; their sums are exchanged once, at the end.
    """
    num_chunks = math.ceil(num_proposals / size)
    shapes = jax.eval_shape(draw, key)
    sum_shapes = jax.eval_shape(average, *shapes[:2])
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), sum_shapes)
    dtype = shapes[1].dtype

    def chunk(carry: tuple, index: jax.Array) -> tuple:
        peak, total, squares, largest, sums, bad = carry
        xr, log_w, wrong = draw(jax.random.fold_in(key, index))
        real = (index * size + jnp.arange(size) < num_proposals).reshape(log_w.shape)
        finite = jnp.isfinite(log_w)
        bad = bad + jnp.sum(real & wrong, dtype=jnp.int32)
        log_w = jnp.where(real & finite, log_w, -jnp.inf)
        # the weight of such a proposal is zero, but zero times nan or infinity is not
        xr = jax.tree.map(lambda x: _clear(x, finite), xr)
        new_peak = jnp.maximum(peak, jnp.max(log_w))
        shift = jnp.where(jnp.isfinite(new_peak), new_peak, 0.0)
        w, decay = jnp.exp(log_w - shift), jnp.exp(peak - shift)
        sums = jax.tree.map(lambda s, a: s * decay + a, sums, average(xr, w))
        carry = (
            new_peak,
            total * decay + jnp.sum(w),
            squares * decay**2 + jnp.sum(w**2),
            jnp.maximum(largest * decay, jnp.max(w)),
            sums,
            bad,
        )
        return carry, None

    zero = jnp.zeros((), dtype)
    start = (jnp.full((), -jnp.inf, dtype), zero, zero, zero, zeros, jnp.zeros((), jnp.int32))
    num_groups = 1 if mesh is None else mesh.shape["proposals"]
    if num_groups == 1:
        carry, _ = jax.lax.scan(chunk, start, jnp.arange(num_chunks))
    else:
        each = -(-num_chunks // num_groups)
        indices = jnp.arange(num_groups * each).reshape(num_groups, each)
        indices = constrain(indices, mesh, PartitionSpec("proposals"))
        groups = jax.vmap(lambda index: jax.lax.scan(chunk, start, index)[0])(indices)
        carry = _combine(constrain(groups, mesh, PartitionSpec("proposals")))
    peak, total, squares, largest, sums, bad = carry
    safe = jnp.where(total > 0, total, 1.0)
    info = SNISInfo(
        ess=jnp.where(total > 0, total**2 / jnp.where(total > 0, squares, 1.0), 0.0),
        largest_weight=largest / safe,
        num_nonfinite=bad,
    )
    log_normalizer = jnp.where(total > 0, peak + jnp.log(safe) - math.log(num_proposals), -jnp.inf)
    return SNISEstimate(jax.tree.map(lambda s: s / safe, sums), log_normalizer, info)


def _combine(groups: tuple) -> tuple:
    """What one scan over the chunks of all groups, stacked along the first axis, would have carried."""
    peak, total, squares, largest, sums, bad = groups
    top = jnp.max(peak)
    scale = jnp.exp(peak - jnp.where(jnp.isfinite(top), top, 0.0))
    with jax.default_matmul_precision("highest"):
        sums = jax.tree.map(lambda s: jnp.tensordot(scale, s, axes=1), sums)
    return (
        top,
        jnp.sum(total * scale),
        jnp.sum(squares * scale**2),
        jnp.max(largest * scale),
        sums,
        jnp.sum(bad),
    )


def _clear(x: jax.Array, finite: jax.Array) -> jax.Array:
    """Zero where the weight is: zero times nan or infinity is not zero."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return jnp.where(finite.reshape(-1, *(1,) * (x.ndim - 1)), x, 0.0)
