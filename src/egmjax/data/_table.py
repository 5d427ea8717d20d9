"""Tables of mixed columns as states: `({name: array [n]}) <-> (reals [n, d], symbols [n, k], ...)`.

Continuous columns become one `Real` component of standard scores. Categorical columns become one `Categorical`
component for each number of categories that occurs, in increasing order, so that no symbol is padded and none has to be
forbidden. A table with one component only is encoded as that component, not as a tuple.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ..states import Categorical, Real, Space
from ._quantiles import Quantiles, fit_quantiles

Transform = Literal["quantile", "standard"]


class _Continuous(NamedTuple):
    """`quantiles` or, where that is `None`, mean and standard deviation; `is_whole` rounds what is decoded."""

    quantiles: Quantiles | None
    mean: float
    std: float
    is_whole: bool
    dtype: np.dtype

    def encode(self, value: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        value = value.astype(np.float64)
        return (value - self.mean) / self.std if self.quantiles is None else self.quantiles.encode(value, rng)

    def decode(self, score: np.ndarray) -> np.ndarray:
        value = (
            self.mean + self.std * score.astype(np.float64)
            if self.quantiles is None
            else self.quantiles.decode(score)
        )
        return (np.round(value) if self.is_whole else value).astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class TableEncoder:
    """What `fit_table` has learned: `encode` and `decode`, inverse to each other, and the `space` of a state.

    `continuous` and `categories` (the sorted categories, `[S]`) by name of the column, `names` in the table's order.
    """

    names: tuple[str, ...]
    continuous: Mapping[str, _Continuous]
    categories: Mapping[str, np.ndarray]

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of the columns of each component, in the order of the state: continuous first."""
        sizes = sorted({len(c) for c in self.categories.values()})
        groups = [tuple(n for n, c in self.categories.items() if len(c) == size) for size in sizes]
        return tuple(g for g in (tuple(self.continuous), *groups) if g)

    @property
    def space(self) -> Space:
        """A tuple of components, or the only one."""
        parts = tuple(
            Real((len(g),)) if g[0] in self.continuous else Categorical(len(g), len(self.categories[g[0]]))
            for g in self.groups
        )
        return parts if len(parts) > 1 else parts[0]

    def encode(self, columns: Mapping[str, Any], *, seed: int | None = 0) -> Any:
        """States: float32 `[n, d]` and int32 `[n, k]`. Atoms of the quantile transform are spread by `seed`.

        `seed=None` puts every atom in its middle. Raises `ValueError` naming the column that is missing, of a wrong
        kind or length, not finite, or has a category that was not seen.
        """
        columns = _read(columns, self.names, tuple(self.categories), min_rows=1)
        rng = None if seed is None else np.random.default_rng(seed)
        return self._join(
            [np.stack([self._code(n, columns[n], rng) for n in g], axis=1) for g in self.groups]
        )

    def decode(self, x: Any) -> dict[str, np.ndarray]:
        """Columns of states, in the table's order and types. Raises `ValueError` for states of another space."""
        parts = x if isinstance(x, tuple) else (x,)
        if [np.shape(a)[1:] for a in parts] != [(len(g),) for g in self.groups]:
            raise ValueError(f"x: expected states of {self.space}, got {[np.shape(a) for a in parts]}")
        columns: dict[str, np.ndarray] = {}
        for group, part in zip(self.groups, map(np.asarray, parts)):
            for name, values in zip(group, part.T):
                if name in self.continuous:
                    columns[name] = self.continuous[name].decode(values)
                    continue
                if values.size and not 0 <= values.min() <= values.max() < len(self.categories[name]):
                    raise ValueError(
                        f"x: expected symbols 0..{len(self.categories[name]) - 1} of column {name!r}, "
                        f"got {values.min()}..{values.max()}"
                    )
                columns[name] = self.categories[name][values]
        return {name: columns[name] for name in self.names}

    def features(self, columns: Mapping[str, Any]) -> np.ndarray:
        """Scores and one-hot symbols side by side, float64 `[n, d + sum S]`: what metrics compare tables by."""
        x = self.encode(columns, seed=None)
        parts = x if isinstance(x, tuple) else (x,)
        flat = [
            part.astype(np.float64)
            if np.issubdtype(part.dtype, np.floating)
            else np.eye(len(self.categories[group[0]]))[part].reshape(len(part), -1)
            for group, part in zip(self.groups, parts)
        ]
        return np.concatenate(flat, axis=1)

    def _code(self, name: str, values: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        if name in self.continuous:
            return self.continuous[name].encode(values, rng).astype(np.float32)
        categories = self.categories[name]
        unseen = ~np.isin(values, categories)
        if unseen.any():
            raise ValueError(f"columns[{name!r}]: category {values[unseen][0]!r} was not seen when fitted")
        return np.searchsorted(categories, values).astype(np.int32)

    def _join(self, parts: list[np.ndarray]) -> Any:
        return tuple(parts) if len(parts) > 1 else parts[0]


def fit_table(
    columns: Mapping[str, Any], *, categorical: Sequence[str] = (), transform: Transform = "quantile"
) -> TableEncoder:
    """Learns how to encode a table, `{name: array [n]}` or anything else that maps names to columns.

    `categorical` names the columns of symbols: integers, strings or booleans. All others are continuous:
    "quantile" gives them normal scores, whatever their tails, ties and zeros, and decodes within the range
    seen; "standard" subtracts the mean and divides by the standard deviation. Columns of whole numbers are decoded to
    whole numbers. Fit it to training rows alone. Raises `ValueError` naming the column that has missing or
    infinite values, one value only, or a type that does not fit; for fewer than two rows and unknown names.
    """
    names = tuple(columns)
    unknown = sorted(set(categorical) - set(names))
    if unknown or len(set(categorical)) != len(categorical):
        raise ValueError(f"categorical: expected names of columns, each once, got {unknown or categorical}")
    if transform not in ("quantile", "standard"):
        raise ValueError(f'transform: expected "quantile" or "standard", got {transform!r}')
    table = _read(columns, names, tuple(categorical), min_rows=2)
    continuous: dict[str, _Continuous] = {}
    categories: dict[str, np.ndarray] = {}
    for name, values in table.items():
        distinct = np.unique(values)
        if len(distinct) < 2:
            raise ValueError(f"columns[{name!r}]: is constant, {distinct[0]!r} in every row; leave it out")
        if name in categorical:
            categories[name] = distinct
            continue
        numbers = values.astype(np.float64)
        continuous[name] = _Continuous(
            fit_quantiles(numbers) if transform == "quantile" else None,
            float(numbers.mean()),
            float(numbers.std()),
            bool(np.all(distinct == np.round(distinct))),
            values.dtype,
        )
    return TableEncoder(names, continuous, categories)


def _read(
    columns: Mapping[str, Any], names: Sequence[str], categorical: Sequence[str], *, min_rows: int
) -> dict[str, np.ndarray]:
    """The columns as checked arrays of one length."""
    if not names:
        raise ValueError("columns: needs at least one column")
    missing = [name for name in names if name not in columns]
    if missing:
        raise ValueError(f"columns: {missing[0]!r} is missing")
    table = {name: np.asarray(columns[name]) for name in names}
    num_rows = len(table[names[0]]) if table[names[0]].ndim == 1 else -1
    for name, values in table.items():
        if values.ndim != 1 or len(values) != num_rows:
            raise ValueError(f"columns[{name!r}]: expected shape [n] as the others, got {list(values.shape)}")
        _check_kind(name, values, name in categorical)
    if num_rows < min_rows:
        raise ValueError(f"columns: needs at least {min_rows} row{'s' * (min_rows > 1)}, got {num_rows}")
    return table


def _check_kind(name: str, values: np.ndarray, is_categorical: bool) -> None:
    is_text = values.dtype.kind in "UST" or (
        values.dtype.kind == "O" and all(isinstance(v, str) for v in values)
    )
    if is_categorical and not (is_text or values.dtype.kind in "iub"):
        raise ValueError(
            f"columns[{name!r}]: categories are integers, strings or booleans without gaps, got {values.dtype}"
        )
    if is_categorical:
        return
    if values.dtype.kind not in "iuf":
        raise ValueError(
            f"columns[{name!r}]: expected numbers, got {values.dtype}; name it in categorical if it holds symbols"
        )
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"columns[{name!r}]: {int(bad.sum())} values are not finite, the first in row {int(np.argmax(bad))}"
        )
