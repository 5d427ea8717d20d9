"""Networks whose hidden products are bfloat16: everything else is float32, and the numbers are nearly the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.core.products import products
from tests.networks.checks import randomize, state
from tests.networks.registry import NETWORKS

# how many products stay float32: layers of real inputs and times, and heads
FLOAT32 = {
    "mlp_real": 2,
    "mlp_modulated": 3,
    "mlp_product": 3,
    "coordinates_matrix": 3,
    "lattice_full_three_states": 1,
    "lattice_radius": 1,
    "lattice_odd_full": 1,
    "particles_with_types": None,  # mean-free coordinates are products too
}


@pytest.mark.parametrize("name", FLOAT32)
def test_hidden_products_are_narrow_and_nothing_else(name):
    network, space, _ = NETWORKS[name]()
    narrow = dataclasses.replace(network, dtype=jnp.bfloat16)
    x, t = state(space, 0), jnp.asarray(0.3)
    start = jax.eval_shape(network.init, jax.random.key(0), x, t)
    assert jax.eval_shape(narrow.init, jax.random.key(0), x, t) == start
    params = randomize(start, scale=0.3)

    def loss(params, x):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(narrow.apply(params, x, t)))

    found = [eqn.outvars[0].aval.dtype for eqn in products(narrow.apply, params, x, t)]
    assert found.count(jnp.bfloat16) >= 1
    if FLOAT32[name] is not None:
        assert found.count(jnp.float32) == FLOAT32[name]

    @jax.jit
    def both(params, x):
        return narrow.apply(params, x, t), network.apply(params, x, t), jax.grad(loss)(params, x)

    got, want, gradient = both(params, x)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((got, gradient))} == {"float32"}
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert 0 < np.max(np.abs(a - b)) < 0.03 * max(1.0, np.max(np.abs(b)))
