"""Tables of the documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Rows of cells under a row of headings."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *lines))


def section(title: str, head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A heading and a table."""
    return f"### {title}\n\n{table(head, lines)}"
