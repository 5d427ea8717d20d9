"""The report of a run: every metric raw and weighted, beside its noise floor and the exact answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from egmjax import metrics
from egmjax.states import Real
from egmjax.targets import Target, mean_free_basis

POINTS = 2_000  # exact transport is cubic in the number of points
FLOOR_PAIRS = 4
FLOOR_SEED = 20_000  # reference samples share no key with training or evaluation

Entry = dict[str, float | None]


def compare(
    target: Target, x: Any, log_weight: np.ndarray, reference: Any, key: jax.Array
) -> tuple[dict[str, Entry], dict[str, Any]]:
    """`{name: {value, weighted, floor}}` of samples against what is exactly known, and details for a table.

    `floor` is the same metric between two independent exact sets of the same size. `reference` are exact
    samples, or `None`; a metric whose truth is unknown is left out.
    """
    weight = np.asarray(metrics.normalized_weights(log_weight), np.float64)
    num = len(weight)
    entries: dict[str, Entry] = {}

    energies = np.asarray(jax.vmap(target.energy)(x), np.float64)
    exact_energies = None if reference is None else np.asarray(jax.vmap(target.energy)(reference), np.float64)
    law = _law(target, "energy_law") or exact_energies
    if law is not None:
        entries["energy_w1"] = _w1(energies, weight, law, num)
    mean, std = target.mean_energy, target.energy_std  # seconds of quadrature for some targets: once each
    if mean is not None and std is not None:
        entries["mean_energy"] = _mean_error(energies, weight, mean, std)

    for name, fn in target.observables.items():
        law = _law(target, f"{name}_law")
        if law is None and reference is not None:
            law = np.asarray(jax.vmap(fn)(reference), np.float64)
        if law is not None:
            values = np.asarray(jax.vmap(fn)(x), np.float64)
            entries[f"{name}_w1"] = _w1(values, weight, law, num)

    details: dict[str, Any] = {}
    kind, weights = "exact", target.mode_weights
    if weights is None:  # an energy learned from data knows those of the data
        kind, weights = "data", getattr(target, "data_weights", None)
    if weights is not None:
        exact = np.asarray(weights, np.float64)
        index = np.asarray(jax.vmap(target.mode_index)(x))
        raw = metrics.histogram(index, len(exact))[: len(exact)]
        weighted = metrics.histogram(index, len(exact), weight)[: len(exact)]
        entries["mode_weights_tv"] = {
            "value": metrics.total_variation(raw, exact),
            "weighted": metrics.total_variation(weighted, exact),
            "floor": metrics.total_variation_floor(exact, num),
        }
        details["mode_weights"] = {
            "raw": raw.tolist(),
            "weighted": weighted.tolist(),
            kind: exact.tolist(),
        }

    if reference is not None and _points(target, x) is not None:
        entries |= _clouds(target, x, log_weight, reference, key)
    return entries, details


def _law(target: Target, name: str) -> Any:
    law: Callable[[], Any] | None = getattr(target, name, None)
    return None if law is None else law()


def _w1(values: np.ndarray, weight: np.ndarray, law: Any, num: int) -> Entry:
    support, probability = law if isinstance(law, tuple) else (law, None)
    return {
        "value": metrics.wasserstein1(values, support, y_weight=probability),
        "weighted": metrics.wasserstein1(values, support, weight, probability),
        "floor": metrics.wasserstein1_floor(law, num),
    }


def _mean_error(values: np.ndarray, weight: np.ndarray, mean: float, std: float) -> Entry:
    """Off by how many standard deviations of the target; two exact sets differ by sqrt(2/n) sqrt(2/pi)."""
    return {
        "value": abs(float(metrics.effect_size(values.mean(), mean, std))),
        "weighted": abs(float(metrics.effect_size(float(weight @ values), mean, std))),
        "floor": 2.0 / math.sqrt(math.pi * len(values)),
    }


def _points(target: Target, x: Any) -> Any:
    """The real coordinates of the samples, `[n, d]`, if there are any."""
    spaces, states = (target.space, x) if isinstance(target.space, tuple) else ((target.space,), (x,))
    real = [np.asarray(a).reshape(len(a), -1) for s, a in zip(spaces, states) if isinstance(s, Real)]
    return np.concatenate(real, axis=1).astype(np.float64) if real else None


def _clouds(
    target: Target, x: Any, log_weight: np.ndarray, reference: Any, key: jax.Array
) -> dict[str, Entry]:
    """Between sets of `POINTS` states: W2 of states and of energies, of particles also W1 and W2 of all distances."""
    num = min(POINTS, len(log_weight))
    key_exact, key_resample = jax.random.split(key)
    chosen = np.asarray(metrics.resample(key_resample, log_weight, num))
    resampled = jax.tree.map(lambda a: np.asarray(a)[np.minimum(chosen, len(log_weight) - 1)], x)
    fresh = [target.sample(k, num) for k in jax.random.split(key_exact, 2 * FLOOR_PAIRS)]
    sets = [
        jax.tree.map(lambda a: np.asarray(a)[:num], states) for states in (x, resampled, reference, *fresh)
    ]

    def entry(distance: Callable[[Any, Any], float], of: Callable[[Any], np.ndarray]) -> Entry:
        value, weighted, exact, *floor = [of(states) for states in sets]
        pairs = [distance(floor[i], floor[i + 1]) for i in range(0, len(floor), 2)]
        return {
            "value": distance(value, exact),
            "weighted": distance(weighted, exact),
            "floor": float(np.mean(pairs)),
        }

    entries = {
        "x_w2": entry(metrics.wasserstein2, lambda states: _points(target, states)),
        "energy_w2": entry(
            metrics.wasserstein2_1d,
            lambda states: np.asarray(jax.vmap(target.energy)(states), np.float64),
        ),
    }
    if target.num_particles is not None:
        entries["distance_w1"] = entry(metrics.wasserstein1, lambda states: _distances(target, states))
        entries["distance_w2"] = entry(metrics.wasserstein2_1d, lambda states: _distances(target, states))
    return entries


def _distances(target: Target, x: Any) -> np.ndarray:
    """Distances of all pairs of particles in all states, pooled."""
    num, points = target.num_particles, _points(target, x)
    assert num is not None
    dim = points.shape[1] // (num - 1)
    positions = (points @ mean_free_basis(num, dim).T).reshape(len(points), num, dim)
    first, second = np.triu_indices(num, 1)
    return np.linalg.norm(positions[:, first] - positions[:, second], axis=-1).ravel()


def clean(value: Any) -> Any:
    """JSON has no nan and no infinity: what is not finite becomes null."""
    if isinstance(value, dict):
        return {k: clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    if isinstance(value, (float, np.floating, jax.Array, np.ndarray)):
        return float(value) if math.isfinite(float(value)) else None
    return int(value) if isinstance(value, np.integer) else value


def table(report: dict[str, Any]) -> str:
    """The report as text."""

    def cell(value: Any) -> str:
        if not isinstance(value, float):
            return "-" if value is None else str(value)
        return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.2e}"  # columns stay apart

    log_z = report["log_z"]
    lines = [
        f"{report['target']}: {report['num_samples']} samples"
        + (", learned from the energy and from MCMC" if report["config"].get("refresh") else "")
        + (f", learned from {n} draws of the target" if (n := report["config"].get("num_reference")) else "")
        + (f", learned from {n} chains of the energy" if (n := report["config"].get("num_chains")) else ""),
        f"  {'metric':<24}{'raw':>12}{'weighted':>12}{'floor':>12}",
    ]
    for name, entry in report["metrics"].items():
        lines.append(
            f"  {name:<24}" + "".join(f"{cell(entry[k]):>12}" for k in ("value", "weighted", "floor"))
        )
    if "mode_weights" in report:
        for kind, values in report["mode_weights"].items():
            lines.append(f"  mode weights, {kind:<10}" + " ".join(f"{v:.4f}" for v in values))
    lines += [
        f"  log Z  {cell(log_z['estimate'])} +- {cell(log_z['stderr'])}   exact {cell(log_z['exact'])}"
        f"   ELBO {cell(log_z['elbo'])}   EUBO {cell(log_z['eubo'])}",
        f"  ESS  {cell(report['ess_fraction'])}   forward ESS  {cell(report['forward_ess_fraction'])}"
        f"   Pareto k  {cell(report['pareto_k'])}   largest weight  {report['largest_weight']:.2e}",
        *([f"  symmetries: {report['symmetries']}"] if report["symmetries"] > 1 else []),
        *_blocks(report["total_correlation"]),
        *_tests(report["exactness"]),
        f"  energy evaluations  {report['energy_evaluations']:.3g}   seconds  "
        + "  ".join(f"{k} {v:.1f}" for k, v in report["seconds"].items()),
    ]
    return "\n".join(lines)


def _blocks(entry: dict[str, Any] | None) -> list[str]:
    """A line on what several sites at once cost."""
    if entry is None:
        return []
    cost = f"{entry['total']:.4f} +- {entry['stderr']:.4f}"
    return [f"  total correlation  {cost} nats   network calls  {len(entry['per_step'])}"]


def _tests(exactness: dict[str, Any]) -> list[str]:
    """A line of p-values against exact laws, where there are any."""
    found = [
        f"{name} " + ", ".join("-" if entry[k] is None else f"{entry[k]:.2g}" for k in ("raw", "weighted"))
        for name, entry in exactness["p_values"].items()
    ]
    return [f"  p, {exactness['num']} fresh draws raw, weighted:  " + "   ".join(found)] if found else []
