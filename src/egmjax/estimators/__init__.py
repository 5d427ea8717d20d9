"""Estimators of the marginal generator."""

from ._snis import DEFAULT_CHUNK, PsiFn, SNISEstimate, SNISInfo, psi_from_energy, snis

__all__ = ["DEFAULT_CHUNK", "PsiFn", "SNISEstimate", "SNISInfo", "psi_from_energy", "snis"]
