"""The report of a run that learned from an energy: certified samples against what is exactly known."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from egmjax import metrics
from egmjax.plotting import plot_report
from egmjax.sharding import is_writer

from .blocks import measure_total_correlation
from .law_tests import NUM_TESTED, TEST_SEED, hold_against_laws, log_z_score
from .options import configuration, reveals_several
from .report import FLOOR_SEED, compare
from .runs import compile_roll_out, draw, save_states, weigh
from .setups import Setup, objectives_in_turn


def evaluate_energy(
    name: str, options: Any, setup: Setup, params: Any, history: Sequence[dict[str, float]], folder: Path
) -> dict[str, Any]:
    """Draws certified samples and holds them against what is exactly known; writes samples and picture.

    Of several processes all draw, and one, `is_writer`, goes on from there; the others return nothing.
    """
    target, symmetries = setup.target, getattr(options, "average", 1)
    key_draw, key_weigh, key_floor = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), 2), 3)
    started, cpu_started = time.perf_counter(), time.process_time()
    roll_out = compile_roll_out(setup)
    x, log_weight = draw(roll_out, params, key_draw, options.num_samples)
    sample_seconds = time.perf_counter() - started
    cpu_seconds = time.process_time() - cpu_started
    summary = metrics.summarize_weights(log_weight)

    reference = target.sample(jax.random.key(FLOOR_SEED + options.seed), options.num_samples)
    forward, correlation = None, None
    states, state_weight = jax.tree.map(lambda a: a[: options.num_exact], (x, log_weight))
    if reference is not None:
        states = jax.tree.map(lambda a: a[: options.num_exact], reference)
        forward = metrics.summarize_forward_weights(weigh(setup, params, key_weigh, states))
        state_weight = np.zeros(len(state_weight))
    if reveals_several(options):
        correlation = measure_total_correlation(
            setup, params, key_weigh, states, state_weight, options.sites_per_step
        )
    num_tested = min(NUM_TESTED, options.num_samples)
    # runs of one seed share their roll-outs' noise, so their tests would fail together
    which = zlib.crc32(json.dumps(configuration(name, options)).encode())
    key_test = jax.random.fold_in(jax.random.key(TEST_SEED + options.seed), which)
    started, cpu_started = time.perf_counter(), time.process_time()
    tested = draw(roll_out, params, key_test, num_tested)
    redraw = {"num": num_tested, "seconds": time.perf_counter() - started}
    redraw["cpu_seconds"] = time.process_time() - cpu_started
    if not is_writer():
        return {}
    entries, details = compare(target, x, log_weight, reference, key_floor)
    log_z = {
        "estimate": summary.log_z,
        "stderr": summary.log_z_stderr,
        "elbo": summary.elbo,
        "eubo": None if forward is None else forward.eubo,
        "exact": target.log_z,
    }

    save_states(folder / "samples.npz", x, log_weight=log_weight)
    _picture(name, options, setup, x, log_weight, reference, history, folder)
    return {
        "target": name,
        "metrics": entries,
        **details,
        "exactness": hold_against_laws(target, *tested, reference),
        "log_z": log_z | {"score": log_z_score(log_z)},
        "ess_fraction": summary.ess_fraction,
        "forward_ess_fraction": None if forward is None else forward.ess_fraction,
        "pareto_k": summary.pareto_k,
        "largest_weight": summary.largest_weight,
        "num_nonfinite": int(summary.num_nonfinite),
        "num_samples": options.num_samples,
        "symmetries": symmetries,
        "total_correlation": correlation,
        "seconds": {"sample": sample_seconds},
        "cpu_seconds": {"sample": cpu_seconds},
        "redraw": redraw,  # the program being compiled
        # the log-weight of each symmetry takes the local fields of one state
        "energy_evaluations": setup.training_energies
        + options.num_samples * (setup.energies_per_sample + symmetries * (symmetries > 1)),
    }


def _picture(
    name: str,
    options: Any,
    setup: Setup,
    x: Any,
    log_weight: np.ndarray,
    reference: Any,
    history: Sequence[dict[str, float]],
    folder: Path,
) -> None:
    target = setup.target
    observables = {
        label: (
            np.asarray(jax.vmap(fn)(x)),
            None if reference is None else np.asarray(jax.vmap(fn)(reference)),
        )
        for label, fn in target.observables.items()
    }
    law = getattr(target, "energy_law", None)
    turns = objectives_in_turn(options)

    def logged(row: dict[str, float]) -> dict[str, Any]:
        weights = next((weights for weights, until in turns if row["iteration"] <= until), turns[-1][0])
        return {**row, "step": row["iteration"], "objective": " + ".join(weights)}

    figure = plot_report(
        states=x,
        energies=np.asarray(jax.vmap(target.energy)(x)),
        log_weight=log_weight,
        history=[logged(row) for row in history],
        reference_energies=None if reference is None else np.asarray(jax.vmap(target.energy)(reference)),
        energy_law=None if law is None else law(),
        observables=observables,
        exact_log_z=target.log_z,
        title=name,
    )
    figure.savefig(folder / "report.png")
