"""What a proposal is worth: the SNIS estimate of the denoiser against the exact one, at an equal number of energies.

    python -m benchmarks.micro.proposals [--length 10] [--beta 0.4407] [--num-energies 1000] [--tiny]

States `x_t` are exact samples of the Ising torus, masked; truth is `targets.exact_denoiser`, by transfer matrix. For
each proposal and each `t`, over the masked sites of all states and over repetitions:

    RMSE       of F_hat = P_hat(x_i = 1 | x_t)
    bias       mean of (F_hat - F) sign(F - 1/2): negative where the estimate is too undecided; +- its standard error
    ESS        of the weights, mean
    psi RMSE   of psi_hat(x_t), whose exact value is the log-mean of exp(-E) over completions
    flat       RMSE of the flat proposal over that of this one

Energies are counted honestly: local fields of all sites count as one, and annealing pays one for each temperature
and one in the estimator. The model is trained here, from the energy alone; its cost is printed apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from egmjax.estimators import psi_from_energy, snis
from egmjax.paths import MaskedPath
from egmjax.processes import MaskedProcess
from egmjax.proposals import (
    Proposal,
    annealed,
    defensive_mixture,
    from_density,
    model_density,
    model_rollout,
    reference_density,
    reference_posterior,
)
from egmjax.simulators import first_hitting_sampler, grid_sampler, time_grid
from egmjax.targets import Ising, exact_denoiser
from egmjax.training import fit

from ..options import IsingOptions, with_recipe
from ..runs import build


@dataclass(kw_only=True)
class ProposalOptions:
    """Options of the study."""

    length: int = 10
    """Side of the Ising torus; up to 12, for the exact answers."""
    beta: float = 0.4407
    """Inverse temperature."""
    num_energies: int = 1_000
    """Energy evaluations for each estimate, whatever the proposal."""
    times: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    """Times t of the states, which is the expected fraction of known sites."""
    num_states: int = 12
    """States at each time."""
    repeats: int = 4
    """Estimates for each state."""
    rollout_repeats: int = 1
    """Estimates for each state by roll-outs, which cost up to one network call a site and a proposal."""
    num_temperatures: tuple[int, ...] = (10, 100, 300)
    """Temperatures of the annealed proposals."""
    refresh: float = 0.1
    """Fraction of the masked sites that one move of the annealed proposals draws anew."""
    flat_share: float = 0.1
    """Share of the flat proposal in the defensive mixture."""
    num_steps: int = 20
    """Steps of the roll-out that reveals several sites at once."""
    train_iterations: int = 150
    """Training iterations of the model."""
    width: int = 32
    """Channels of its network, one layer deep."""
    seed: int = 0
    """Seed of all randomness."""
    tiny: bool = False
    """A run of seconds that shows every row and measures nothing: a small torus, few states, a model hardly trained."""


TINY = {
    "length": 4,
    "num_energies": 48,
    "num_states": 2,
    "repeats": 2,
    "num_temperatures": (3,),
    "num_steps": 4,
    "train_iterations": 2,
    "width": 4,
    "times": (0.3, 0.7),
}


class Candidate(NamedTuple):
    """A proposal, the energies one draw costs in all, and how to use it."""

    name: str
    proposal: Proposal
    cost: int = 1
    one_site: bool = False
    is_trained: bool = False
    is_rollout: bool = False


class Row(NamedTuple):
    """A line of the table; see the module docstring."""

    name: str
    t: float
    num_energies: int
    rmse: float
    bias: float
    bias_error: float
    ess: float
    psi_rmse: float
    ratio: float


class Training(NamedTuple):
    """What the model cost and is worth: its seconds with compilation, its energies, the ESS of its last roll-outs."""

    seconds: float
    num_energies: int
    ess_fraction: float


def main(args: Sequence[str] | None = None) -> list[Row]:
    """Prints the tables and returns their rows."""
    options = tyro.cli(ProposalOptions, prog="python -m benchmarks.micro.proposals", args=args)
    if options.tiny:
        options = dataclasses.replace(options, **TINY)  # type: ignore[arg-type]
    process, predict_fn, training = train(options)
    rows = study(options, process, predict_fn)
    print(
        f"{options.length}x{options.length} Ising, beta {options.beta}, {options.num_energies} energies for each of "
        f"{options.num_states} states, {options.repeats} estimates ({options.rollout_repeats} by roll-outs)"
    )
    print(
        f"model (rows with *): {training.seconds:.0f} s and {training.num_energies:.3g} energies of training, "
        f"ESS {training.ess_fraction:.2f} of its roll-outs from the prior"
    )
    header = ("", "energies", "RMSE", "bias", "ESS", "psi RMSE", "flat")
    for t in options.times:
        print(f"\nt = {t}")
        print(
            f"{header[0]:<34}{header[1]:>9}{header[2]:>8}{header[3]:>20}{header[4]:>8}{header[5]:>10}{header[6]:>7}"
        )
        for row in rows:
            if row.t == t:
                bias = f"{row.bias:+.4f} +- {row.bias_error:.4f}"
                print(
                    f"{row.name:<34}{row.num_energies:>9}{row.rmse:>8.4f}{bias:>20}{row.ess:>8.1f}"
                    f"{row.psi_rmse:>10.3f}{row.ratio:>7.1f}"
                )
    return rows


def train(options: ProposalOptions) -> tuple[MaskedProcess, Any, Training]:
    """The model: weighted objective, random order, one layer that couples all sites and is odd under a flip."""
    recipe = with_recipe(
        IsingOptions(out=Path()),
        objective="weighted",
        length=options.length,
        beta=options.beta,
        iterations=options.train_iterations,
        num_rollouts=128,
        batch_size=256,
        updates_per_iteration=16,
        learning_rate=4e-3,
        temper_fraction=0.5,
        width=options.width,
        depth=1,
        seed=options.seed,
    )
    setup = build("ising", recipe)
    result = fit(setup.phases[0].trainer, setup.init(options.seed), recipe.iterations)
    last = [row["ess_fraction"] for row in result.history[-10:]]
    training = Training(
        result.compile_seconds + result.train_seconds,
        setup.training_energies,
        float(np.mean(last)),
    )
    assert isinstance(setup.process, MaskedProcess)
    return setup.process, setup.predictor(result.state.ema_params), training


def candidates(
    options: ProposalOptions, target: Ising, process: MaskedProcess, predict_fn: Any
) -> list[Candidate]:
    """What is compared, the flat proposal first."""
    path = process.path
    model = model_density(process, predict_fn)
    share = options.flat_share
    defensive = defensive_mixture((model, reference_density(path)), (1.0 - share, share))
    psi_fn = psi_from_energy(target.energy, path)
    rollout = model_rollout(first_hitting_sampler(process), predict_fn)
    quick = model_rollout(grid_sampler(process, time_grid(options.num_steps)), predict_fn)
    by_annealing = [
        Candidate(
            f"annealed, {n} temperatures",
            annealed(path, psi_fn, num_temperatures=n, refresh=options.refresh),
            n + 1,
        )
        for n in options.num_temperatures
        if n + 1 <= options.num_energies
    ]
    flat = reference_posterior(path)
    return [
        Candidate("flat", flat),
        Candidate("flat, antithetic", reference_posterior(path, antithetic=True)),
        Candidate("flat, one-site conditionals", flat, 2, one_site=True),
        *by_annealing,
        Candidate("model*", from_density(path, model), is_trained=True),
        Candidate("model and flat*", from_density(path, defensive), is_trained=True),
        Candidate(f"roll-out in {options.num_steps} steps*", quick, is_trained=True, is_rollout=True),
        Candidate("roll-out site by site*", rollout, is_trained=True, is_rollout=True),
        Candidate("the same, one-site conditionals*", rollout, 2, True, True, True),
    ]


class Problem(NamedTuple):
    """States `xt [n, sites]` at time `t`, their exact psi `[n]` and the laws of their sites `[n, sites, S]`."""

    t: float
    xt: jax.Array
    psi: np.ndarray
    probs: np.ndarray


def exact_problems(
    target: Ising,
    path: MaskedPath,
    times: Sequence[float],
    num_states: int,
    key_states: jax.Array,
    key_masks: jax.Array,
) -> list[Problem]:
    """For each time exact samples of the target, masked, and the truth by transfer matrix."""
    problems = []
    for i, t in enumerate(times):
        x1 = target.sample(jax.random.fold_in(key_states, i), num_states)
        keys = jax.random.split(jax.random.fold_in(key_masks, i), num_states)
        xt = jax.vmap(lambda k, x: path.sample(k, x, t))(keys, x1)  # noqa: B023
        psi, probs = zip(*(exact_denoiser(target, x) for x in np.asarray(xt)))
        problems.append(Problem(t, xt, np.array(psi), np.stack(probs)))
    return problems


def study(options: ProposalOptions, process: MaskedProcess, predict_fn: Any) -> list[Row]:
    """All rows, times within candidates: each candidate compiles once."""
    target, path = Ising(length=options.length, beta=options.beta), process.path
    psi_fn = psi_from_energy(target.energy, path)
    key_states, key_masks, key_estimates = jax.random.split(jax.random.key(options.seed), 3)
    problems = exact_problems(target, path, options.times, options.num_states, key_states, key_masks)

    def row(candidate: Candidate) -> list[Row]:
        num = options.num_energies // candidate.cost
        repeats = options.rollout_repeats if candidate.is_rollout else options.repeats

        def one(arguments: tuple) -> tuple:
            key, x, t = arguments
            result = snis(
                key,
                x,
                t,
                process=process,
                proposal=candidate.proposal,
                psi_fn=psi_fn,
                num_proposals=num,
                site_logits_fn=(lambda y: -target.site_energies(y)) if candidate.one_site else None,
            )
            return result.target[:, 1], result.log_normalizer, result.info.ess

        estimate = jax.jit(
            lambda arguments: jax.lax.map(one, arguments, batch_size=min(16, len(arguments[0])))
        )
        rows = []
        for i, (t, xt, psi, laws) in enumerate(problems):
            probs = laws[..., 1]
            keys = jax.random.split(jax.random.fold_in(key_estimates, i), repeats * len(xt))
            arguments = (keys, np.tile(xt, (repeats, 1)), np.full(len(keys), t, np.float32))
            values = (np.asarray(a, np.float64) for a in estimate(arguments))
            found, log_mean, ess = (a.reshape(repeats, len(xt), *a.shape[1:]) for a in values)
            is_masked = np.asarray(xt) == path.mask
            error = np.where(is_masked, found - probs, 0.0)
            num_masked = np.maximum(is_masked.sum(-1), 1)
            toward = (error * np.sign(probs - 0.5)).sum(-1).mean(0) / num_masked  # one for each state
            rmse = np.sqrt(np.mean((error**2).sum(-1) / num_masked))
            rows.append(
                Row(
                    candidate.name,
                    t,
                    num * candidate.cost,
                    float(rmse),
                    float(toward.mean()),
                    float(toward.std(ddof=1) / np.sqrt(len(toward))),
                    float(ess.mean()),
                    float(np.sqrt(np.mean((log_mean - psi) ** 2))),
                    float("nan"),
                )
            )
        return rows

    table = [row(candidate) for candidate in candidates(options, target, process, predict_fn)]
    return [
        r._replace(ratio=flat.rmse / max(r.rmse, 1e-12)) for rows in table for flat, r in zip(table[0], rows)
    ]


if __name__ == "__main__":
    main()
