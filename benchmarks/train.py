"""Train a sampler from an energy and report how far its samples can be trusted.

python -m benchmarks.train TARGET [--options] --out DIR
python -m benchmarks.train --list
"""

from __future__ import annotations

import difflib
import json
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

import egmjax
from egmjax import metrics
from egmjax.plotting import plot_report
from egmjax.training import TrainState, fit, write_atomically

from .options import TARGETS, Options, check, configuration, read_configuration
from .report import FLOOR_SEED, clean, compare, table
from .runs import checkpoints, compile_roll_out, draw, weigh
from .setups import Setup, build


def main(arguments: list[str] | None = None) -> None:
    """The command; bad input ends it with one sentence and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        run = prepare(*parse(arguments))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    train(run)


def parse(arguments: list[str]) -> tuple[str, Options]:
    """The target's name and options; `--list` and `--help` end the command."""
    if not arguments or arguments[0] in ("-h", "--help", "--list"):
        print(__doc__.strip() + "\n\ntargets:")
        for name, kind in TARGETS.items():
            print(f"  {name:<14}{(kind.__doc__ or '').strip().splitlines()[0]}")
        print("\noptions of a target, with defaults and units: python -m benchmarks.train TARGET --help")
        raise SystemExit(0 if arguments else 2)
    name = arguments[0]
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, n=1, cutoff=0.0)
        raise ValueError(f"target: unknown {name!r}; did you mean {near[0]!r}? (--list shows all)")
    options = tyro.cli(TARGETS[name], args=arguments[1:], prog=f"python -m benchmarks.train {name}")
    check(options)
    return name, options


class Run(NamedTuple):
    """A run about to start or to go on."""

    name: str
    options: Options
    setup: Setup
    folder: Path
    state: TrainState


def prepare(name: str, options: Options) -> Run:
    """Builds everything that bad input can spoil: functions, folder, and the state to start from."""
    setup = build(name, options)
    folder = prepare_folder(name, options)
    store = checkpoints(folder, name, options)
    state = setup.init(options.seed)
    if options.resume and store.latest() is not None:
        state = store.restore(state)
        print(f"resuming after iteration {int(state.iteration)}")
    return Run(name, options, setup, folder, state)


def train(run: Run) -> dict[str, Any]:
    """Trains, evaluates, writes the folder, prints the report and returns it."""
    name, options, setup, folder, state = run
    result = fit(
        setup.trainer,
        state,
        options.iterations,
        checkpoints=checkpoints(folder, name, options),
        checkpoint_every=options.checkpoint_every,
        metrics_file=folder / "metrics.jsonl",
        energies_per_iteration=setup.energies_per_iteration,
        on_metrics=_progress(options.iterations),
    )
    report = evaluate(name, options, setup, result.state.ema_params, result.history, folder)
    report["seconds"] = {
        "compile": result.compile_seconds,
        "train": result.train_seconds,
        **report["seconds"],
    }
    report = clean(report)
    write_atomically(folder / "report.json", json.dumps(report, indent=1) + "\n")
    print(table(report))
    print(f"wrote {folder}/report.json, report.png, samples.npz")
    return report


def prepare_folder(name: str, options: Options) -> Path:
    """Makes the folder of a run and writes `config.json`; refuses to lose or mix up anything."""
    folder, config = options.out, configuration(name, options)
    if options.resume and options.overwrite:
        raise ValueError("resume: cannot be combined with --overwrite")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if options.resume:
            there, here = configuration(*read_configuration(folder)), json.loads(json.dumps(config))
            changed = [k for k in {**there, **here} if there.get(k) != here.get(k)]
            if changed:
                raise ValueError(
                    f"resume: {folder} holds a run of another configuration (differs in {', '.join(changed)})"
                )
        elif not options.overwrite:
            raise ValueError(f"out: {folder} exists; give --resume to go on or --overwrite to start anew")
        elif not _is_run(folder):
            raise ValueError(f"overwrite: {folder} is not the folder of a run, so it is left alone")
        else:
            shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.json").exists():
            write_atomically(folder / "config.json", json.dumps(config, indent=1) + "\n")
    except OSError as error:
        raise ValueError(f"out: cannot write to {folder} ({error.strerror})") from error
    return folder


