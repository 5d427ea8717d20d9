"""Models fitted by maximum likelihood on any space: the parts of a run, and figures that do not depend on the space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import rel_entr

from egmjax import ebm
from egmjax.training import Trainer

from .energy_runs import chain_tv, upper_log_z


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
