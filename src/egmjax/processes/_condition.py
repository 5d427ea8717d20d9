"""Conditional sampling: a trained any-order masked model answers every question about its sites.

A denoiser of random order has learned the law of each site given any others, so fixing some of them needs no
training: the chain starts with them revealed. Weights stay exact, for the completions alone,

    E[exp(psi(x, 1) + log_weight)] = sum over completions x of exp(-E(x))
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ._amortized import AmortizedProcess
from ._base import Process
from ._masked import MaskedProcess
from ._product import ProductProcess


def condition(process: Process, evidence: Any) -> Process:
    """`process` with the given symbols of `evidence` fixed from the start to the end.

    `grid_sampler(condition(process, evidence), times)` or `first_hitting_sampler(condition(process, evidence))` with
    the same network then draw completions, the first on any grid from 0 to 1, and their `log_weight` weighs given
    completions. `log Z(evidence) - log Z` is the log-probability of the evidence.

    Args:
        process: A `MaskedProcess`, or a `ProductProcess` or an `AmortizedProcess` of some.
        evidence: For a masked process int `[sites]`, a symbol where it is given and the mask (`num_states`) where it
            is not; for an amortised process what its inner process takes; for a product a tuple with `None` for
            components about which nothing is given. May be a tracer, so `vmap` runs over evidence. Replaces
            earlier evidence.

    Raises:
        ValueError: `evidence` has the wrong shape or values, or concerns a component that is not masked: for
            those see `targets.conditioned`, which needs a model of its own.

    A network that uses `t` sees more symbols than it is used to at that time, and one of a fixed order contexts that
    it has not met: weights remain exact there, but expect a lower ESS.
    """
    if evidence is None:
        return process
    if isinstance(process, MaskedProcess):
        return dataclasses.replace(process, mixture=dataclasses.replace(process.mixture, evidence=evidence))
    if isinstance(process, AmortizedProcess):
        return dataclasses.replace(process, process=condition(process.process, evidence))
    if not isinstance(process, ProductProcess):
        raise ValueError(
            f"evidence: only masked components start from given symbols, got a {type(process).__name__}"
        )
    parts = process.processes
    if not isinstance(evidence, tuple) or len(evidence) != len(parts):
        raise ValueError(f"evidence: expected a tuple of {len(parts)}, None where nothing is given")
    return dataclasses.replace(process, processes=tuple(condition(p, e) for p, e in zip(parts, evidence)))
