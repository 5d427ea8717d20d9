"""What it costs to reveal several sites at once as if they were independent.

    TC(B | c) = E[ log p(x_B | c) - sum_(i in B) log p(x_i | c) ] >= 0        nats a step, c: what is known before it

No network can do better: whatever it says of single sites, the EUBO of roll-outs in these blocks is above log Z by the
sum over steps at least (Liu et al., arXiv 2410.01949, for discrete diffusions).
"""

from __future__ import annotations

import jax

from ..processes import MaskedProcess, PredictFn
from ..simulators import first_hitting_sampler
from ..simulators._first_hitting import SitesPerStep, block_log_probs


def total_correlation(
    key: jax.Array,
    x1: jax.Array,
    *,
    process: MaskedProcess,
    predict_fn: PredictFn,
    sites_per_step: SitesPerStep,
) -> jax.Array:
    """The model's own total correlation of each step, `[num_steps]`, at one state and in one order drawn with `key`.

        sum_(i in B) log D_i(x_i | c, x of those before i in B) - log D_i(x_i | c)

    Steps and order are those of `first_hitting_sampler(process, sites_per_step=...)` with this `key`, so the sum over
    steps is, state by state and up to rounding, its log-weight less the one with one site a step: the mean over the
    target is what several sites at once add to the EUBO of this network. Single values have either sign, and so has the
    mean of a bad network. With the exact conditionals for `D` it is the total correlation of `p` itself, which bounds
    every network; with others an estimate of that bound, as good as the network.

    Average it with `metrics.weighted_mean`: over exact samples with log-weights of 0, or over own samples with theirs
    and keys other than those they were drawn with. Cost: `sites` network calls and one for each step. Raises
    `ValueError` as the sampler does.
    """
    if not isinstance(process, MaskedProcess):
        raise ValueError(f"process: sites under a mask need a MaskedProcess, got {type(process).__name__}")
    num_steps = first_hitting_sampler(process, sites_per_step=sites_per_step).num_steps
    apart, step = block_log_probs(key, process, predict_fn, x1, sites_per_step)
    in_turn, _ = block_log_probs(key, process, predict_fn, x1, 1)
    return jax.ops.segment_sum(in_turn - apart, step, num_steps)
