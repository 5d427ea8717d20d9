"""What every command does with bad input and with its folder of results."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_sentence() -> Iterator[None]:
    """Ends the command with the sentence of a `ValueError` or `OSError` and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def is_taken(out: Path) -> bool:
    """Whether there is something at `out` that is not an empty folder."""
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def refuse_taken(out: Path) -> None:
    """Raises `ValueError` where `is_taken`."""
    if is_taken(out):
        raise ValueError(f"out: {out} exists and is not empty")
