"""Paths from prior to data: schedules, Gaussian paths, masked mixtures, given components, products."""

from ._base import Path
from ._coupling import MaximalCoupling, conditional_coupling
from ._discrete import DiscretePath, MetricPath
from ._gaussian import Angle, EndpointBelief, GaussianPath, stationary_path
from ._given import GivenPath
from ._jump_law import (
    JumpCoordinates,
    backward_jump_rate,
    backward_landing_cdf,
    backward_landing_density,
    backward_landing_ppf,
    jump_coordinates,
    jump_rate,
    landing_cdf,
    landing_density,
    landing_masses,
    landing_normalizer,
    landing_ppf,
    landing_roots,
    survival,
)
from ._masked import MaskedPath
from ._mixture import MixturePath
from ._orders import (
    TiedRows,
    coarse_to_fine,
    displacements,
    nearest_earlier,
    tie_by_displacement,
    torus_points,
)
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
    "JumpCoordinates",
    "Linear",
    "MaskedPath",
    "MaximalCoupling",
    "MetricPath",
    "MixturePath",
    "MixtureSchedule",
    "Ordered",
    "Path",
    "Polynomial",
    "ProductPath",
    "TiedRows",
    "Trigonometric",
    "UniformPath",
    "VarianceExploding",
    "VariancePreserving",
    "backward_jump_rate",
    "backward_landing_cdf",
    "backward_landing_density",
    "backward_landing_ppf",
    "coarse_to_fine",
    "conditional_coupling",
    "derivative",
    "displacements",
    "jump_coordinates",
    "jump_rate",
    "landing_cdf",
    "landing_density",
    "landing_masses",
    "landing_normalizer",
    "landing_ppf",
    "landing_roots",
    "nearest_earlier",
    "stationary_path",
    "survival",
    "tie_by_displacement",
    "torus_points",
]
