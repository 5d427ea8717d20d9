"""Closed forms of jumps on the line: rates, where they land, and the maximal coupling of two times.

python -m benchmarks.micro.jump_laws [--num 100000]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from egmjax.paths import (
    CondOT,
    GaussianPath,
    conditional_coupling,
    jump_coordinates,
    jump_rate,
    landing_cdf,
    landing_ppf,
    survival,
)

from ..records import Record
from ._harness import BenchOptions, parse, report, time_side_by_side


@dataclass(kw_only=True)
class JumpLawOptions(BenchOptions):
    """Options of the measurement."""

    num: int = 100_000
    """Coordinates at once."""


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the table and returns its records."""
    options = parse(JumpLawOptions, "jump_laws", args)
    path, (t, s) = GaussianPath(CondOT(), shape=(1,)), (0.3, 0.35)
    keys = jax.random.split(jax.random.key(0), 3)
    xt, x1 = jax.random.normal(keys[0], (options.num,)), jax.random.normal(keys[1], (options.num,))
    u = jax.random.uniform(keys[2], (options.num,))
    e, r, _ = jump_coordinates(path, xt, x1, t)
    timings = time_side_by_side(
        {
            "jump_rate": (jump_rate, (e, r)),
            "survival, corrected": (lambda q: survival(q, path, t, s, "corrected"), (jump_rate(e, r),)),
            "landing_cdf": (landing_cdf, (e, r)),
            "landing_ppf": (landing_ppf, (u, r)),
            "maximal coupling, stay_prob": (
                lambda x, y: conditional_coupling(path, y, t, s).stay_prob(x),
                (xt, x1),
            ),
            "maximal coupling, landing_ppf": (
                lambda v, y: conditional_coupling(path, y, t, s).landing_ppf(v),
                (u, x1),
            ),
        },
        options.repeats,
    )
    return report("jump_laws", timings, options, shapes={"coordinates": options.num})


if __name__ == "__main__":
    main()
