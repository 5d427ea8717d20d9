"""Exact laws of the Ising torus on the host (float64 numpy): Kaufman's formula and densities of states.

    Z(K) = sum_s exp(K sum_<ij> s_i s_j) = (A + B + C + D) / 2          (Kaufman 1949)
    A, B = prod over p = pi (2r+1) / L,    C, D = prod over p = 2 pi r / L     (r = 0..L-1)

A pair of momenta `+-p` contributes `lam^L (1 +- q^L)^2`, `q = s / lam`, `s = 2 sinh(2K)`,
`lam + s^2 / lam = 4 (cosh(2K)^2 - sinh(2K) cos(p))`; `p = 0` contributes `(e^2K - 1)^L +- (1 + e^-2K)^L`
and `p = pi` `(e^2K + 1)^L +- (1 - e^-2K)^L`. So every factor is an entire function of `K`,
for either sign of it, odd and even `L` and complex `K`; a Fourier transform along imaginary `K` gives the law
of the bond sum.
"""

from __future__ import annotations

import functools

import numpy as np

__all__ = [
    "bond_law",
    "bracelets",
    "count_bits",
    "density_of_states",
    "joint_law",
    "kaufman_log_z",
    "merge_atoms",
    "unsatisfied_in_row",
]


def kaufman_log_z(length: int, bond_coupling: complex | np.ndarray) -> np.ndarray:
    """`log Z` of the zero-field torus for every `K` in `bond_coupling` (any shape), complex.

    The imaginary part is meant modulo `2 pi`. Cost: `length` operations for each `K`.
    """
    k = np.asarray(bond_coupling, dtype=complex)
    odd_pairs = np.pi * (2 * np.arange(length // 2) + 1) / length
    even_pairs = 2 * np.pi * np.arange(1, (length + 1) // 2) / length
    at_zero = (np.exp(2 * k) - 1, 1 + np.exp(-2 * k))
    at_pi = (np.exp(2 * k) + 1, 1 - np.exp(-2 * k))
    odd_singles = [at_pi] if length % 2 else []
    even_singles = [at_zero] if length % 2 else [at_zero, at_pi]
    with np.errstate(divide="ignore"):  # a vanishing product, as D at the critical coupling, is exp(-inf)
        terms = []
        for sign in (1, -1):
            terms.append(_log_product(length, k, odd_pairs, odd_singles, sign))
            terms.append(_log_product(length, k, even_pairs, even_singles, sign))
    stacked = np.stack(terms)
    top = stacked.real.max(axis=0)
    return top + np.log(0.5 * np.exp(stacked - top).sum(axis=0))


def _log_product(
    length: int, k: np.ndarray, pairs: np.ndarray, singles: list[tuple[np.ndarray, np.ndarray]], sign: int
) -> np.ndarray:
    """The logarithm of one of the four products; `sign` +1 for hyperbolic cosines and -1 for sines."""
    s = 2 * np.sinh(2 * k)[..., None]
    b = 2 * (np.cosh(2 * k)[..., None] ** 2 - np.sinh(2 * k)[..., None] * np.cos(pairs))
    root = np.sqrt(b * b - s * s)
    lam = np.where(abs(b + root) >= abs(b - root), b + root, b - root)
    total = (length * np.log(lam) + 2 * np.log(1 + sign * (s / lam) ** length)).sum(axis=-1)
    for u, v in singles:
        u_leads = abs(u) >= abs(v)
        big, small = np.where(u_leads, u, v), np.where(u_leads, v, u)
        ratio = (small / big) ** length
        total = total + length * np.log(big) + np.log(np.where(u_leads, 1 + sign * ratio, sign + ratio))
    return total


@functools.lru_cache(maxsize=64)
def bond_law(length: int, bond_coupling: float) -> tuple[np.ndarray, np.ndarray]:
    """The zero-field law of `S = sum_<ij> s_i s_j`: values `[L^2 + 1]` and probabilities, float64.

    `S` takes the values `2 L^2 - 4 j`, because one flip moves it by a multiple of four. The probabilities are
    the inverse Fourier transform of `Z(K + i theta) / Z(K)`; they carry an absolute error of about `1e-13`.
    Cost: `L^3` operations.
    """
    num = length**2 + 1
    theta = 2 * np.pi * np.arange(num) / (4 * num)
    log_ratio = kaufman_log_z(length, bond_coupling + 1j * theta) - kaufman_log_z(length, bond_coupling)
    probs = np.fft.ifft(np.exp(log_ratio - 2j * length**2 * theta)).real.clip(0.0)
    return 2.0 * length**2 - 4.0 * np.arange(num), probs / probs.sum()


@functools.lru_cache(maxsize=8)
def density_of_states(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number of states for each bond sum and total spin: `(S [n], M [n], counts [n])`, exact integers.

    Rows are added one by one to integer tables of unsatisfied bonds by up spins, one for each first row up to
    rotation and reflection. Cost: `4^L` table shifts times `L` rows; a fraction of a second at `L = 5`.
    Raises `ValueError` for `length > 5`.
    """
    if length > 5:
        raise ValueError(f"length: the joint density of states is tabulated for length <= 5, got {length}")
    rows = np.arange(2**length)
    along = unsatisfied_in_row(length)
    across = count_bits(rows[:, None] ^ rows, length)
    up = count_bits(rows, length)
    total = np.zeros((2 * length**2 + 1, length**2 + 1), dtype=np.int64)
    for first, size in zip(*bracelets(length)):
        table = np.zeros((rows.size, *total.shape), dtype=np.int64)
        table[first, along[first], up[first]] = size
        for _ in range(length - 1):
            grown = np.zeros_like(table)
            for new in rows:
                for old in rows:
                    bonds = along[new] + across[old, new]
                    grown[new, bonds:, up[new] :] += table[
                        old, : total.shape[0] - bonds, : total.shape[1] - up[new]
                    ]
            table = grown
        for last in rows:
            bonds = across[last, first]
            total[bonds:] += table[last, : total.shape[0] - bonds]
    unsatisfied, ups = np.nonzero(total)
    return 2 * length**2 - 2 * unsatisfied, 2 * ups - length**2, total[unsatisfied, ups]


def joint_law(length: int, bond_coupling: float, site_field: float) -> tuple[np.ndarray, np.ndarray]:
    """The exact law of `-K S - B M` for `length <= 5`: sorted values and probabilities, float64."""
    bond_sum, spin_sum, counts = density_of_states(length)
    energies = -bond_coupling * bond_sum - site_field * spin_sum
    log_probs = np.log(counts) - energies
    probs = np.exp(log_probs - log_probs.max())
    return merge_atoms(energies, probs / probs.sum())


def merge_atoms(values: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted values, merged where equal to ten decimals, and their probabilities; empty atoms are dropped."""
    keep = probs > 0
    rounded, index = np.unique(np.round(values[keep], 10), return_inverse=True)
    first = np.full(rounded.size, np.nan)
    first[index] = values[keep]
    return first, np.bincount(index, weights=probs[keep])


def count_bits(x: np.ndarray, num_bits: int) -> np.ndarray:
    """The number of ones among the lowest `num_bits` bits."""
    return ((x[..., None] >> np.arange(num_bits)) & 1).sum(axis=-1)


def unsatisfied_in_row(length: int) -> np.ndarray:
    """The number of unequal neighbours along the ring for every row pattern, int `[2^L]`."""
    rows = np.arange(2**length)
    turned = (rows >> 1) | ((rows & 1) << (length - 1))
    return count_bits(rows ^ turned, length)


def bracelets(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Row patterns up to rotation and reflection: representatives `[C]` and sizes of classes `[C]`."""
    rows = np.arange(2**length)
    bits = (rows[:, None] >> np.arange(length)) & 1
    images = []
    for pattern in (bits, bits[:, ::-1]):
        images += [np.roll(pattern, shift, axis=1) @ (1 << np.arange(length)) for shift in range(length)]
    return np.unique(np.min(images, axis=0), return_counts=True)
