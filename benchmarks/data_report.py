"""The report of a run that learned from data: samples against held-out rows, each metric beside its floor.

The floor is the same metric between training rows and the same held-out rows. Nothing here sees a held-out row before
training is over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from egmjax import metrics
from egmjax.plotting import plot_data_report
from egmjax.sharding import is_writer
from egmjax.states import Categorical, Real, Space

from .baselines import gaussian_copula, independent_modalities
from .data_sets import DataSet, take
from .options import DataOptions
from .runs import compile_roll_out, draw, save_states, weigh
from .setups import Setup

KERNEL_ROWS = 2_000  # the kernel distance is quadratic in the number of rows

Entry = dict[str, float | None]


def evaluate_data(
    name: str, options: Any, setup: Setup, params: Any, history: Sequence[dict[str, float]], folder: Path
) -> dict[str, Any]:
    """Draws samples and holds them against held-out rows; writes samples and picture.

    Of several processes all draw, and one, `is_writer`, goes on from there; the others return nothing.
    """
    assert isinstance(options, DataOptions)
    data: DataSet = setup.target
    key_draw, key_weigh = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), 2))
    started = time.perf_counter()
    x, _ = draw(compile_roll_out(setup), params, key_draw, options.num_samples)
    sample_seconds = time.perf_counter() - started
    started = time.perf_counter()
    bound = bits_per_dim(setup, params, key_weigh, options.num_bound)
    bound_seconds = time.perf_counter() - started
    if not is_writer():
        return {}
    num_nonfinite = _num_nonfinite(x)
    save_states(folder / "samples.npz", x)

    rng = np.random.default_rng(options.seed)
    train = take(data.train, rng.permutation(_num_rows(data.train))[: _num_rows(data.test)])
    sets = {"samples": x, "floor": train}
    if data.encoder is not None:
        num = options.num_samples
        sets["gaussian_copula"] = gaussian_copula(data.train, num, options.seed)
        sets["independent"] = independent_modalities(data.train, num, options.seed)
    test = data.features(data.test)
    values = {
        label: compare(data.features(_finite(rows)), test, options.seed) for label, rows in sets.items()
    }
    entries = {
        metric: {
            "value": value,
            "stderr": stderr,
            "floor": values["floor"][metric][0],
            **{label: values[label][metric][0] for label in sets if label not in ("samples", "floor")},
        }
        for metric, (value, stderr) in values["samples"].items()
    }
    entries["bits_per_dim"] = bound
    nearest = metrics.nearest_distance(data.features(_finite(x)), data.features(data.train), test)
    exact = compare_exact(data, x) if data.exact is not None else None
    figure = plot_data_report(
        states=x,
        reference=data.test,
        history=history,
        metrics=entries,
        title=name,
        are_images=data.are_images,
    )
    figure.savefig(folder / "report.png")
    return {
        "target": name,
        "metrics": entries,
        "nearest_distance": {
            "samples": nearest.median,
            "held_out": nearest.held_out_median,
            "closer": nearest.closer.value,
            "closer_stderr": nearest.closer.stderr,
            "copies": nearest.copies,
            "held_out_copies": nearest.held_out_copies,
        },
        **({} if exact is None else {"exact": exact}),
        "num_samples": options.num_samples,
        "num_train": _num_rows(data.train),
        "num_test": _num_rows(data.test),
        "num_nonfinite": num_nonfinite,
        "seconds": {"sample": sample_seconds, "bound": bound_seconds},
    }


def compare(x: np.ndarray, test: np.ndarray, seed: int) -> dict[str, tuple[float, float | None]]:
    """`{metric: (value, standard error)}` of features `x` against held-out ones, as many rows of each."""
    num = min(len(x), len(test))
    x, test = x[:num], test[:num]
    kernel = metrics.kernel_distance(x[:KERNEL_ROWS], test[:KERNEL_ROWS], kernel="rbf")
    auc = metrics.two_sample_auc(x, test, seed=seed)
    linear = metrics.two_sample_auc(x, test, classifier="logistic", seed=seed)
    return {
        "frechet": (metrics.frechet_distance(x, test), None),
        "kernel_distance": (kernel.value, kernel.stderr),
        "two_sample_auc": (auc.value, auc.stderr),
        "two_sample_auc_logistic": (linear.value, linear.stderr),
    }


def bits_per_dim(setup: Setup, params: Any, key: jax.Array, num: int) -> Entry:
    """Mean bound on `-log2 q(x) / dim` over held-out rows, and over as many training rows as its floor.

    Of an encoded state: scores for numbers, so it may be negative. One draw of the backward chain for each row.
    """
    data: DataSet = setup.target
    dim = dimension(data.space)

    def bits(rows: Any, key: jax.Array) -> np.ndarray:
        return weigh(setup, params, key, rows) / (dim * math.log(2.0))

    held_out, seen = (
        bits(take(rows, slice(num)), k) for rows, k in zip((data.test, data.train), jax.random.split(key))
    )
    return {
        "value": float(held_out.mean()),
        "stderr": float(held_out.std(ddof=1) / math.sqrt(len(held_out))) if len(held_out) > 1 else None,
        "floor": float(seen.mean()),
    }


def compare_exact(data: DataSet, x: Any) -> dict[str, Entry]:
    """Means of samples beside exact ones, in standard errors of samples and training rows together.

    A model of `n` training rows cannot know a mean better than `std / sqrt(n)`.
    """
    assert data.encoder is not None
    assert data.exact is not None
    columns = data.encoder.decode(x)
    share = 1.0 / _num_rows(x) + 1.0 / _num_rows(data.train)
    rows: dict[str, Entry] = {}
    for name, known in data.exact.items():
        value, stderr = float(np.mean(known.fn(columns))), known.std * math.sqrt(share)
        rows[name] = {
            "value": value,
            "exact": known.value,
            "stderr": stderr,
            "z": (value - known.value) / stderr,
        }
    return rows


def dimension(space: Space) -> int:
    """Numbers and symbols of a state."""
    match space:
        case Real(shape):
            return math.prod(shape)
        case Categorical(sites, _):
            return sites
    return sum(map(dimension, space))


def data_table(report: dict[str, Any]) -> str:
    """The report as text."""

    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:.4f}"

    kinds = list(next(iter(report["metrics"].values())))
    lines = [
        f"{report['target']}: {report['num_samples']} samples, {report['num_train']} training and "
        f"{report['num_test']} held-out rows",
        f"  {'metric':<26}" + "".join(f"{kind:>17}" for kind in kinds),
    ]
    for name, entry in report["metrics"].items():
        lines.append(f"  {name:<26}" + "".join(f"{cell(entry.get(kind)):>17}" for kind in kinds))
    near = report["nearest_distance"]
    lines.append(
        f"  nearest training row: {cell(near['samples'])}, of held-out rows {cell(near['held_out'])}; "
        f"P(nearer) {cell(near['closer'])} +- {cell(near['closer_stderr'])}; "
        f"copies {cell(near['copies'])}, held out {cell(near['held_out_copies'])}"
    )
    if "exact" in report:
        worst, row = max(report["exact"].items(), key=lambda item: abs(item[1]["z"]))
        square = np.mean([r["z"] ** 2 for r in report["exact"].values()])
        lines.append(
            f"  exact moments: {len(report['exact'])}, mean square {square:.2f} standard errors, largest {worst} "
            f"{cell(row['value'])} for {cell(row['exact'])}, z {row['z']:.2f}"
        )
    lines.append("  seconds  " + "  ".join(f"{k} {v:.1f}" for k, v in report["seconds"].items()))
    return "\n".join(lines)


def _num_rows(x: Any) -> int:
    return len(jax.tree.leaves(x)[0])


def _is_finite(x: Any) -> np.ndarray:
    return np.all([np.isfinite(a).reshape(len(a), -1).all(axis=1) for a in jax.tree.leaves(x)], axis=0)


def _num_nonfinite(x: Any) -> int:
    return int(np.sum(~_is_finite(x)))


def _finite(x: Any) -> Any:
    """Rows that are finite; the others are counted in the report."""
    return take(x, _is_finite(x))
