"""Proposals that know no density of what they draw, but know the ratio of their whole path's.

    extended target     p(x) b(path | x)          b: the backward chain from x, e.g. masking in random order
    extended proposal   q(path, x)                the roll-out that ends in x
    log_ratio           log b(path | x) - log q(path, x),        log w = log p(x) + log_ratio

A move of `(path, x)` by Metropolis or i-SIR with these weights leaves the extended target as it is. Of the state moved
from nothing but `x` is kept: its path is drawn anew from `b(. | x)` first, an exact Gibbs step of the extended target,
so the two together leave `p` as it is (Andrieu and Roberts, 2009, with the auxiliary variables refreshed). Both halves
are needed: with a path that is always the same one, the moves have another law. Moreover

    E_b[log_ratio] = -log q(x) + KL(b(. | x), q(. | x)),

so that its mean over states is the sampler's loss (forward KL on paths, the negative ELBO), as `-log q` is a flow's;
and `E[w] = Z` at fresh draws, `E[1 / w] = 1 / Z` at the model's own. A density is the case of a path that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._precision import highest
from ..paths import Path
from ..processes import PredictFn
from ..proposals import Density
from ..simulators import Sampler


class PathProposal(NamedTuple):
    """`sample(key) -> (x, log_ratio)`, and `log_ratio(key, x) -> scalar` along a backward path drawn with `key`."""

    sample: Callable[[jax.Array], tuple[Any, jax.Array]]
    log_ratio: Callable[[jax.Array, Any], jax.Array]


def rollout_proposal(sampler: Sampler, path: Path, predict_fn: PredictFn) -> PathProposal:
    """Roll-outs of `sampler` from the prior of `path`, on any state space.

    `first_hitting_sampler` of a masked process: symbols revealed in random order, or in a fixed one (`paths.Ordered`),
    whose `log_ratio` is minus the exact log-probability of an autoregressive model, whatever the key. Cost: a
    roll-out a draw; for a given state the backward chain's network calls, for masks all contexts at once. These are two
    programs for one law, so both have products at the highest precision; the network's layers are to be float32.
    """

    def sample(key: jax.Array) -> tuple[Any, jax.Array]:
        rollout = sampler.sample(key, predict_fn)
        return rollout.x, rollout.log_weight - path.log_reference(rollout.x, 1.0)

    def log_ratio(key: jax.Array, x: Any) -> jax.Array:
        return sampler.log_weight(key, predict_fn, x) - path.log_reference(x, 1.0)

    return PathProposal(highest(sample), highest(log_ratio))


def as_path_proposal(proposal: Density | PathProposal) -> PathProposal:
    """A density, at `t = 0`, as a proposal whose path says nothing; anything else as it is."""
    if isinstance(proposal, PathProposal):
        return proposal
    density = proposal

    def log_ratio(key: jax.Array, x: Any) -> jax.Array:
        return -density.log_prob(x, None, 0.0, 1.0)

    def sample(key: jax.Array) -> tuple[Any, jax.Array]:
        x = density.sample(key, None, 0.0, 1.0)
        return x, log_ratio(key, x)

    return PathProposal(sample, log_ratio)


def defended(proposal: PathProposal, wide: Density, share: float) -> PathProposal:
    """The mixture `(1 - share) q(path, x) + share wide(x) b(path | x)`, whose weights are at most `p / (share wide)`.

        log_ratio = -log((1 - share) exp(-log_ratio of the proposal) + share wide(x))

    Cost: a draw of either kind, and the backward chain of the wide one's. Raises `ValueError` unless
    `0 < share < 1`.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: between 0 and 1, got {share}")

    def mixed(x: Any, log_ratio: jax.Array) -> jax.Array:
        of_wide = wide.log_prob(x, None, 0.0, 1.0)
        return -jnp.logaddexp(jnp.log1p(-share) - log_ratio, jnp.log(share) + of_wide)

    def sample(key: jax.Array) -> tuple[Any, jax.Array]:
        key_which, key_path, key_wide, key_back = jax.random.split(key, 4)
        x, log_ratio = proposal.sample(key_path)
        y = wide.sample(key_wide, None, 0.0, 1.0)
        drawn_wide = jax.random.uniform(key_which) < share
        x, log_ratio = jax.tree.map(
            lambda a, b: jnp.where(drawn_wide, b, a), (x, log_ratio), (y, proposal.log_ratio(key_back, y))
        )
        return x, mixed(x, log_ratio)

    def log_ratio(key: jax.Array, x: Any) -> jax.Array:
        return mixed(x, proposal.log_ratio(key, x))

    return PathProposal(sample, log_ratio)
