"""Paths from prior to data: schedules, Gaussian paths, masked mixtures, given components, products."""

from ._base import Path
from ._discrete import DiscretePath, MetricPath
from ._gaussian import Angle, EndpointBelief, GaussianPath, stationary_path
from ._given import GivenPath
from ._masked import MaskedPath
from ._mixture import MixturePath
from ._product import ProductPath
from ._schedules import (
    CondOT,
    Cosine,
    GaussianSchedule,
    Linear,
    MixtureSchedule,
    Ordered,
    Polynomial,
    Trigonometric,
    VarianceExploding,
    VariancePreserving,
    derivative,
)
from ._uniform import UniformPath

__all__ = [
    "Angle",
    "CondOT",
    "Cosine",
    "DiscretePath",
    "EndpointBelief",
    "GaussianPath",
    "GaussianSchedule",
    "GivenPath",
    "Linear",
    "MaskedPath",
    "MetricPath",
    "MixturePath",
    "MixtureSchedule",
    "Ordered",
    "Path",
    "Polynomial",
    "ProductPath",
    "Trigonometric",
    "UniformPath",
    "VarianceExploding",
    "VariancePreserving",
    "derivative",
    "stationary_path",
]
