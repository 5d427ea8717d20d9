"""Add the exact log Z to the reports of finished runs on Potts tori that are too wide for the report itself.

python -m benchmarks.exact_log_z RUN [RUN ...]

Minutes for each model, and not for each run: a model whose log Z stands in one of the reports is not solved again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from egmjax.targets import Potts
from egmjax.training import write_atomically

from .commands import one_sentence, use_compilation_cache
from .law_tests import log_z_score
from .options import Options, read_configuration
from .setups import make_target


@dataclass(kw_only=True)
class ExactOptions:
    """Options of the command."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of finished runs."""


def main(arguments: list[str] | None = None) -> None:
    """The command; bad input ends it with one sentence and exit code 2."""
    options = tyro.cli(ExactOptions, args=arguments, prog="python -m benchmarks.exact_log_z")
    with one_sentence():
        add_exact(options.runs)


def add_exact(folders: tuple[Path, ...]) -> list[float]:
    """Solves, writes and prints; the exact log Z of each run.

    Raises `ValueError` for a folder without a report, a run that is not one of a Potts torus, and one out of reach.
    """
    read = [_read(folder) for folder in folders]
    models = [(target.length, target.num_states, target.beta) for target, _ in read]
    exact = {m: report["log_z"]["exact"] for m, (_, report) in zip(models, read) if _is_known(report)}
    for folder, model, (target, report) in zip(folders, models, read):
        if model not in exact:
            exact[model] = target.log_z_by_columns()
        found = report["log_z"]
        found["exact"] = exact[model]
        found["score"] = log_z_score(found)
        write_atomically(folder / "report.json", json.dumps(report, indent=1) + "\n")
        print(
            f"{folder}: log Z {_number(found['estimate'], 4)} +- {_number(found['stderr'], 4)}, "
            f"exact {found['exact']:.4f}, off by {_number(found['score'], 2)} standard errors",
            flush=True,
        )
    return [exact[model] for model in models]


def _number(value: float | None, digits: int) -> str:
    """What is not finite is null in a report."""
    return "-" if value is None else f"{value:.{digits}f}"


def _is_known(report: dict[str, Any]) -> bool:
    return report["log_z"]["exact"] is not None


def _read(folder: Path) -> tuple[Potts, dict[str, Any]]:
    name, options = read_configuration(folder)
    target = make_target(name, options) if isinstance(options, Options) else None
    if not isinstance(target, Potts):
        raise ValueError(f"runs: {folder} is a run of {name}, not of the Potts model")
    try:
        return target, json.loads((folder / "report.json").read_text())
    except OSError as error:
        raise ValueError(f"runs: {folder} has no report.json") from error


if __name__ == "__main__":
    use_compilation_cache()
    main()
