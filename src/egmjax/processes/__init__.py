"""Processes: flow, masked jump, product. A process holds its path and says how to learn and follow it."""

from ._base import PredictFn, Process
from ._flow import FlowProcess
from ._masked import MaskedProcess
from ._product import ProductProcess

__all__ = ["FlowProcess", "MaskedProcess", "PredictFn", "Process", "ProductProcess"]
