"""The quick measurements of speed: run them, keep their records, and write the tables of `benchmarks/README.md`.

    python -m benchmarks.bench [--only NAME ...] [--record benchmarks/records.jsonl] [--tables-only]

Each in a process of its own, one after another. Tables are made from the newest run of each benchmark in the record
file, and put between the marker comments of the document; nothing else of it is touched.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from .commands import one_sentence
from .records import ROOT, newest_run, read, table, write_tables

QUICK = (
    "snis",
    "train_step",
    "published",
    "steppers",
    "weights",
    "buffer",
    "jump_laws",
    "compiling",
)
PEERS = ("flow_matching_peer", "torchebm_peer")  # of packages that no default needs; only where named


@dataclass(kw_only=True)
class QuickOptions:
    """Options of the command."""

    only: tuple[str, ...] = QUICK
    """Modules of `benchmarks.micro` to be run."""
    record: Path = ROOT / "benchmarks" / "records.jsonl"
    """Records are appended to this file, and tables made from it."""
    document: Path = ROOT / "benchmarks" / "README.md"
    """The document with the tables."""
    tables_only: bool = False
    """Run nothing, write the tables from the records that there are."""


def main(args: Sequence[str] | None = None) -> None:
    """The command; exit code 1 if a measurement failed, 2 for bad input."""
    options = tyro.cli(QuickOptions, prog="python -m benchmarks.bench", args=args)
    with one_sentence():
        if unknown := set(options.only) - {*QUICK, *PEERS}:
            raise ValueError(
                f"only: expected some of {', '.join((*QUICK, *PEERS))}, got {', '.join(sorted(unknown))}"
            )
    started, failed = time.perf_counter(), []
    for name in () if options.tables_only else options.only:
        command = [
            sys.executable,
            "-m",
            f"benchmarks.micro.{name}",
            "--record",
            str(options.record.resolve()),
        ]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    with one_sentence():
        records = read(options.record)
        names = dict.fromkeys(record.benchmark for record in records)
        written = write_tables(options.document, {name: table(newest_run(records, name)) for name in names})
    print(f"{time.perf_counter() - started:.0f} s; {options.document}: {', '.join(written) or 'no tables'}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
