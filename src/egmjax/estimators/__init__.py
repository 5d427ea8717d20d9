"""Estimators: of the marginal generator, of a bound on log-probabilities, of what independence within a step costs."""

from ._elbo import ELBOEstimate, elbo
from ._multispin import multispin_snis
from ._snis import PsiFn, SNISEstimate, SNISInfo, psi_from_energy, snis
from ._total_correlation import total_correlation

__all__ = [
    "ELBOEstimate",
    "PsiFn",
    "SNISEstimate",
    "SNISInfo",
    "elbo",
    "multispin_snis",
    "psi_from_energy",
    "snis",
    "total_correlation",
]