def _is_run(folder: Path) -> bool:
    try:
        return json.loads((folder / "config.json").read_text())["target"] in TARGETS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def evaluate(
    name: str, options: Options, setup: Setup, params: Any, history: list[dict[str, float]], folder: Path
) -> dict[str, Any]:
    """Draws certified samples and holds them against what is exactly known; writes samples and picture."""
    target = setup.target
    key_draw, key_weigh, key_floor = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), 2), 3)
    started = time.perf_counter()
    x, log_weight = draw(compile_roll_out(setup), params, key_draw, options.num_samples)
    sample_seconds = time.perf_counter() - started
    summary = metrics.summarize_weights(log_weight)

    reference = target.sample(jax.random.key(FLOOR_SEED + options.seed), options.num_samples)
    forward = None
    if reference is not None:
        exact = jax.tree.map(lambda a: a[: options.num_exact], reference)
        forward = metrics.summarize_forward_weights(weigh(setup, params, key_weigh, exact))
    entries, details = compare(target, x, log_weight, reference, key_floor)

    components = {f"x{i}": a for i, a in enumerate(x)} if isinstance(x, tuple) else {"x": x}
    np.savez(folder / "samples.npz", **components, log_weight=log_weight)
    _picture(name, setup, x, log_weight, reference, history, folder)
    return {
        "target": name,
        "metrics": entries,
        **details,
        "log_z": {
            "estimate": summary.log_z,
            "stderr": summary.log_z_stderr,
            "elbo": summary.elbo,
            "eubo": None if forward is None else forward.eubo,
            "exact": target.log_z,
        },
        "ess_fraction": summary.ess_fraction,
        "forward_ess_fraction": None if forward is None else forward.ess_fraction,
        "pareto_k": summary.pareto_k,
        "largest_weight": summary.largest_weight,
        "num_nonfinite": int(summary.num_nonfinite),
        "num_samples": options.num_samples,
        "seconds": {"sample": sample_seconds},
        "energy_evaluations": options.iterations * setup.energies_per_iteration + options.num_samples,
        "config": configuration(name, options),
        "versions": {
            "egmjax": egmjax.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("jax", "jaxlib", "flax", "optax", "numpy")},
        },
    }


def _picture(
    name: str,
    setup: Setup,
    x: Any,
    log_weight: np.ndarray,
    reference: Any,
    history: list[dict[str, float]],
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
    figure = plot_report(
        states=x,
        energies=np.asarray(jax.vmap(target.energy)(x)),
        log_weight=log_weight,
        history=[{**row, "step": row["iteration"]} for row in history],
        reference_energies=None if reference is None else np.asarray(jax.vmap(target.energy)(reference)),
        energy_law=None if law is None else law(),
        observables=observables,
        exact_log_z=target.log_z,
        title=name,
    )
    figure.savefig(folder / "report.png")


def _progress(total: int) -> Any:
    """A progress bar on a terminal; elsewhere a line now and then."""
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    bar = tqdm(total=total, unit="it", disable=not sys.stderr.isatty()) if tqdm is not None else None

    def show(row: dict[str, float]) -> None:
        iteration = int(row["iteration"])
        text = f"loss {row['loss']:.3f}  ESS {row['ess_fraction']:.3f}  log Z {row['log_z']:.3f}"
        if bar is not None and not bar.disable:
            bar.update(iteration - bar.n)
            bar.set_postfix_str(text, refresh=False)
            if iteration == total:
                bar.close()
        elif iteration % max(1, total // 10) == 0 or iteration == total:
            print(f"iteration {iteration}/{total}  {row['seconds']:.0f} s  {text}", flush=True)

    return show


if __name__ == "__main__":
    main()
