"""Compare the newest records of benchmarks with stored ones of the same case, shapes and device.

    python -m benchmarks.compare STORED [NEW] [--limit 1.25]

With two files the newest record of each case in NEW is held against the newest in STORED; with one, against the one
before it. A case slower than 1.25 times the stored one is marked; exit code 1 if any is slower than the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from .commands import one_sentence
from .records import Record, read

MARK = 1.25


@dataclass(kw_only=True)
class CompareOptions:
    """Options of the comparison."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """STORED, or STORED and NEW."""
    limit: float = MARK
    """Exit code 1 if the median of any case is more than this times the stored one."""


def main(args: Sequence[str] | None = None) -> None:
    """The command."""
    options = tyro.cli(CompareOptions, prog="python -m benchmarks.compare", args=args)
    with one_sentence():
        if not 1 <= len(options.files) <= 2:
            raise ValueError(f"files: expected one or two, got {len(options.files)}")
        if not options.limit > 0:
            raise ValueError(f"limit: a positive ratio, got {options.limit}")
        pairs = matched(*(read(file) for file in options.files))
        if not pairs:
            raise ValueError("files: no case with the same shapes and device to compare with")
    print(f"{'':<58}{'stored':>11}{'new':>11}{'ratio':>8}")
    slower = False
    for stored, new in pairs:
        ratio = new.median / stored.median
        slower |= ratio > options.limit
        mark = "  slower" if ratio > MARK else ""
        name = f"{new.benchmark}: {new.case}"
        print(f"{name:<58}{1e3 * stored.median:>8.2f} ms{1e3 * new.median:>8.2f} ms{ratio:>8.2f}{mark}")
    if slower:
        raise SystemExit(1)


def matched(stored: Sequence[Record], new: Sequence[Record] | None = None) -> list[tuple[Any, Any]]:
    """`(stored, new)` of each case that has both, the newest of each; those that did not run are left out."""
    before, after = _by_key(stored), _by_key(stored if new is None else new)
    last = -2 if new is None else -1
    return [
        (before[key][last], found[-1]) for key, found in after.items() if len(before.get(key, [])) >= -last
    ]


def _by_key(records: Sequence[Record]) -> dict[tuple[str, ...], list[Record]]:
    found: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if record.median is not None:
            found.setdefault(record.key, []).append(record)
    return found


if __name__ == "__main__":
    main()
