"""Exact laws and independent draws of the Ising torus by its transfer matrix, for `L <= 12` (host numpy).

    p(r_1 .. r_L)  ~  prod_k d(r_k) V(r_k, r_{k+1}),     V(r, r') = exp(K sum_c r_c r'_c),
    d(r) = exp(K sum_c r_c r_{c+1} + B sum_c r_c),       U_1 = V,    U_{j+1} = V d U_j
    p(r_1) ~ d(r_1) U_L(r_1, r_1),    p(r_k | r_{k-1}, r_1) ~ V(r_{k-1}, r_k) d(r_k) U_{L-k+1}(r_k, r_1)

Rows are integers, bit `c` for column `c`. Only columns `r_1` up to rotation and reflection are carried (78 at
`L=10`, 224 at `L=12`), and `V` is applied as a Kronecker product of two blocks, so that nothing of size `4^L`
is ever formed. `K` and `B` may be complex: derivatives come from a complex step, the law of the total spin
from imaginary fields.
"""

from __future__ import annotations

import functools

import numpy as np

from ._ising_exact import bracelets, count_bits, unsatisfied_in_row

__all__ = ["MAX_LENGTH", "magnetization_law", "transfer_moments", "transfer_sample"]

MAX_LENGTH = 12


def _blocks(length: int, k: complex) -> tuple[np.ndarray, np.ndarray]:
    """`V` for the high and for the low half of the columns; their Kronecker product is `V`."""
    out = []
    for columns in (length - length // 2, length // 2):
        rows = np.arange(2**columns)
        out.append(np.exp(k * (columns - 2.0 * count_bits(rows[:, None] ^ rows, columns))))
    return out[0], out[1]


def _row_sums(length: int) -> tuple[np.ndarray, np.ndarray]:
    """The bond sum along the row and the spin sum of every row pattern, float64 `[2^L]` each."""
    spins = 2.0 * count_bits(np.arange(2**length), length) - length
    return length - 2.0 * unsatisfied_in_row(length), spins


def _row_weight(length: int, k: complex, b: complex) -> np.ndarray:
    bonds, spins = _row_sums(length)
    return np.exp(k * bonds + b * spins)


def _apply(high: np.ndarray, low: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`V @ x` for `x: [2^L, C]`; complex columns of a real `V` are multiplied as pairs of real ones."""
    if np.iscomplexobj(x) and not np.iscomplexobj(high):
        return _apply(high, low, np.ascontiguousarray(x).view(float)).view(complex)
    y = high @ x.reshape(high.shape[0], -1)
    return np.matmul(low, y.reshape(high.shape[0], low.shape[0], -1)).reshape(x.shape)


def _columns(length: int, k: complex, num: int, weight: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """`U_1 .. U_num` on the representative columns, each divided by a scale, and the logs of the scales."""
    high, low = _blocks(length, k)
    first, _ = bracelets(length)
    split = low.shape[0]
    u = (high[:, None, first // split] * low[None, :, first % split]).reshape(weight.size, first.size)
    us, logs = [], [0.0]
    for _ in range(num):
        scale = float(abs(u).max())
        us.append(u / scale)
        logs.append(logs[-1] + np.log(scale))
        if len(us) < num:
            u = _apply(high, low, weight[:, None] * us[-1])
    return us, logs[1:]


def _trace(length: int, k: complex, b: complex) -> tuple[complex, np.ndarray]:
    """`log Z` and the law `[C]` of the class of the first row (complex where `k` or `b` are)."""
    weight = _row_weight(length, k, b)
    first, sizes = bracelets(length)
    half = length // 2
    us, logs = _columns(length, k, length - half, weight)
    # U_L(c, c) = sum_s U_h(c, s) d(s) U_{L-h}(s, c)
    mass = sizes * weight[first] * np.einsum("sc,s,sc->c", us[half - 1], weight, us[-1])
    total = mass.sum()
    with np.errstate(divide="ignore", invalid="ignore"):  # at an imaginary field the total may vanish
        return np.log(total) + logs[half - 1] + logs[-1], mass / total


@functools.lru_cache(maxsize=128)
def transfer_moments(length: int, bond_coupling: float, site_field: float) -> tuple[float, float, float]:
    """`(log Z, mean, standard deviation)` of the energy `-K S - B M`, exact, for `3 <= length <= 12`.

    The mean of the energy is that of one row by symmetry, its variance a complex-step derivative of the mean.
    Cost: milliseconds for `length <= 8`, about a second at 12.
    """
    step = 1e-30
    log_z, law = _trace(length, bond_coupling * (1 + 1j * step), site_field * (1 + 1j * step))
    first, _ = bracelets(length)
    bonds, spins = _row_sums(length)
    row_energy = -length * (2 * bond_coupling * bonds + site_field * spins)[first]
    mean = np.sum(law * row_energy)
    return float(log_z.real), float(mean.real), float(np.sqrt(max(-mean.imag / step, 0.0)))


@functools.lru_cache(maxsize=32)
def magnetization_law(length: int, bond_coupling: float, site_field: float) -> tuple[np.ndarray, np.ndarray]:
    """The exact law of the mean spin: values `[L^2 + 1]` and probabilities, float64, to about `1e-12`.

    The inverse Fourier transform of `Z(K, B + i theta) / Z(K, B)`. Cost: `L^2 / 2` traces; under half a
    second for `length <= 10`, several at 12.
    """
    num = length**2 + 1
    theta = np.pi * np.arange(num) / num
    log_z, _ = _trace(length, bond_coupling, site_field)
    transform = np.empty(num, dtype=complex)  # sum_n p_n exp(2 i theta n), with n spins up
    for n in range(num // 2 + 1):
        shifted, _ = _trace(length, bond_coupling, site_field + 1j * theta[n])
        transform[n] = np.exp(shifted - log_z + 1j * theta[n] * length**2)
    transform[num // 2 + 1 :] = transform[1 : (num + 1) // 2][::-1].conj()
    probs = np.fft.fft(transform).real.clip(0.0) / num
    return (2.0 * np.arange(num) - length**2) / length**2, probs / probs.sum()


@functools.lru_cache(maxsize=2)
def _closing_weights(length: int, bond_coupling: float, site_field: float) -> tuple[np.ndarray, np.ndarray]:
    """The law of the class of row 1, and `d U_j` as `[L-1, C, 2^high, 2^low]`; 81 MB at `L = 12`, 6 at 10."""
    weight = _row_weight(length, bond_coupling, site_field)
    _, law = _trace(length, bond_coupling, site_field)
    us, _ = _columns(length, bond_coupling, length - 1, weight)
    split = 2 ** (length // 2)
    stacked = np.empty((length - 1, law.size, weight.size // split, split))
    for j, u in enumerate(us):
        stacked[j] = (weight[:, None] * u).T.reshape(stacked.shape[1:])
    return law, stacked


def transfer_sample(
    rng: np.random.Generator, num_samples: int, length: int, bond_coupling: float, site_field: float
) -> np.ndarray:
    """Independent exact draws, int32 `[num_samples, L * L]` with values 0 and 1, for `3 <= length <= 12`.

    The first row is drawn up to rotation and reflection, the others from their conditional laws, and the
    torus is then turned and reflected at random, which leaves its law as it is. Cost: `L 2^L` for each draw.
    """
    law, closing = _closing_weights(length, bond_coupling, site_field)
    high, low = _blocks(length, bond_coupling)
    first, _ = bracelets(length)
    low_bits = length // 2
    rows = np.empty((num_samples, length), dtype=np.int64)
    classes = _choose(rng, np.broadcast_to(law, (1, law.size)), num_samples)
    rows[:, 0] = first[classes]
    for c in np.unique(classes):
        members = np.nonzero(classes == c)[0]
        for k in range(1, length):
            weights = closing[length - 1 - k, c]
            old_high, old_low = rows[members, k - 1] >> low_bits, rows[members, k - 1] & (2**low_bits - 1)
            new_high = _choose(rng, high[old_high] * (low[old_low] @ weights.T))
            new_low = _choose(rng, weights[new_high] * low[old_low])
            rows[members, k] = (new_high << low_bits) | new_low
    shift = rng.integers(length, size=(num_samples, 1))
    direction = 2 * rng.integers(2, size=(num_samples, 1)) - 1
    columns = (shift + direction * np.arange(length)) % length
    spins = (rows[:, :, None] >> columns[:, None, :]) & 1
    return spins.astype(np.int32).reshape(num_samples, length * length)


def _choose(rng: np.random.Generator, weights: np.ndarray, num: int | None = None) -> np.ndarray:
    """One index for each row of unnormalised `weights: [n, m]`, or `num` indices from a single row."""
    cdf = np.cumsum(weights, axis=1)
    if num is not None:
        u = rng.random(num) * cdf[0, -1]
        return np.searchsorted(cdf[0, :-1], u, side="right")
    u = rng.random((weights.shape[0], 1)) * cdf[:, -1:]
    return np.sum(cdf[:, :-1] <= u, axis=1)
