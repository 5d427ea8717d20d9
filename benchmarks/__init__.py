"""Benchmark commands: `train`, `sample`, and the measurements in `micro`."""

import os

# Before jax is imported. XLA logs an error for each program that it loads from the cache of the commands, because flags
# of its own tuning are no features of a processor. 1 is what jax sets, and what its process leaves to those it starts.
if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from .runs import LoadedRun, load

__all__ = ["LoadedRun", "load"]
