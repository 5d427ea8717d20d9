"""Proposals for importance sampling."""

from ._annealed import annealed
from ._base import Proposal, reference_posterior
from ._densities import Density, defensive_mixture, from_density, model_density, reference_density
from ._rollouts import model_rollout, replay

__all__ = [
    "Density",
    "Proposal",
    "annealed",
    "defensive_mixture",
    "from_density",
    "model_density",
    "model_rollout",
    "reference_density",
    "reference_posterior",
    "replay",
]
