"""Benchmark commands: `train`, `sample`, and the measurements in `micro`."""

from .runs import LoadedRun, load

__all__ = ["LoadedRun", "load"]
