"""Estimators of the marginal generator."""

from ._snis import PsiFn, SNISEstimate, SNISInfo, psi_from_energy, snis

__all__ = ["PsiFn", "SNISEstimate", "SNISInfo", "psi_from_energy", "snis"]
