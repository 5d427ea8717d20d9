"""Flax linen networks: perceptrons, lattices, particles, energies, heads. Core code sees only `apply(params, x, t)`.

`dtype`, Flax's name for the type of the arithmetic, is that of the products between hidden layers: `jnp.bfloat16`
halves what they read and is what accelerators are fastest at. Parameters are float32 in any case, and so are real
inputs' layers, sums over blocks, the head and what goes out: probabilities and velocities are made of float32 numbers.
Networks that are asked for rows have none: they draw by one program and give densities by another, which are one law
only as far as their arithmetic agrees. Nor should a flow, whose log-determinant is that of the map, not rounded.
"""

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
from ._order_agnostic import OrderAgnosticMLPs
from ._particles import ParticleNet, VectorNet

__all__ = [
    "ArrayHead",
    "CausalTransformer",
    "CoordinateMLP",
    "InformedNet",
    "InnerProduct",
    "LatticeDense",
    "LatticeNet",
    "MaskedMLP",
    "OrderAgnosticMLPs",
    "OrderedMLPs",
    "PairEnergy",
    "ParticleNet",
    "ProductHead",
    "ResidualMLP",
    "RestrictedBoltzmann",
    "ScalarHead",
    "SiteMLPs",
    "VectorNet",
    "head_for",
    "state_features",
    "time_features",
]
