"""Train a sampler from an energy or from data and report how far its samples can be trusted.

python -m benchmarks.train TARGET [--options] --out DIR
python -m benchmarks.train DATA --method METHOD [--options] --out DIR
python -m benchmarks.train --list
"""

from __future__ import annotations

import difflib
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro

import egmjax
from egmjax.sharding import is_writer
from egmjax.training import TrainState, fit, write_atomically

from . import energies
from .checks import check
from .commands import join_processes, one_sentence, prepare_folder, use_compilation_cache
from .data_report import data_table, evaluate_data
from .laws import LAWS
from .options import DATA_SETS, RUNS, TARGETS, RunOptions, configuration, read_configuration, recipe
from .report import clean, table
from .runs import build, checkpoints
from .setups import Setup
from .target_report import evaluate_energy


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """The command, which returns its report; bad input ends it with one sentence and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with one_sentence():
        learns_energy = energies.is_asked(arguments)
    if learns_energy:
        return energies.main(arguments)
    with one_sentence():
        name, options = parse(arguments)
        join_processes(options)
        run = prepare(name, options)
    return train(run)


def parse(arguments: list[str]) -> tuple[str, RunOptions]:
    """The target's name and options; `--list` and `--help` end the command."""
    if not arguments or arguments[0] in ("-h", "--help", "--list"):
        print(__doc__.strip())
        for title, runs in (("targets", TARGETS), ("data sets", DATA_SETS)):
            print(f"\n{title}:")
            for name, run in runs.items():
                print(f"  {name:<17}{(run.__doc__ or '').strip().splitlines()[0]}")
        print("\nenergies learned from data, held against the known law:")
        for name, about in LAWS.items():
            print(f"  {name:<17}{about}")
        print(
            f"  --method is one of {', '.join(energies.METHODS)}; options go with the method: --method M --help"
        )
        print(
            "\n--process chooses what is trained. Real coordinates: flow (the default), diffusion, flow+diffusion,"
            "\njump or flow+jump; symbols: mask (the default) or uniform, with --symbols where there are both."
            "\noptions of a target or data set, with defaults and units: python -m benchmarks.train TARGET --help"
        )
        raise SystemExit(0 if arguments else 2)
    name = arguments[0]
    if name not in RUNS:
        near = difflib.get_close_matches(name, [*RUNS, *LAWS], n=1, cutoff=0.0)
        raise ValueError(f"target: unknown {name!r}; did you mean {near[0]!r}? (--list shows all)")
    kind: type[RunOptions] = RUNS[name]
    prog = f"python -m benchmarks.train {name}"
    options = tyro.cli(kind, args=arguments[1:], prog=prog)
    if changes := recipe(options):
        # the same words once more, over the defaults that go with them
        defaults = kind(out=options.out, **changes)
        options = tyro.cli(kind, args=arguments[1:], prog=prog, default=defaults)
    check(options)
    return name, options


class Run(NamedTuple):
    """A run about to start or to go on."""

    name: str
    options: RunOptions
    setup: Setup
    folder: Path
    state: TrainState


def prepare(name: str, options: RunOptions) -> Run:
    """Builds everything that bad input can spoil: functions, folder, and the state to start from."""
    setup = build(name, options)
    folder = options.out
    prepare_folder(
        options,
        configuration(name, options),
        read=lambda folder: json.loads(json.dumps(configuration(*read_configuration(folder)))),
        is_run=lambda values: values.get("target") in RUNS,
    )
    store = checkpoints(folder, name, options)
    state = setup.init(options.seed)
    if options.resume and store.latest() is not None:
        state = store.restore(state)
        if is_writer():
            print(f"resuming after iteration {int(state.iteration)}")
    return Run(name, options, setup, folder, state)


def train(run: Run) -> dict[str, Any]:
    """Trains, evaluates, writes the folder, prints the report and returns it; the last three in one process."""
    name, options, setup, folder, state = run
    started, compile_seconds = time.process_time(), 0.0
    progress = _progress(options.iterations) if is_writer() else None
    for phase in setup.phases:
        result = fit(
            phase.trainer,
            state,
            phase.until,
            checkpoints=checkpoints(folder, name, options),
            checkpoint_every=options.checkpoint_every,
            metrics_file=folder / "metrics.jsonl",
            energies_per_iteration=phase.energies_per_iteration,
            energies_at_start=phase.energies_at_start,
            on_metrics=progress,
        )
        state, compile_seconds = result.state, compile_seconds + result.compile_seconds
    cpu_seconds = time.process_time() - started
    evaluate = evaluate_energy if setup.has_energy else evaluate_data
    params = jax.device_get(state.ema_params)
    report = evaluate(name, options, setup, params, result.history, folder)
    if not is_writer():
        return report
    report["seconds"] = {
        "compile": compile_seconds,
        "train": result.train_seconds,
        **report["seconds"],
    }
    # of all cores, in this process: what other work on the machine does not lengthen
    report["cpu_seconds"] = {"train": cpu_seconds, **report.get("cpu_seconds", {})}
    report = clean({**report, "config": configuration(name, options), "versions": versions()})
    write_atomically(folder / "report.json", json.dumps(report, indent=1) + "\n")
    print(table(report) if setup.has_energy else data_table(report))
    print(f"wrote {folder}/report.json, report.png, samples.npz")
    return report


def versions() -> dict[str, str]:
    """What made a report."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "egmjax": egmjax.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _progress(total: int) -> Any:
    """A progress bar on a terminal; elsewhere a line now and then."""
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    bar = tqdm(total=total, unit="it", disable=not sys.stderr.isatty()) if tqdm is not None else None

    def show(row: dict[str, float]) -> None:
        iteration = int(row["iteration"])
        text = f"loss {row['loss']:.3f}"
        if "ess_fraction" in row:
            text += f"  ESS {row['ess_fraction']:.3f}  log Z {row['log_z']:.3f}"
        if bar is not None and not bar.disable:
            bar.update(iteration - bar.n)
            bar.set_postfix_str(text, refresh=False)
            if iteration == total:
                bar.close()
        elif iteration % max(1, total // 10) == 0 or iteration == total:
            print(f"iteration {iteration}/{total}  {row['seconds']:.0f} s  {text}", flush=True)

    return show


if __name__ == "__main__":
    use_compilation_cache()
    main()
