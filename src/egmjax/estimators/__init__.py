"""Estimators: of the marginal generator, and of a bound on the log-probability of a state."""

from ._elbo import ELBOEstimate, elbo
from ._multispin import MULTISPIN_CHUNK, multispin_snis
from ._snis import DEFAULT_CHUNK, PsiFn, SNISEstimate, SNISInfo, psi_from_energy, snis

__all__ = [
    "DEFAULT_CHUNK",
    "MULTISPIN_CHUNK",
    "ELBOEstimate",
    "PsiFn",
    "SNISEstimate",
    "SNISInfo",
    "elbo",
    "multispin_snis",
    "psi_from_energy",
    "snis",
]
