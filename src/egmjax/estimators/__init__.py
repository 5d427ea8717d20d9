"""Estimators: of the marginal generator, and of a bound on the log-probability of a state."""

from ._elbo import ELBOEstimate, elbo
from ._snis import DEFAULT_CHUNK, PsiFn, SNISEstimate, SNISInfo, psi_from_energy, snis

__all__ = [
    "DEFAULT_CHUNK",
    "ELBOEstimate",
    "PsiFn",
    "SNISEstimate",
    "SNISInfo",
    "elbo",
    "psi_from_energy",
    "snis",
]
