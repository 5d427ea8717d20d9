"""Samples held against exact laws: how far off they are, and whether a test can tell.

    effect size   (mean - exact mean) / exact standard deviation, raw and weighted, whatever the number of samples
    energy        z-test of the mean energy; raw with the exact standard deviation, weighted with its standard error
    cells         chi-square of the magnetisation, or of the masses of modes, against the exact law
    sign          z-test of P(m > 0) - P(m < 0)

Raw draws are independent; weighted means have the standard error of self-normalised importance sampling, and their
cells the covariance of it (`metrics.weighted_chi_square_test`).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from scipy.special import erfc

from egmjax import metrics
from egmjax.targets import Target

NUM_TESTED = 10_000
TEST_SEED = 40_000  # draws that are tested share no key with training, with other draws, or with exact ones

Law = tuple[np.ndarray, np.ndarray]


def hold_against_laws(
    target: Target, x: Any, log_weight: np.ndarray, reference: Any = None
) -> dict[str, Any]:
    """`{"num", "effect_sizes", "sign", "p_values"}` of samples `[n, ...]`; what is not known of the target is left out.

    Each entry has `raw` and `weighted`. Where no law of an observable is known its effect size is taken from
    `reference`, exact samples, or left out; tests are against exact laws alone.
    """
    weight = np.asarray(metrics.normalized_weights(log_weight), np.float64)
    sizes: dict[str, Any] = {}
    p_values: dict[str, Any] = {}

    energies = np.asarray(jax.vmap(target.energy)(x), np.float64)
    mean, std = target.mean_energy, target.energy_std
    if mean is not None and std is not None:
        sizes["energy"] = _effect(energies, weight, mean, std)
        p_values["energy"] = _mean_test(energies, weight, mean, std)
    for name, fn in target.observables.items():
        moments = _moments(target, name, fn, reference)
        if moments is not None:
            sizes[name] = _effect(np.asarray(jax.vmap(fn)(x), np.float64), weight, *moments)

    index_and_law = _cells(target, x)
    if index_and_law is not None and index_and_law[1].size > 1:
        p_values["cells"] = _cell_test(*index_and_law, weight)
    found: dict[str, Any] = {"num": len(weight), "effect_sizes": sizes, "p_values": p_values}
    if "magnetization" in target.observables:
        m = np.asarray(jax.vmap(target.observables["magnetization"])(x), np.float64)
        up = m > 0
        found["sign"] = {"raw": float(up.mean()), "weighted": float(weight @ up)}
        balance = _balance(target)
        if balance is not None:
            found["sign"]["exact_balance"] = balance
            p_values["sign"] = _mean_test(np.sign(m), weight, balance, None)
    return found


def _effect(values: np.ndarray, weight: np.ndarray, mean: float, std: float) -> dict[str, float]:
    return {
        "raw": float(metrics.effect_size(values.mean(), mean, std)),
        "weighted": float(metrics.effect_size(float(weight @ values), mean, std)),
    }


def _mean_test(values: np.ndarray, weight: np.ndarray, mean: float, std: float | None) -> dict[str, float]:
    """Two-sided p-values; without an exact standard deviation that of the samples."""
    raw_error = (values.std(ddof=1) if std is None else std) / math.sqrt(len(values))
    error = math.sqrt(float(np.sum((weight * (values - weight @ values)) ** 2)))
    return {
        "raw": two_sided(values.mean() - mean, raw_error),
        "weighted": two_sided(float(weight @ values) - mean, error),
    }


def two_sided(difference: float, error: float) -> float:
    """`P(|N(0, error^2)| > |difference|)`; 1 where there is no difference, 0 where there is one and no error."""
    if difference == 0:
        return 1.0
    return float(erfc(abs(difference) / error / math.sqrt(2))) if error > 0 else 0.0


def _cell_test(index: np.ndarray, law: np.ndarray, weight: np.ndarray) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for kind, w in (("raw", np.ones(len(index))), ("weighted", weight)):
        try:
            found[kind] = metrics.weighted_chi_square_test(index, law, w)
        except ValueError:  # too few draws, or weights too uneven, for two cells
            found[kind] = None
    return found


def _moments(target: Target, name: str, fn: Any, reference: Any) -> tuple[float, float] | None:
    law = _law(target, name)
    if law is None and name == "abs_magnetization":
        signed = _law(target, "magnetization")
        law = None if signed is None else (np.abs(signed[0]), signed[1])
    if law is None:
        if reference is None:
            return None
        values = np.asarray(jax.vmap(fn)(reference), np.float64)
        return float(values.mean()), float(values.std())
    values, probs = law
    mean = float(probs @ values)
    return mean, math.sqrt(float(probs @ (values - mean) ** 2))


def _law(target: Target, name: str) -> Law | None:
    law = getattr(target, f"{name}_law", None)
    return None if law is None else law()


def _cells(target: Target, x: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """The cell of each sample and their exact law: values of the magnetisation, else modes."""
    law = _law(target, "magnetization")
    if law is not None:
        m = np.asarray(jax.vmap(target.observables["magnetization"])(x), np.float64)
        middles = (law[0][1:] + law[0][:-1]) / 2  # values are equally spaced: rounding does not matter
        return np.searchsorted(middles, m), np.asarray(law[1])
    if target.mode_weights is None:
        return None
    return np.asarray(jax.vmap(target.mode_index)(x)), np.asarray(target.mode_weights, np.float64)


def _balance(target: Target) -> float | None:
    """`P(m > 0) - P(m < 0)`."""
    if target.symmetric_under_flip:
        return 0.0
    law = _law(target, "magnetization")
    return None if law is None else float(law[1] @ np.sign(law[0]))


def log_z_score(log_z: dict[str, Any]) -> float | None:
    """The distance of an estimated log Z from the exact one, in its standard errors."""
    if None in (log_z["exact"], log_z["estimate"]) or not log_z["stderr"]:
        return None
    return (float(log_z["estimate"]) - log_z["exact"]) / float(log_z["stderr"])
