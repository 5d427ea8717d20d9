"""Flax linen networks: perceptrons, lattice network, energies, heads. Core code sees only `apply(params, x, t)`."""

from ._causal import OrderedMLPs, SiteMLPs
from ._coordinates import CoordinateMLP
from ._energies import InnerProduct, PairEnergy, RestrictedBoltzmann
from ._features import state_features, time_features
from ._heads import ArrayHead, ProductHead, ScalarHead, head_for
from ._lattice import LatticeDense, LatticeNet
from ._mlp import ResidualMLP

__all__ = [
    "ArrayHead",
    "CoordinateMLP",
    "InnerProduct",
    "LatticeDense",
    "LatticeNet",
    "OrderedMLPs",
    "PairEnergy",
    "ProductHead",
    "ResidualMLP",
    "RestrictedBoltzmann",
    "ScalarHead",
    "SiteMLPs",
    "head_for",
    "state_features",
    "time_features",
]
