"""Models fitted by maximum likelihood on any space, balanced by roll-outs of a process that is fitted to the chains.

How a run is composed, goes on and is evaluated, as far as that does not depend on the space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import rel_entr

from egmjax import ebm
from egmjax.proposals import Density
from egmjax.training import Trainer

from .energy_runs import BALANCED, NegativesOptions, chain_tv, likelihood_parts, run_energy, upper_log_z

SHOWN = (
    *("loss", "loss_sampler", "acceptance_global", "acceptance_local", "step_size"),
    *("ess", "log_z", "log_z_upper"),
)


class Setup(NamedTuple):
    """The parts of a run. `law` is what data are drawn from, `log_density(params, x)` the model, not normalised;
    `proposal(params)` is that of the chains, `None` without global moves.
    """

    law: Any
    trainer: Trainer
    init: Callable[[int], Any]
    log_density: Callable[[Any, Any], jax.Array]
    proposal: Callable[[Any], ebm.PathProposal] | None
    negatives: ebm.Negatives


def compose(
    options: Any,
    law: Any,
    data: Any,
    *,
    energy: Callable[[Any, Any], jax.Array],
    log_density: Callable[[Any, Any], jax.Array],
    rollouts: Callable[[Any], ebm.PathProposal],
    wide: Density,
    init_energy: Callable[[jax.Array], Any],
    init_sampler: Callable[[jax.Array], Any],
    **local: Any,
) -> Setup:
    """The run of `options` on `data` from `law`.

    `energy` has the parameters of the energy, `log_density` all of them, and `rollouts` those of the sampler, which
    `options.method` may do without. Chains start from `wide`, the defensive share of the proposal; `local` as in
    `ebm.chain_negatives`.
    """

    def proposal(params: Any) -> ebm.PathProposal:
        return ebm.defended(rollouts(params["sampler"]), wide, options.defensive)

    balanced = options.method == BALANCED
    negatives, trainer = likelihood_parts(
        options,
        law.space,
        data,
        energy,
        log_density,
        lambda params, key: wide.sample(key, None, 0.0, 1.0),
        proposal if balanced else None,
        lambda params, key, x: rollouts(params).log_ratio(key, x),
        restart=options.method == "cd",
        **local,
    )

    def init(seed: int) -> Any:
        key_energy, key_sampler, key_train = jax.random.split(jax.random.key(seed), 3)
        params = {"energy": init_energy(key_energy)}
        if balanced:
            params["sampler"] = init_sampler(key_sampler)
        return trainer.init(key_train, params)

    return Setup(law, trainer, init, log_density, proposal if balanced else None, negatives)


def run_model(
    options: NegativesOptions,
    setup: Setup,
    evaluate: Callable[..., dict[str, Any]],
    *,
    summary: Sequence[str],
) -> dict[str, Any]:
    """`energy_runs.run_energy`, with `evaluate(setup, params, chains, num_eval=, seed=)`."""

    def found(state: Any) -> dict[str, Any]:
        return evaluate(setup, state.ema_params, state.buffer, num_eval=options.num_eval, seed=options.seed)

    return run_energy(options, setup.trainer, setup.init(options.seed), found, shown=SHOWN, summary=summary)


def mass_figures(mass: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """How far the model's masses `[num_modes]` are from the true ones."""
    return {
        "model_mass_tv": 0.5 * float(np.abs(mass - true).sum()),
        "model_mass_kl": float(rel_entr(true, np.maximum(mass, 1e-300)).sum()),
        "model_mass": mass.tolist(),
        "true_mass": true.tolist(),
    }


def sampler_figures(
    key: jax.Array,
    setup: Setup,
    params: Any,
    chains: ebm.ChainState | None,
    true: np.ndarray,
    num_eval: int,
) -> dict[str, Any]:
    """The histogram of the chains, and where there are global moves what their proposal says of the model.

    `log_z_lower` rests on fresh draws, `log_z_upper` on moves of the chains under the parameters evaluated.
    """
    if chains is None:
        return {}
    mode_index = setup.law.mode_index
    report: dict[str, Any] = {"chain_tv": chain_tv(mode_index, chains.position, true)}
    if setup.proposal is None:
        return report
    key_draws, key_moves = jax.random.split(key)
    found = ebm.sampled_masses(
        key_draws,
        lambda x: setup.log_density(params, x),
        setup.proposal(params),
        mode_index,
        len(true),
        num_eval,
    )
    return report | {
        "sampled_mass_tv": 0.5 * float(np.abs(found.mass - true).sum()),
        "log_z_lower": found.log_z,
        "log_z_stderr": found.log_z_stderr,
        "sampler_ess": found.ess_fraction,
        "pareto_k": found.pareto_k,
        "log_z_upper": upper_log_z(key_moves, setup.negatives, chains, params),
    }
