"""Two ways to learn the noised energy that a bootstrapped sampler needs, at an equal number of energies.

    python -m benchmarks.micro.noised_energy [--length 10] [--beta 0.4407] [--iterations 120] [--tiny]

`--objective bootstrap` of the Ising torus by a masked path, with psi learned by regression on estimates of it (64
proposals a state) or by contrast of moves (own weighted samples, no proposals): the second has energies to spare, so it
runs for more iterations. Truth is `targets.exact_denoiser`, by transfer matrix, at exact samples masked to `t`:

    bias    mean of psi_theta - psi: proposals at one time have weights that do not depend on it
    spread  standard deviation of psi_theta - psi over states: the log-density error
    ESS     of the sampler's weights at fresh roll-outs, as a fraction
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from egmjax.metrics import summarize_weights
from egmjax.paths import MaskedPath
from egmjax.training import fit

from ..options import IsingOptions, with_recipe
from ..runs import build, compile_roll_out, draw
from ..setups import Setup
from .proposals import Problem, exact_problems

NoisedEnergy = Literal["regression", "contrast"]


@dataclass(kw_only=True)
class StudyOptions:
    """Options of the study."""

    length: int = 10
    """Side of the Ising torus; up to 12, for the exact answers."""
    beta: float = 0.4407
    """Inverse temperature."""
    iterations: int = 120
    """Training iterations of the regression; the contrast has as many as cost the same number of energies."""
    num_proposals: int = 64
    """Of the bootstrapped estimates."""
    steps: tuple[float, ...] = (0.2, 0.05)
    """Steps r - t; both ways are trained with each."""
    times: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Times t of the states, which is the expected fraction of known sites."""
    num_states: int = 100
    """States at each time."""
    num_samples: int = 2_000
    """Roll-outs for the ESS."""
    seed: int = 0
    """Seed of all randomness."""
    tiny: bool = False
    """A run of seconds that measures nothing."""


TINY = {
    "length": 3,
    "iterations": 8,
    "num_proposals": 4,
    "steps": (0.2,),
    "times": (0.3,),
    "num_states": 3,
    "num_samples": 20,
}


class Row(NamedTuple):
    """One trained model; `bias` and `spread` at each time."""

    noised_energy: str
    step: float
    iterations: int
    num_energies: int
    seconds: float
    ess_fraction: float
    bias: list[float]
    spread: list[float]


def main(args: Sequence[str] | None = None) -> list[Row]:
    """Prints the table and returns its rows."""
    options = tyro.cli(StudyOptions, prog="python -m benchmarks.micro.noised_energy", args=args)
    if options.tiny:
        options = dataclasses.replace(options, **TINY)  # type: ignore[arg-type]
    print(f"{options.length}x{options.length} Ising, beta {options.beta}; bias and spread of psi at each t")
    times = "".join(f"{t:>16}" for t in options.times)
    print(f"{'':<12}{'step':>6}{'iterations':>12}{'energies':>10}{'seconds':>9}{'ESS':>8}{times}", flush=True)
    rows: list[Row] = []
    problems: list[Problem] | None = None
    for step in options.steps:
        for how in ("regression", "contrast"):
            setup, num = compose(options, how, step)
            if problems is None:
                keys = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), 1))
                path = setup.process.path
                assert isinstance(path, MaskedPath)
                problems = exact_problems(setup.target, path, options.times, options.num_states, *keys)
            rows.append(row(options, how, step, setup, num, problems))
            print(text(rows[-1]), flush=True)
    return rows


def compose(options: StudyOptions, how: NoisedEnergy, step: float) -> tuple[Setup, int]:
    """The run and its number of iterations."""

    def recipe(how: NoisedEnergy, iterations: int) -> Setup:
        return build(
            "ising",
            with_recipe(
                IsingOptions(out=Path()),
                length=options.length,
                beta=options.beta,
                iterations=iterations,
                objective="bootstrap",
                noised_energy=how,
                num_bootstrap_proposals=options.num_proposals,
                bootstrap_step=step,
                batch_size=256,
                depth=1,
                seed=options.seed,
            ),
        )

    budget = options.iterations * recipe("regression", 1).training_energies
    num = max(1, budget // recipe(how, 1).training_energies)
    return recipe(how, num), num


def row(
    options: StudyOptions, how: NoisedEnergy, step: float, setup: Setup, num: int, problems: list[Problem]
) -> Row:
    """Trains and evaluates one model."""
    assert setup.noised_energy_fn is not None
    psi_fn = setup.noised_energy_fn
    result = fit(setup.phases[0].trainer, setup.init(options.seed), num)
    params = result.state.ema_params
    learned = jax.jit(jax.vmap(lambda x, t: psi_fn(params, x, t), (0, None)))
    errors = [np.asarray(learned(xt, jnp.float32(t)), np.float64) - psi for t, xt, psi, _ in problems]
    key = jax.random.fold_in(jax.random.key(options.seed), 2)
    _, log_weight = draw(compile_roll_out(setup), params, key, options.num_samples)
    return Row(
        how,
        step,
        num,
        setup.training_energies,
        result.compile_seconds + result.train_seconds,
        float(summarize_weights(jnp.asarray(log_weight)).ess_fraction),
        [float(e.mean()) for e in errors],
        [float(e.std(ddof=1)) for e in errors],
    )


def text(row: Row) -> str:
    """A line of the table."""
    errors = "".join(f"{b:>+9.2f} {s:>6.3f}" for b, s in zip(row.bias, row.spread))
    return (
        f"{row.noised_energy:<12}{row.step:>6}{row.iterations:>12}{row.num_energies:>10.2g}{row.seconds:>9.0f}"
        f"{row.ess_fraction:>8.4f}{errors}"
    )


if __name__ == "__main__":
    main()
