"""Energies with what is exactly known of them."""

from ._base import Target
from ._clamped import clamped_log_mean, clamped_sample, exact_denoiser
from ._enumeration import enumerate_states, enumerated_log_prob, enumerated_log_z
from ._from_energy import FromEnergy, FromLogDensity, check_energy, from_energy, from_log_density
from ._gaussian_bernoulli_rbm import GaussianBernoulliRBM
from ._gaussian_mixture import GaussianMixture
from ._ising import Ising
from ._potts import Potts
from ._spin_glass import SpinGlass

__all__ = [
    "FromEnergy",
    "FromLogDensity",
    "GaussianBernoulliRBM",
    "GaussianMixture",
    "Ising",
    "Potts",
    "SpinGlass",
    "Target",
    "check_energy",
    "clamped_log_mean",
    "clamped_sample",
    "enumerate_states",
    "enumerated_log_prob",
    "enumerated_log_z",
    "exact_denoiser",
    "from_energy",
    "from_log_density",
]
