"""Exact sums, marginals and draws of a pairwise model on a torus with some sites clamped (host numpy).

    -E(x) = constant + sum_<ij> K_ij 1{x_i = x_j} + sum_i f_i(x_i),    own K for each bond, f for each site
    d_k(r) = exp(bonds and fields of row k),     W_k(r, r') = exp(bonds of row k with row k+1)
    G_R = 1,   G_k = d_k W_k G_{k+1},   Z = trace G_0;      F_0 = 1,   F_{k+1} = W_k^T d_k F_k
    p(r_k) ~ sum_c F_k(r_k, c) G_k(r_k, c),      p(r_k | r_{k-1}, r_0 = c) ~ W_{k-1}(r_{k-1}, r_k) G_k(r_k, c)

`r_k` runs over the patterns of row `k` that agree with its clamped sites, `c` over those of row 0, which is
the row with the fewest free sites. `W_k` is the Kronecker product of a block for the left and one for the
right half of the columns. `F_k` and `G_k` are stored as `[left, c, right]`, so that each block is one matrix
product, and a pass over `R` rows of `n` patterns each costs `2 R n^1.5 n_0` multiplications. Derivatives of
`log Z` in an inverse temperature come from the same recursions on truncated Taylor series. Every array is
divided by its largest entry. An entry that underflows then carries less than `exp(S - 708)` of `Z`, `S` three
times the largest log-range of a `W_k` plus twice that of a `d_k`; models with `S > MAX_SPREAD` are refused.

Where all bonds are one `K` and there is no field, with `T = d^1/2 W d^1/2` symmetric and rows that are equal up to a
rotation, a reflection or a relabelling contributing alike, a vector takes the place of a matrix:

    Z = trace T^L = sum over orbits of rows s of |orbit| <T^a e_s, T^(L-a) e_s>,     a = L // 2
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from ._ising_transfer import _choose

__all__ = [
    "MAX_ENTRIES",
    "OutOfReachError",
    "Torus",
    "log_sum",
    "moments",
    "sample",
    "site_probs",
    "uniform_log_z",
]

MAX_ENTRIES = 2**21  # of one G_k: 16 MB
MAX_SPREAD = 650.0
MAX_PATTERNS = 2**22  # of a row, where columns of the transfer matrix are made one by one
MAX_BLOCK = 2**10  # patterns of the columns that are multiplied at once
CHUNK_ENTRIES = 2**19  # of the conditional laws that are drawn from at once

Series: TypeAlias = list[np.ndarray]  # Taylor coefficients at 1 in the inverse temperature


class OutOfReachError(ValueError):
    """A model with too many patterns in a row, or so cold that its weights leave the range of float64."""


@dataclasses.dataclass(frozen=True, eq=False)
class Torus:
    """The model: bonds `right [R, C]`, `down [R, C]` to the next column and row, `field [R, C, q]`."""

    right: np.ndarray
    down: np.ndarray
    field: np.ndarray
    constant: float = 0.0

    @property
    def is_symmetric(self) -> bool:
        """Whether a permutation of the symbols changes nothing."""
        return bool(np.all(self.field == self.field[..., :1]))

    @property
    def _content(self) -> tuple[object, ...]:
        arrays = (self.right.tobytes(), self.down.tobytes(), self.field.tobytes())
        return self.field.shape, *arrays, self.constant

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Torus) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)


def log_sum(torus: Torus, xt: np.ndarray) -> float:
    """`log sum exp(-E)` over the completions of `xt: int [R, C]`, in which `q` marks a free site."""
    chain = _chain(torus, xt, 0)
    *_, (closing, log_scale) = _closings(chain)
    return float(np.log(_diagonal(closing[0]).sum()) + log_scale)


def site_probs(torus: Torus, xt: np.ndarray) -> tuple[float, np.ndarray]:
    """`log_sum(torus, xt)`, and the law of every site given the clamped ones, `[R, C, q]`."""
    chain = _chain(torus, xt, 0)
    closings = list(_closings(chain))
    probs = np.empty(torus.field.shape)
    symbols = np.arange(torus.field.shape[2])
    forward = _identity(chain)
    for k, (patterns, (weight,), (high, low), (closing, _)) in enumerate(
        zip(chain.patterns, chain.weights, chain.links, closings[::-1])
    ):
        mass = np.einsum("hcl,hcl->hl", forward, closing[0]).reshape(-1)
        probs[k] = np.tensordot(mass / mass.sum(), patterns[:, :, None] == symbols, 1)
        (forward,) = _transfer(([high[0].T], [low[0].T]), [weight * forward])
        forward /= forward.max()
    last, log_scale = closings[-1]
    return float(np.log(_diagonal(last[0]).sum()) + log_scale), np.roll(probs, chain.anchor, axis=0)


@functools.lru_cache(maxsize=128)
def moments(torus: Torus) -> tuple[float, float, float]:
    """`(log Z, mean, standard deviation)` of the energy, exact, with no site clamped."""
    chain = _chain(torus, _without_symmetry(torus), 2)
    *_, (closing, log_scale) = _closings(chain)
    z, first, second = (float(_diagonal(term).sum()) for term in closing)
    log_z = np.log(z) + log_scale + (np.log(torus.field.shape[2]) if torus.is_symmetric else 0.0)
    mean, variance = first / z, 2 * second / z - (first / z) ** 2
    return float(log_z), -mean - chain.log_scale, math.sqrt(max(variance, 0.0))


def uniform_log_z(length: int, num_states: int, bond: float) -> float:
    """`log Z` of the `length x length` torus with `K = bond` everywhere and no field, one column of `T` at a time.

    In memory a few vectors of `q^L`, in time for each orbit `L / 2` times `q^L` times about `L q^3 / 1.5` operations
    (`L q^2` above ten states, `2 L q` above 32): minutes for three states at `L = 12` (3,960 orbits), where the other
    functions would need `q^(2L-1)` numbers. Raises `OutOfReachError` for more than `MAX_PATTERNS` rows, and where `T`
    spans too many units of kT.
    """
    num = num_states**length
    if num > MAX_PATTERNS:
        raise OutOfReachError(f"length: {num_states} ** {length} rows are too many, at most {MAX_PATTERNS}")
    if not 4 * length * abs(bond) <= MAX_SPREAD:
        raise OutOfReachError(f"bond: {bond} spans too many kT over a row of {length}")
    # a row is a number in base q; blocks of up to three columns make few and large products
    width = next(n for n in (3, 2, 1) if n == 1 or num_states**n <= MAX_BLOCK)
    sizes = [len(part) for part in np.array_split(np.arange(length), -(-length // width))]
    blocks = []
    for size in sizes:
        part = _product([np.arange(num_states)] * size)
        blocks.append(np.exp(bond * (part[:, None] == part).sum(axis=-1)))
    rows = _product([np.arange(num_states, dtype=np.uint8)] * length)  # q^3 rows are within reach up to 161
    root = np.exp(0.5 * bond * np.sum(rows == np.roll(rows, -1, axis=1), axis=1))

    def apply(x: np.ndarray) -> np.ndarray:
        """`T x`; each product moves its columns to the end, so that the last one restores the order."""
        y = root * x
        for block in blocks:
            y = y.reshape(len(block), -1).T @ block
        return root * y.reshape(-1)

    terms = []
    for row, size in zip(*_orbits(length, num_states)):
        x, log_scale, powers = np.zeros(num), 0.0, []
        x[row] = 1.0
        for power in range(1, length - length // 2 + 1):
            x = apply(x)
            top = float(x.max())
            x, log_scale = x / top, log_scale + math.log(top)
            if power in (length // 2, length - length // 2):
                powers.append((x, log_scale))
        (x, log_x), (y, log_y) = powers[0], powers[-1]
        terms.append(math.log(size) + math.log(float(x @ y)) + log_x + log_y)
    return float(np.logaddexp.reduce(terms))


def _orbits(length: int, num_states: int) -> tuple[np.ndarray, np.ndarray]:
    """One row of each orbit under rotations, reflections and relabelling, as numbers in base `q`; their sizes."""
    # up to relabelling: symbols numbered by their first appearance
    rows = np.zeros((1, 1), np.int64)
    for _ in range(length - 1):
        new = np.minimum(rows.max(axis=1) + 1, num_states - 1)
        rows = np.concatenate(
            [np.column_stack([rows[s <= new], np.full((s <= new).sum(), s)]) for s in range(num_states)]
        )
    place = num_states ** np.arange(length)[::-1]
    least = rows @ place
    for turn, step in itertools.product(range(length), (1, -1)):
        least = np.minimum(least, _by_appearance(np.roll(rows, turn, axis=1)[:, ::step], num_states) @ place)
    used = rows.max(axis=1) + 1
    # as many relabellings as injections of the symbols in use
    copies = np.array([math.perm(num_states, n) for n in range(used.max() + 1)])[used]
    found, index = np.unique(least, return_inverse=True)
    return found, np.bincount(index, weights=copies).astype(np.int64)


def _by_appearance(rows: np.ndarray, num_states: int) -> np.ndarray:
    """Symbols of each row numbered by their first appearance in it."""
    length = rows.shape[1]
    first = np.stack(
        [np.where((rows == s).any(axis=1), (rows == s).argmax(axis=1), length) for s in range(num_states)]
    )
    rank = first.argsort(axis=0, kind="stable").argsort(axis=0)
    return np.take_along_axis(rank.T, rows, axis=1)


def sample(
    rng: np.random.Generator, torus: Torus, num_samples: int, xt: np.ndarray | None = None
) -> np.ndarray:
    """Independent exact draws, int32 `[num_samples, R, C]`, of the completions of `xt`, or of all sites.

    A symmetric model is drawn with one site clamped and its symbols are then shifted at random. The last two
    solutions are kept, `R` arrays `G_k` each. A draw costs a few times `R n` operations.
    """
    start = _without_symmetry(torus) if xt is None else np.ascontiguousarray(xt, dtype=np.int64)
    chain, closings = _solution(torus, start.tobytes())
    rows, columns, num_states = torus.field.shape
    x = np.empty((num_samples, rows, columns), dtype=np.int32)
    law = _diagonal(closings[0])[None, :]
    chunk = max(1, CHUNK_ENTRIES // max(len(patterns) for patterns in chain.patterns))
    for begin in range(0, num_samples, chunk):
        part = x[begin : begin + chunk]
        first = previous = _choose(rng, law, len(part))
        part[:, 0] = chain.patterns[0][first]
        for k in range(1, rows):
            high, low = (block[0] for block in chain.links[k - 1])
            old_high, old_low = np.divmod(previous, low.shape[0])
            weights = (
                closings[k].transpose(1, 0, 2)[first] * high[old_high][:, :, None] * low[old_low][:, None]
            )
            previous = _choose(rng, weights.reshape(len(part), -1))
            part[:, k] = chain.patterns[k][previous]
    x = np.roll(x, chain.anchor, axis=1)
    if xt is None and torus.is_symmetric:
        shift = rng.integers(num_states, size=(num_samples, 1, 1), dtype=np.int32)
        x = (x + shift) % np.int32(num_states)
    return x


class _Chain(NamedTuple):
    """Rows in the order of the recursion: `patterns[k]: int [n_k, C]`, `weights[k] = d_k: [left, 1, right]`.

    `links[k]` is `W_k` as its blocks for the left (slower) and the right half of the columns. Row 0 of the
    chain is row `anchor` of the torus; weights and blocks are divided by `exp(lambda log_scale)` in total.
    """

    anchor: int
    patterns: list[np.ndarray]
    weights: list[Series]
    links: list[tuple[Series, Series]]
    log_scale: float


def _chain(torus: Torus, xt: np.ndarray, order: int) -> _Chain:
    """The chain of `torus` clamped to `xt`, with series up to `order`.

    Raises `OutOfReachError` where it has too many patterns or spans too many units of kT.
    """
    rows, columns, num_states = torus.field.shape
    free = np.sum(xt == num_states, axis=1)
    anchor = int(free.argmin())
    if num_states ** int(free.max() + free.min()) > MAX_ENTRIES:
        raise OutOfReachError(
            f"xt: {free.max()} and {free.min()} masked sites in the fullest and emptiest row are too many, "
            f"{num_states} ** (their sum) may be {MAX_ENTRIES} at most"
        )
    order_of_rows = np.roll(np.arange(rows), -anchor)
    symbols = [
        [np.arange(num_states) if s == num_states else np.array([s]) for s in xt[k]] for k in order_of_rows
    ]
    split = (columns + 1) // 2
    halves = [(_product(row[:split]), _product(row[split:])) for row in symbols]
    patterns = [_product(row) for row in symbols]
    weights, links, logs = [], [], [torus.constant]
    row_ranges, link_ranges = [], []
    for k, row in enumerate(order_of_rows):
        equal = patterns[k] == np.roll(patterns[k], -1, axis=1)
        fields = torus.field[row, np.arange(columns), patterns[k]].sum(1)
        weight, top, row_range = _exp_series(equal @ torus.right[row] + fields, order)
        weights.append([term.reshape(len(halves[k][0]), 1, -1) for term in weight])
        row_ranges.append(row_range)
        blocks = [
            _exp_series((upper[:, None] == lower) @ down, order)
            for upper, lower, down in zip(
                halves[k], halves[(k + 1) % rows], np.split(torus.down[row], [split])
            )
        ]
        links.append((blocks[0][0], blocks[1][0]))
        link_ranges.append(blocks[0][2] + blocks[1][2])
        logs += [top, blocks[0][1], blocks[1][1]]
    spread = 2 * max(row_ranges) + 3 * max(link_ranges)
    if not spread <= MAX_SPREAD:
        raise OutOfReachError(
            f"target: couplings and fields span {spread:.0f} kT over a few rows, "
            f"float64 sums hold {MAX_SPREAD:.0f}"
        )
    return _Chain(anchor, patterns, weights, links, math.fsum(logs))


def _closings(chain: _Chain) -> Iterator[tuple[Series, float]]:
    """`G_{R-1} .. G_0` as series of `[left, n_0, right]` over their scales, and the logs of the scales."""
    order = len(chain.weights[0]) - 1
    closing = [_identity(chain)] + [np.zeros_like(_identity(chain))] * order
    log_scale = chain.log_scale
    for weight, link in zip(reversed(chain.weights), reversed(chain.links)):
        closing = _multiply(np.multiply, weight, _transfer(link, closing))
        scale = float(closing[0].max())
        closing = [term / scale for term in closing]
        log_scale += math.log(scale)
        yield closing, log_scale


@functools.lru_cache(maxsize=2)
def _solution(torus: Torus, xt: bytes) -> tuple[_Chain, list[np.ndarray]]:
    """The chain and `G_0 .. G_{R-1}` that draws are made from."""
    chain = _chain(torus, np.frombuffer(xt, dtype=np.int64).reshape(torus.right.shape), 0)
    return chain, [closing[0] for closing, _ in _closings(chain)][::-1]


def _without_symmetry(torus: Torus) -> np.ndarray:
    """All sites free, but for one clamped to 0 where every symbol is as good as any other."""
    xt = np.full(torus.right.shape, torus.field.shape[2], dtype=np.int64)
    if torus.is_symmetric:
        xt[0, 0] = 0
    return xt


def _product(symbols: list[np.ndarray]) -> np.ndarray:
    """Every choice of one symbol from each list, int `[n, len(symbols)]`, the last varying fastest."""
    return np.stack(np.meshgrid(*symbols, indexing="ij"), axis=-1).reshape(-1, len(symbols))


def _exp_series(exponent: np.ndarray, order: int) -> tuple[Series, float, float]:
    """The series of `exp(lambda (exponent - top))`, the largest exponent `top`, the range of exponents."""
    top = float(exponent.max())
    below = exponent - top
    weight = np.exp(below)
    series = [weight * below**n / math.factorial(n) for n in range(order + 1)]
    return series, top, top - float(exponent.min())


def _multiply(product: Callable[[np.ndarray, np.ndarray], np.ndarray], a: Series, x: Series) -> Series:
    """The series of `product(a, x)`, bilinear, up to the order of `x`."""
    return [functools.reduce(np.add, [product(a[i], x[n - i]) for i in range(n + 1)]) for n in range(len(x))]


def _transfer(link: tuple[Series, Series], x: Series) -> Series:
    """The Kronecker product of the two blocks of `link` times `x: [left, c, right]`."""
    high, low = link
    _, num, num_right = x[0].shape
    y = _multiply(lambda block, v: block @ v.reshape(len(v), -1), high, x)
    z = _multiply(lambda block, v: v.reshape(-1, num_right) @ block.T, low, y)
    return [term.reshape(len(high[0]), num, -1) for term in z]


def _identity(chain: _Chain) -> np.ndarray:
    """`1` on the patterns of row 0, `[left, n_0, right]`."""
    left, _, right = chain.weights[0][0].shape
    return np.eye(left * right).reshape(left, right, -1).transpose(0, 2, 1).copy()


def _diagonal(x: np.ndarray) -> np.ndarray:
    """The entries of `x: [left, n_0, right]` with equal patterns, `[n_0]`."""
    left, num, right = x.shape
    return np.einsum("hhll->hl", x.reshape(left, left, right, right)).reshape(num)
