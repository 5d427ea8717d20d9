"""Benchmark commands: `train`, `sample`, and the measurements in `micro`."""

import os

# Before jax is imported. XLA logs an error for each program that it loads from the cache of the commands, because flags
# of its own tuning are no features of a processor.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from .runs import LoadedRun, load

__all__ = ["LoadedRun", "load"]
