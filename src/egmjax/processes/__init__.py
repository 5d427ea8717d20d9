"""Processes: flow, diffusion, jumps, superposition, product.

A process holds its path and says how to learn and follow it.
"""

from ._amortized import AmortizedProcess, at_condition
from ._base import BindableApply, PredictFn, Process, bind
from ._condition import condition
from ._diffusion import DiffusionProcess
from ._energy_residual import energy_residual
from ._flow import FlowProcess
from ._gaussian import GaussianProcess
from ._gaussian_jump import GaussianJumpProcess
from ._guidance import guide
from ._heads import BinnedHead, Head, ResidualHead
from ._jump import JumpProcess
from ._local_fields import with_local_fields
from ._masked import MaskedProcess
from ._mixture import MixtureProcess
from ._product import ProductProcess
from ._pure_diffusion import PureDiffusionProcess
from ._rate_jump import RateJumpProcess
from ._rates import RateProcess
from ._rowwise import RowwisePredictor, rowwise
from ._sitewise import (
    DecodeFn,
    SiteOrder,
    SitewisePredictor,
    StepFn,
    site_order,
    sitewise,
)
from ._superposition import SuperpositionProcess

__all__ = [
    "AmortizedProcess",
    "BindableApply",
    "BinnedHead",
    "DecodeFn",
    "DiffusionProcess",
    "FlowProcess",
    "GaussianJumpProcess",
    "GaussianProcess",
    "Head",
    "JumpProcess",
    "MaskedProcess",
    "MixtureProcess",
    "PredictFn",
    "Process",
    "ProductProcess",
    "PureDiffusionProcess",
    "RateJumpProcess",
    "RateProcess",
    "ResidualHead",
    "RowwisePredictor",
    "SiteOrder",
    "SitewisePredictor",
    "StepFn",
    "SuperpositionProcess",
    "at_condition",
    "bind",
    "condition",
    "energy_residual",
    "guide",
    "rowwise",
    "site_order",
    "sitewise",
    "with_local_fields",
]
