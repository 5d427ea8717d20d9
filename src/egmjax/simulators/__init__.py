"""Samplers: the scan over times, exact first-hitting roll-outs, and their log-weights."""

from ._samplers import Rollout, Sampler, first_hitting_sampler, grid_sampler, last_step_grid, time_grid

__all__ = ["Rollout", "Sampler", "first_hitting_sampler", "grid_sampler", "last_step_grid", "time_grid"]
