"""Energies with what is exactly known of them."""

from ._base import Target
from ._clamped import clamped_log_mean, clamped_sample, exact_denoiser
from ._conditioned import Conditioned, conditioned
from ._dependence import coloring, dependence, independent_sites
from ._enumeration import enumerate_states, enumerated_log_prob, enumerated_log_z
from ._from_energy import FromEnergy, FromLogDensity, check_energy, from_energy, from_log_density
from ._funnel import Funnel
from ._gaussian_bernoulli_rbm import GaussianBernoulliRBM
from ._gaussian_mixture import GaussianMixture
from ._integrated import Integrated, gaussian_coordinates, integrated
from ._ising import Ising
from ._joint_dw4 import JointDW4
from ._joint_mog import JointMoG
from ._many_well import ManyWell
from ._mean_free import mean_free_basis
from ._mixture_target import MixtureTarget
from ._particles import DW4, LJ13
from ._potts import Potts
from ._rings import Rings
from ._spin_glass import SpinGlass
from ._transformed import Transformed, transformed

__all__ = [
    "DW4",
    "LJ13",
    "Conditioned",
    "FromEnergy",
    "FromLogDensity",
    "Funnel",
    "GaussianBernoulliRBM",
    "GaussianMixture",
    "Integrated",
    "Ising",
    "JointDW4",
    "JointMoG",
    "ManyWell",
    "MixtureTarget",
    "Potts",
    "Rings",
    "SpinGlass",
    "Target",
    "Transformed",
    "check_energy",
    "clamped_log_mean",
    "clamped_sample",
    "coloring",
    "conditioned",
    "dependence",
    "enumerate_states",
    "enumerated_log_prob",
    "enumerated_log_z",
    "exact_denoiser",
    "from_energy",
    "from_log_density",
    "gaussian_coordinates",
    "independent_sites",
    "integrated",
    "mean_free_basis",
    "transformed",
]
