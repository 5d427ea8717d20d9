"""Samplers: the scan over times, exact first-hitting roll-outs, and their log-weights."""

from ._first_hitting import first_hitting_sampler
from ._grids import Spacing, edm_spacing, log_spacing, scale_spacing, time_grid, uniform_spacing
from ._ode import FlowODE, ODERollout, flow_ode
from ._ordered import ordered_sampler
from ._rates import RateRollout, RateSampler, rate_sampler
from ._samplers import Rollout, Sampler, grid_sampler
from ._smc import SMC, Particles, smc_sampler
from ._symmetrized import symmetrized

__all__ = [
    "SMC",
    "FlowODE",
    "ODERollout",
    "Particles",
    "RateRollout",
    "RateSampler",
    "Rollout",
    "Sampler",
    "Spacing",
    "edm_spacing",
    "first_hitting_sampler",
    "flow_ode",
    "grid_sampler",
    "log_spacing",
    "ordered_sampler",
    "rate_sampler",
    "scale_spacing",
    "smc_sampler",
    "symmetrized",
    "time_grid",
    "uniform_spacing",
]
