"""Statistics that tests and seeded faults share: each returns a number that is about one, or tiny, if all is well."""

import numpy as np


def z_score(values, exact):
    """`(mean - exact) / standard error` of independent draws `[n, ...]`; the largest over trailing axes."""
    values = np.asarray(values, dtype=np.float64)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return float(np.max(np.abs(values.mean(axis=0) - exact) / np.maximum(error, 1e-300)))


def weight_score(log_w, log_z):
    """`(|mean w - Z| / stderr, stderr / Z)` for weights `exp(log_w)`; a nan or infinite weight is an error."""
    w = np.exp(np.asarray(log_w, dtype=np.float64) - log_z)
    assert np.all(np.isfinite(w)), f"{np.sum(~np.isfinite(w))} weights are not finite"
    error = w.std(ddof=1) / np.sqrt(len(w))
    return float(abs(w.mean() - 1) / max(error, 1e-7)), float(error)


def ess_fraction(log_w):
    log_w = np.asarray(log_w, dtype=np.float64)
    w = np.exp(log_w - log_w.max())
    return float(w.sum() ** 2 / (len(w) * (w**2).sum()))


def chi_square_score(index, probs):
    """`(chi^2 - df) / sqrt(2 df)` of counts of `index` against `probs`; draws where `probs` is zero give infinity.

    Cells expecting fewer than five draws are pooled.
    """
    counts = np.bincount(np.asarray(index), minlength=len(probs)).astype(float)
    probs = np.asarray(probs, dtype=np.float64)
    probs = probs / probs.sum()
    if counts[probs == 0].sum() > 0:
        return float("inf")
    expected = probs * counts.sum()
    rare = expected < 5
    expected = np.append(expected[~rare], expected[rare].sum())
    counts = np.append(counts[~rare], counts[rare].sum())
    keep = expected > 1e-9
    df = max(keep.sum() - 1, 1)
    return float((((counts - expected) ** 2)[keep] / expected[keep]).sum() - df) / np.sqrt(2 * df)


def kolmogorov_score(values, cdf):
    """`sqrt(n) sup |F_n - F|`, its law that of Kolmogorov: above 2 with probability 7e-4."""
    u = np.sort(cdf(np.asarray(values, dtype=np.float64)))
    n = len(u)
    high, low = np.arange(1, n + 1) / n - u, u - np.arange(n) / n
    return float(np.sqrt(n) * max(high.max(), low.max()))
