"""Flax linen networks: perceptrons, lattices, particles, energies, heads. Core code sees only `apply(params, x, t)`."""

from ._causal import OrderedMLPs, SiteMLPs
from ._causal_transformer import CausalTransformer
from ._coordinates import CoordinateMLP
from ._energies import InnerProduct, PairEnergy, RestrictedBoltzmann
from ._features import state_features, time_features
from ._heads import ArrayHead, ProductHead, ScalarHead, head_for
from ._informed import InformedNet
from ._lattice import LatticeDense, LatticeNet
from ._masked_mlp import MaskedMLP
from ._mlp import ResidualMLP
from ._particles import ParticleNet

__all__ = [
    "ArrayHead",
    "CausalTransformer",
    "CoordinateMLP",
    "InformedNet",
    "InnerProduct",
    "LatticeDense",
    "LatticeNet",
    "MaskedMLP",
    "OrderedMLPs",
    "PairEnergy",
    "ParticleNet",
    "ProductHead",
    "ResidualMLP",
    "RestrictedBoltzmann",
    "ScalarHead",
    "SiteMLPs",
    "head_for",
    "state_features",
    "time_features",
]
