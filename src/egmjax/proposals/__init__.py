"""Proposals for importance sampling."""

from ._proposals import Proposal, from_density, model_rollout, reference_posterior

__all__ = ["Proposal", "from_density", "model_rollout", "reference_posterior"]
