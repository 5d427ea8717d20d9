"""Exact chains whose proposals are the roll-outs of a trained sampler.

    independence Metropolis    one roll-out a move, accepted with probability min(1, w' / w)
    i-SIR                      one of N candidates, N - 1 of them fresh, drawn in proportion to their weights

The weights are those of whole paths, so a chain lives on pairs of a state and its path; the path of the state held is
drawn anew from the backward chain before each move, an exact Gibbs step (see `ebm.PathProposal`), which leaves the
target as the law of the state and lets local moves of the target, Gibbs sweeps or Langevin steps, come in between.
However wrong the sampler is, its chains are right in the limit; how slowly they get there is what the report says.
"""

from __future__ import annotations

import time
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from egmjax import ebm
from egmjax.mcmc import refreshing_moves

from .chain_report import summarize_series
from .runs import LoadedRun
from .setups import energies_of_a_move

Kind = Literal["metropolis", "i-sir"]


class ChainPlan(NamedTuple):
    """What chains to run; see the options of `python -m benchmarks.sample`."""

    kind: Kind
    num_chains: int
    num_steps: int
    burn_in: int
    candidates: int
    local_moves: int
    local_step: float


def check_plan(plan: ChainPlan) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    least = {"num_chains": 2, "num_steps": 4, "burn_in": 0, "candidates": 2, "local_moves": 0}
    for name, bound in least.items():
        if getattr(plan, name) < bound:
            raise ValueError(f"{name}: at least {bound}, got {getattr(plan, name)}")
    if not 0 < plan.local_step < np.inf:
        raise ValueError(f"local_step: must be positive and finite, got {plan.local_step}")


def run_exact_chains(run: LoadedRun, key: jax.Array, plan: ChainPlan) -> tuple[Any, dict[str, Any]]:
    """States `[num_chains, num_steps, ...]` and their report. Raises `ValueError` where the run has no energy
    or its network is not of float32.

    Each chain starts from a roll-out. Cost of a move: `candidates - 1` roll-outs (one for Metropolis), a backward chain
    and as many energies; of a local one, that of the kernel.
    """
    setup = run.setup
    if not setup.has_energy:
        raise ValueError("chains: a run that learned from data has no energy to accept by")
    if run.options.dtype != "float32":
        raise ValueError("chains: paths are drawn and weighed by two programs, which in bfloat16 differ")
    target, path = setup.sampled, setup.process.path
    local = (
        refreshing_moves(target.space, num_steps=plan.local_moves, step_size=plan.local_step)
        if plan.local_moves
        else None
    )

    def log_density(x: Any) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return -target.energy(x)

    @jax.jit
    def sample(params: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        proposal = ebm.rollout_proposal(setup.sampler, path, setup.predictor(params))
        is_metropolis = plan.kind == "metropolis"
        move = (
            ebm.independence_metropolis(proposal) if is_metropolis else ebm.i_sir(proposal, plan.candidates)
        )

        def step(x: Any, key: jax.Array) -> tuple[Any, tuple[Any, jax.Array]]:
            key_global, key_local = jax.random.split(key)
            x, info = move(key_global, x, log_density)
            if local is not None:
                x = local(key_local, x, log_density)
            return x, (x, info.acceptance)

        def chain(key: jax.Array) -> tuple[Any, jax.Array]:
            key_start, key_run = jax.random.split(key)
            keys = jax.random.split(key_run, plan.burn_in + plan.num_steps)
            _, kept = jax.lax.scan(step, proposal.sample(key_start)[0], keys)
            return jax.tree.map(lambda a: a[plan.burn_in :], kept)

        x, acceptance = jax.vmap(chain)(jax.random.split(key, plan.num_chains))
        keys = jax.random.split(jax.random.fold_in(key, 1), plan.num_chains)
        return jax.vmap(setup.complete)(keys, x), acceptance

    started = time.perf_counter()
    compiled = sample.lower(run.params, key).compile()
    compile_seconds = time.perf_counter() - started
    started = time.perf_counter()
    x, acceptance = jax.device_get(compiled(run.params, key))
    seconds = time.perf_counter() - started

    whole = setup.target
    observables = {"energy": whole.energy, **whole.observables}
    found = {}
    for name, fn in observables.items():
        values = np.asarray(jax.jit(jax.vmap(jax.vmap(fn)))(jax.tree.map(jnp.asarray, x)))
        entry = summarize_series(values)
        found[name] = entry | {"ess_per_second": entry["ess"] / seconds}
    found["energy"]["exact_mean"] = whole.mean_energy
    moves = plan.num_chains * (plan.burn_in + plan.num_steps)
    densities = 2 if plan.kind == "metropolis" else plan.candidates
    return x, {
        **plan._asdict(),
        "acceptance": float(acceptance.mean()),
        "lowest_acceptance": float(acceptance.mean(axis=1).min()),
        "observables": found,
        "seconds": {"compile": compile_seconds, "sample": seconds},
        "energy_evaluations": moves * (densities + plan.local_moves * energies_of_a_move(target.space)),
    }
