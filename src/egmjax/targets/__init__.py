"""Energies with what is exactly known of them."""

from ._base import Target
from ._enumeration import enumerate_states, enumerated_log_prob, enumerated_log_z
from ._from_energy import FromEnergy, FromLogDensity, check_energy, from_energy, from_log_density
from ._gaussian_bernoulli_rbm import GaussianBernoulliRBM
from ._gaussian_mixture import GaussianMixture
from ._ising import Ising

__all__ = [
    "FromEnergy",
    "FromLogDensity",
    "GaussianBernoulliRBM",
    "GaussianMixture",
    "Ising",
    "Target",
    "check_energy",
    "enumerate_states",
    "enumerated_log_prob",
    "enumerated_log_z",
    "from_energy",
    "from_log_density",
]
