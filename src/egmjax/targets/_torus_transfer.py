"""Exact sums, marginals and draws of a pairwise model on a torus with some sites clamped (host numpy, float64).

    -E(x) = constant + sum_<ij> K_ij 1{x_i = x_j} + sum_i f_i(x_i),      own K for each bond, own f for each site
    d_k(r) = exp(bonds and fields of row k),     W_k(r, r') = exp(bonds of row k with row k+1)
    G_R = 1,   G_k = d_k W_k G_{k+1},   Z = trace G_0;      F_0 = 1,   F_{k+1} = W_k^T d_k F_k
    p(r_k) ~ sum_c F_k(r_k, c) G_k(r_k, c),      p(r_k | r_{k-1}, r_0 = c) ~ W_{k-1}(r_{k-1}, r_k) G_k(r_k, c)

`r_k` runs over the patterns of row `k` that agree with its clamped sites, `c` over those of row 0, which is the
row with the fewest free sites. `W_k` is applied as a Kronecker product of two blocks, so a pass over `R` rows of
`n` patterns each costs `2 R n^1.5 n_0` multiplications. Derivatives of `log Z` in an inverse temperature
come from the same recursions on truncated Taylor series. Weights are scaled row by row; they stay in the range of
float64 while `4 C max K` and the fields of two rows stay below 700, `C` the number of columns.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from ._ising_transfer import _choose

__all__ = ["MAX_ENTRIES", "Torus", "log_sum", "moments", "sample", "site_probs"]

MAX_ENTRIES = 2**21  # of one G_k: 16 MB
CHUNK_ENTRIES = 2**19  # of the conditional laws that are drawn from at once

Series: TypeAlias = list[np.ndarray]  # Taylor coefficients at 1 in the inverse temperature


@dataclasses.dataclass(frozen=True, eq=False)
class Torus:
    """The model: `right [R, C]` (site with right neighbour), `down [R, C]`, `field [R, C, q]`, all float64."""

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
    return float(np.log(np.trace(closing[0])) + log_scale)


def site_probs(torus: Torus, xt: np.ndarray) -> tuple[float, np.ndarray]:
    """`log_sum(torus, xt)`, and the law of every site given the clamped ones, `[R, C, q]`."""
    chain = _chain(torus, xt, 0)
    closings = list(_closings(chain))
    probs = np.empty(torus.field.shape)
    symbols = np.arange(torus.field.shape[2])
    forward = np.eye(len(chain.patterns[0]))
    for k, (patterns, (weight,), (high, low), (closing, _)) in enumerate(
        zip(chain.patterns, chain.weights, chain.links, closings[::-1])
    ):
        mass = np.einsum("rc,rc->r", forward, closing[0])
        probs[k] = np.tensordot(mass / mass.sum(), patterns[:, :, None] == symbols, 1)
        (forward,) = _transfer(([high[0].T], [low[0].T]), [weight[:, None] * forward])
        forward /= forward.max()
    last, log_scale = closings[-1]
    return float(np.log(np.trace(last[0])) + log_scale), np.roll(probs, chain.anchor, axis=0)


@functools.lru_cache(maxsize=128)
def moments(torus: Torus) -> tuple[float, float, float]:
    """`(log Z, mean, standard deviation)` of the energy, exact, with no site clamped."""
    chain = _chain(torus, _without_symmetry(torus), 2)
    *_, (closing, log_scale) = _closings(chain)
    z, first, second = (float(np.trace(term)) for term in closing)
    log_z = np.log(z) + log_scale + (np.log(torus.field.shape[2]) if torus.is_symmetric else 0.0)
    mean, variance = first / z, 2 * second / z - (first / z) ** 2
    return float(log_z), -mean - torus.constant, math.sqrt(max(variance, 0.0))


def sample(
    rng: np.random.Generator, torus: Torus, num_samples: int, xt: np.ndarray | None = None
) -> np.ndarray:
    """Independent exact draws of the completions of `xt`, int32 `[num_samples, R, C]`; of all sites if `None`.

    A symmetric model is drawn with one site clamped and its symbols are then shifted at random. The last two
    solutions are kept, `R` arrays `G_k` each. A draw costs a few times `R n` operations.
    """
    start = _without_symmetry(torus) if xt is None else np.ascontiguousarray(xt, dtype=np.int64)
    chain, closings = _solution(torus, start.tobytes())
    rows, columns, num_states = torus.field.shape
    x = np.empty((num_samples, rows, columns), dtype=np.int32)
    law = np.diagonal(closings[0])[None, :]
    chunk = max(1, CHUNK_ENTRIES // max(len(patterns) for patterns in chain.patterns))
    for begin in range(0, num_samples, chunk):
        part = x[begin : begin + chunk]
        first = previous = _choose(rng, law, len(part))
        part[:, 0] = chain.patterns[0][first]
        for k in range(1, rows):
            high, low = (block[0] for block in chain.links[k - 1])
            old_high, old_low = np.divmod(previous, low.shape[0])
            weights = closings[k][:, first].reshape(high.shape[1], low.shape[1], -1)
            weights = weights * high.T[:, None, old_high] * low.T[None, :, old_low]
            previous = _choose(rng, weights.reshape(-1, len(part)).T)
            part[:, k] = chain.patterns[k][previous]
    x = np.roll(x, chain.anchor, axis=1)
    if xt is None and torus.is_symmetric:
        shift = rng.integers(num_states, size=(num_samples, 1, 1), dtype=np.int32)
        x = (x + shift) % np.int32(num_states)
    return x


class _Chain(NamedTuple):
    """Rows in the order of the recursion: `patterns[k]: int [n_k, C]`, `weights[k]` is `d_k: [n_k]`.

    `links[k]` is `W_k` as its blocks for the left (slower) and the right half of the columns. Row 0 of the chain
    is row `anchor` of the torus; weights and blocks are divided by `exp(log_scale)` in total.
    """

    anchor: int
    patterns: list[np.ndarray]
    weights: list[Series]
    links: list[tuple[Series, Series]]
    log_scale: float


def _chain(torus: Torus, xt: np.ndarray, order: int) -> _Chain:
    """The chain of `torus` clamped to `xt`, with series up to `order`. Raises `ValueError` where it is too wide."""
    rows, columns, num_states = torus.field.shape
    free = np.sum(xt == num_states, axis=1)
    anchor = int(free.argmin())
    if num_states ** int(free.max() + free.min()) > MAX_ENTRIES:
        raise ValueError(
            f"xt: {free.max()} and {free.min()} masked sites in the fullest and the emptiest row are too many; "
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
    for k, row in enumerate(order_of_rows):
        equal = patterns[k] == np.roll(patterns[k], -1, axis=1)
        fields = torus.field[row, np.arange(columns), patterns[k]].sum(1)
        weight, log_weight = _exp_series(equal @ torus.right[row] + fields, order)
        blocks = []
        for upper, lower, down in zip(halves[k], halves[(k + 1) % rows], np.split(torus.down[row], [split])):
            block, log_block = _exp_series((upper[:, None] == lower) @ down, order)
            blocks.append(block)
            logs.append(log_block)
        weights.append(weight)
        links.append((blocks[0], blocks[1]))
        logs.append(log_weight)
    return _Chain(anchor, patterns, weights, links, math.fsum(logs))


def _closings(chain: _Chain) -> Iterator[tuple[Series, float]]:
    """`G_{R-1} .. G_0` as series of `[n_k, n_0]`, each divided by a scale, with the logs of the scales."""
    order = len(chain.weights[0]) - 1
    identity = np.eye(len(chain.patterns[0]))
    closing = [identity] + [np.zeros_like(identity)] * order
    log_scale = chain.log_scale
    for weight, link in zip(reversed(chain.weights), reversed(chain.links)):
        closing = _multiply(np.multiply, [w[:, None] for w in weight], _transfer(link, closing))
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


def _exp_series(exponent: np.ndarray, order: int) -> tuple[Series, float]:
    """The series of `exp(lambda exponent)` divided by `exp(log scale)`, and the log of the scale."""
    top = float(exponent.max())
    weight = np.exp(exponent - top)
    return [weight * exponent**n / math.factorial(n) for n in range(order + 1)], top


def _multiply(product: Callable[[np.ndarray, np.ndarray], np.ndarray], a: Series, x: Series) -> Series:
    """The series of `product(a, x)`, bilinear, up to the order of `x`."""
    return [functools.reduce(np.add, [product(a[i], x[n - i]) for i in range(n + 1)]) for n in range(len(x))]


def _transfer(link: tuple[Series, Series], x: Series) -> Series:
    """The Kronecker product of the two blocks of `link` times `x: [n, c]`."""
    high, low = link
    num_high, num_columns = len(high[0]), x[0].shape[1]
    y = _multiply(lambda block, v: block @ v.reshape(block.shape[1], -1), high, x)
    z = _multiply(lambda block, v: block @ v.reshape(num_high, block.shape[1], -1), low, y)
    return [term.reshape(-1, num_columns) for term in z]
