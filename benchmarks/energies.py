"""The part of `benchmarks.train` that learns energies from data: which options go with a law and a method.

    python -m benchmarks.train two-modes --dim 2 --method diffclf --out runs/ebm

Levels of noise (`ebm`): dsm, tsm, diffclf, move-nce. Maximum likelihood (`likelihood`): balanced-mle, pcd, cd, flow.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import tyro

from . import ebm, likelihood
from .commands import one_sentence
from .energy_runs import prepare_energy_run
from .laws import LAWS
from .options import RUNS

OF_LEVELS = ("diffclf", "dsm", "tsm", "move-nce")
OF_LIKELIHOOD = ("balanced-mle", "pcd", "pcd-mala", "pcd-ula", "cd", "flow")
METHODS = (*OF_LEVELS, *OF_LIKELIHOOD)
FLAG = "--method"
MANY_DIMENSIONS = 16

_FLOW_OF_DIGITS = {"dim": 64, "warm_updates": 600, "flow_layers": 12, "flow_width": 128, "num_eval": 20_000}


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether an energy is to be learned: a law that is nothing else, or a method. Raises `ValueError` for a method of
    anything but a law.
    """
    name, has_method = next(iter(arguments), ""), method_of(arguments) is not None
    if has_method and name in RUNS and name not in LAWS:
        raise ValueError(f"method: {name} has none; energies are learned of {', '.join(LAWS)}")
    return name in LAWS and (has_method or name not in RUNS)


def method_of(arguments: Sequence[str]) -> str | None:
    """What follows the last `--method`; `None` without one."""
    found = None
    for i, word in enumerate(arguments):
        if word.startswith(f"{FLAG}="):
            found = word.removeprefix(f"{FLAG}=")
        elif word == FLAG:
            found = arguments[i + 1] if i + 1 < len(arguments) else ""
    return found


def recipe(name: str, method: str, dim: int) -> dict[str, Any]:
    """Defaults that go with a law, a method and a dimension."""
    if name != "digits-skewed":
        if method not in OF_LEVELS:
            return {}
        # distant levels are told apart at a glance in many dimensions, details are found by layers alone in few
        local = {"pick": "local", "width": 96, "num_updates": 24_000} if dim >= MANY_DIMENSIONS else {}
        fine = {"num_frequencies": 64} if name in ("forty-modes", "rings") and dim == 2 else {}
        return {**local, **fine}
    if method in OF_LEVELS:
        # 32 levels a tenth to ten times the data's scale: their neighbours are 1.7 / sqrt(2 d) apart in log noise
        return {
            **_FLOW_OF_DIGITS,
            "num_levels": 32,
            "noise_min": 0.1,
            "pick": "local",
            "width": 128,
        }
    few = {**_FLOW_OF_DIGITS, "num_local": 2, "num_candidates": 4}
    if method == "balanced-mle":
        return {**few, "base": "flow", "num_updates": 400, "data_share": 0.5}
    if method == "flow":
        return {**few, "num_updates": 600, "warm_updates": 0}
    return {**few, "num_local": 5, "num_eval": 1_000, "num_annealed": 150}


def parse(arguments: Sequence[str]) -> tuple[Any, Any]:
    """The module that runs the `arguments`, a law and options, and the options. Raises `ValueError` for bad ones."""
    name, *words = arguments
    method = method_of(words)
    if method is None:
        method = "balanced-mle" if name in ("four-modes", "digits-skewed") else "diffclf"
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1, cutoff=0.0)
        raise ValueError(f"method: unknown {method!r}; did you mean {near[0]!r}? ({', '.join(METHODS)})")
    module: Any = ebm if method in OF_LEVELS else likelihood
    kind: Any = ebm.EnergyOptions if method in OF_LEVELS else likelihood.LikelihoodOptions

    def options_over(defaults: dict[str, Any]) -> Any:
        return tyro.cli(
            kind,
            args=words,
            prog=f"python -m benchmarks.train {name}",
            description=f"{LAWS[name]} These are the options of {FLAG} {method}; further ones go with other methods "
            f"({', '.join(METHODS)}): give {FLAG} M --help.",
            default=kind(out=tyro.MISSING, target=name, method=method, **defaults),
        )

    usual = recipe(name, method, kind.dim)
    options = options_over(usual)
    if (defaults := recipe(name, method, options.dim)) != usual:
        options = options_over(defaults)  # the same words once more, over what goes with their dimension
    module.check(options)
    return module, options


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Learns an energy, `arguments[0]` being its law; bad input ends it with one sentence and exit code 2."""
    with one_sentence():
        module, options = parse(arguments)
        setup = module.build(options)
        prepare_energy_run(options)
    return module.run(options, setup)
