"""Reference and refinement kernels."""

from ._cluster import SwendsenWang, SwendsenWangInfo, SwendsenWangState, cluster_labels, swendsen_wang
from ._gibbs import Gibbs, GibbsInfo, GibbsState, gibbs
from ._hamiltonian import HamiltonianChain, hamiltonian_chain
from ._mala_within_gibbs import (
    MalaWithinGibbs,
    MalaWithinGibbsInfo,
    MalaWithinGibbsState,
    mala_within_gibbs,
)
from ._refresh import RefreshFn, refreshing_moves
from ._tempering import ParallelTempering, TemperingInfo, TemperingState, parallel_tempering

__all__ = [
    "Gibbs",
    "GibbsInfo",
    "GibbsState",
    "HamiltonianChain",
    "MalaWithinGibbs",
    "MalaWithinGibbsInfo",
    "MalaWithinGibbsState",
    "ParallelTempering",
    "RefreshFn",
    "SwendsenWang",
    "SwendsenWangInfo",
    "SwendsenWangState",
    "TemperingInfo",
    "TemperingState",
    "cluster_labels",
    "gibbs",
    "hamiltonian_chain",
    "mala_within_gibbs",
    "parallel_tempering",
    "refreshing_moves",
    "swendsen_wang",
]
