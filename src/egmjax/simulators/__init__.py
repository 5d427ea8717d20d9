"""Samplers: the scan over times, exact first-hitting roll-outs, and their log-weights."""

from ._grids import Spacing, edm_spacing, log_spacing, scale_spacing, time_grid, uniform_spacing
from ._ode import FlowODE, ODERollout, flow_ode
from ._rates import RateRollout, RateSampler, rate_sampler
from ._samplers import Rollout, Sampler, first_hitting_sampler, grid_sampler

__all__ = [
    "FlowODE",
    "ODERollout",
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
    "rate_sampler",
    "scale_spacing",
    "time_grid",
    "uniform_spacing",
]
