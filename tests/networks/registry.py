"""Every network, once. Contract tests run over this table; a new network is added here and inherits them.

A case is a builder of `(network, space, output shape)`; `space` is that of the states, masks included.
"""

import jax.numpy as jnp

from egmjax.networks import (
    ArrayHead,
    CoordinateMLP,
    InformedNet,
    InnerProduct,
    LatticeDense,
    LatticeNet,
    OrderAgnosticMLPs,
    PairEnergy,
    ParticleNet,
    ProductHead,
    ResidualMLP,
    ScalarHead,
    VectorNet,
    head_for,
)
from egmjax.paths import CondOT, GaussianPath, Linear, MaskedPath, tie_by_displacement, torus_points
from egmjax.processes import FlowProcess, MaskedProcess, ProductProcess
from egmjax.states import Categorical, Real

FLOW = FlowProcess(GaussianPath(CondOT(1.5), shape=(3,)))
MATRIX_FLOW = FlowProcess(GaussianPath(CondOT(1.5), shape=(2, 3)))
MASKED = MaskedProcess(MaskedPath(Linear(), sites=4, num_states=3))
PRODUCT = ProductProcess((FLOW, MASKED))
TORUS = Categorical(16, 2)
IN_SPACE = FlowProcess(GaussianPath(CondOT(1.5), shape=(9,)))  # mean-free coordinates of four particles
TYPED = ProductProcess(
    (FlowProcess(GaussianPath(CondOT(1.5), shape=(6,))), MASKED)
)  # four in the plane, with types


def _mlp(process, **kwargs):
    space, shape = process.path.space, process.prediction_shape()
    return lambda: (ResidualMLP(space, shape, width=8, depth=2, **kwargs), space, shape)


def _scalar(process):
    space = process.path.space
    return lambda: (ResidualMLP(space, (), width=8, depth=2), space, ())


def _particles(process, shape=None, kind=ParticleNet, **kwargs):
    space, shape = process.path.space, process.prediction_shape() if shape is None else shape
    return lambda: (kind(space, shape, 4, width=6, scale=1.5, **kwargs), space, shape)


def _lattice(length, num_states=2, **kwargs):
    process = MaskedProcess(MaskedPath(Linear(), sites=length**2, num_states=num_states))
    space, shape = process.path.space, process.prediction_shape()
    return lambda: (LatticeNet(length, num_states=num_states, width=6, **kwargs), space, shape)


def _order_agnostic(length, num_states=2, is_tied=False, **kwargs):
    process = MaskedProcess(MaskedPath(Linear(), sites=length**2, num_states=num_states))
    tied = tie_by_displacement(torus_points(length), period=length, any_order=True) if is_tied else None
    net = OrderAgnosticMLPs(length**2, tied=tied, num_states=num_states, width=6, depth=2, **kwargs)
    return lambda: (net, process.path.space, process.prediction_shape())


NETWORKS = {
    "mlp_real": _mlp(FLOW, scale=2.0),
    "mlp_modulated": _mlp(FLOW, modulated=True),
    "mlp_frequencies": _mlp(FLOW, num_frequencies=5, scale=2.0),
    "mlp_frequencies_product": _mlp(PRODUCT, num_frequencies=5),
    "mlp_real_matrix": _mlp(MATRIX_FLOW),
    "coordinates_matrix": lambda: (
        CoordinateMLP(MATRIX_FLOW.path.space, MATRIX_FLOW.prediction_shape(), width=8, scale=2.0),
        MATRIX_FLOW.path.space,
        MATRIX_FLOW.prediction_shape(),
    ),
    "mlp_categorical": _mlp(MASKED),
    "mlp_categorical_without_time": _mlp(MASKED, use_time=False),
    "mlp_product": _mlp(PRODUCT, scale=2.0),
    "mlp_scalar_real": _scalar(FLOW),
    "inner_product": lambda: (InnerProduct(_mlp(FLOW)()[0]), FLOW.path.space, ()),
    "inner_product_and_offset": lambda: (
        InnerProduct(ResidualMLP(FLOW.path.space, ((3,), ()), width=8, depth=2)),
        FLOW.path.space,
        ((), ()),
    ),
    "mlp_scalar_categorical": _scalar(MASKED),
    "mlp_scalar_product": _scalar(PRODUCT),
    "lattice_full": _lattice(3),
    "lattice_full_three_states": _lattice(3, num_states=3, depth=3),
    "lattice_radius": _lattice(4, radius=1),
    "lattice_radius_zero": _lattice(3, radius=0),
    "lattice_odd_full": _lattice(3, odd=True),
    "lattice_odd_radius": _lattice(4, radius=1, odd=True, depth=3),
    "order_agnostic": _order_agnostic(2),
    "order_agnostic_odd_tied": _order_agnostic(3, is_tied=True, odd=True),
    "order_agnostic_equivariant": _order_agnostic(2, num_states=3, equivariant=True),
    "lattice_with_time": _lattice(3, use_time=True),
    "lattice_odd_with_time": _lattice(3, odd=True, use_time=True),
    "informed": lambda: (
        InformedNet(_mlp(FLOW)()[0], lambda x, t: jnp.cos(t) * x, width=5),
        FLOW.path.space,
        FLOW.prediction_shape(),
    ),
    "particles": _particles(IN_SPACE),
    "particles_without_messages": _particles(IN_SPACE, depth=0, num_radial=1),
    "particles_with_types": _particles(TYPED),
    "particles_scalar": _particles(TYPED, shape=()),
    "vectors": _particles(IN_SPACE, kind=VectorNet),
    "vectors_without_messages": _particles(IN_SPACE, kind=VectorNet, depth=0, num_radial=1),
    "vectors_with_types": _particles(TYPED, kind=VectorNet),
    "vectors_scalar": _particles(TYPED, shape=(), kind=VectorNet),
    "pair_energy": lambda: (PairEnergy(4), TORUS, ()),
    "lattice_shallow": _lattice(3, depth=1),
}

LAYERS = {  # network, features that it acts on, output shape
    "array_head": lambda: (ArrayHead((2, 3)), (5,), (2, 3)),
    "scalar_head": lambda: (ScalarHead(), (5,), ()),
    "product_head": lambda: (ProductHead(((2,), (3, 2))), (5,), ((2,), (3, 2))),
    "nested_product_head": lambda: (head_for(((2,), ((3,), (1, 2)))), (5,), ((2,), ((3,), (1, 2)))),
    "lattice_dense_full": lambda: (LatticeDense(3, 4), (9, 2), (9, 4)),
    "lattice_dense_radius": lambda: (LatticeDense(4, 4, radius=1), (16, 2), (16, 4)),
    "lattice_dense_without_bias": lambda: (LatticeDense(3, 4, use_bias=False), (9, 2), (9, 4)),
}

SPACES = {"real": Real((3,)), "categorical": Categorical(4, 3), "product": (Real((3,)), Categorical(4, 3))}
