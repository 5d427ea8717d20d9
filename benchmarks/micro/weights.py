"""What is made of importance weights: summaries, the tail index, resampling, a weighted mean.

python -m benchmarks.micro.weights [--num-samples 100000] [--dim 100]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from egmjax.metrics import pareto_k, resample, summarize_weights, weighted_mean

from ..records import Record
from ._harness import BenchOptions, parse, report, time_side_by_side


@dataclass(kw_only=True)
class WeightOptions(BenchOptions):
    """Options of the measurement."""

    num_samples: int = 100_000
    """Weights."""
    dim: int = 100
    """Numbers of which the mean is taken."""


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the table and returns its records."""
    options = parse(WeightOptions, "weights", args)
    key = jax.random.key(0)
    log_weight = jax.random.normal(key, (options.num_samples,))
    values = jax.random.normal(jax.random.key(1), (options.num_samples, options.dim))
    timings = time_side_by_side(
        {
            "summarize_weights": (summarize_weights, (log_weight,)),
            "pareto_k": (pareto_k, (log_weight,)),
            "resample": (lambda k, w: resample(k, w, options.num_samples), (key, log_weight)),
            "weighted_mean": (weighted_mean, (values, log_weight)),
        },
        options.repeats,
    )
    shapes = {"samples": options.num_samples, "dim": options.dim}
    return report("weights", timings, options, shapes=shapes)


if __name__ == "__main__":
    main()
