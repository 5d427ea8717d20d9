"""The metrics of a run in memory: rows to look at, columns to keep."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

Row = dict[str, float]


class History(Sequence[Row]):
    """Rows `{name: number}`, one an iteration, read like a list of dictionaries and equal to one.

    Kept as one column of numbers for each name, so a row costs 8 bytes a number where a dictionary costs several times
    as much; `history[i]` makes the dictionary anew. Rows whose names differ from those before, as those of another
    trainer may, begin columns of their own. Numbers are floats, or integers below `2^63`.
    """

    def __init__(self, rows: Iterable[Mapping[str, float]] = ()) -> None:
        self._starts: list[int] = []  # of the stretches of rows with the same names
        self._stretches: list[dict[str, array[Any]]] = []
        self._length = 0
        for row in rows:
            self.append(row)

    def append(self, row: Mapping[str, float]) -> None:
        """One more row, of constant cost."""
        kinds = {name: "q" if isinstance(value, int) else "d" for name, value in row.items()}
        if not self._stretches or kinds != {n: c.typecode for n, c in self._stretches[-1].items()}:
            self._starts.append(self._length)
            self._stretches.append({name: array(kind) for name, kind in kinds.items()})
        for name, column in self._stretches[-1].items():
            column.append(row[name])
        self._length += 1

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        place = range(self._length)[index]  # negative ones count from the end; beyond it is an IndexError
        stretch = bisect_right(self._starts, place) - 1
        return {
            name: column[place - self._starts[stretch]] for name, column in self._stretches[stretch].items()
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None  # type: ignore[assignment]  # it grows
