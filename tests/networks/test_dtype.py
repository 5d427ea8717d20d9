"""Networks whose hidden products are bfloat16: everything else is float32, and the numbers are nearly the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.networks import LatticeNet
from egmjax.paths import MaskedPath, Ordered
from egmjax.processes import MaskedProcess
from egmjax.simulators import first_hitting_sampler
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


def test_roll_outs_are_weighed_by_the_law_they_are_drawn_from():
    """Row by row, `q(x) = exp(-log_weight)` of the roll-outs that end in `x` is one number, and they add up to one.

    The same probabilities by another program, for all sites at once, differ where bfloat16 rounds otherwise, which is
    why chains and fixed orders, which use both, refuse it.
    """
    path = MaskedPath(Ordered.from_rank(np.arange(4)), sites=4)
    network = LatticeNet(2, width=16, depth=3, dtype=jnp.bfloat16)
    start = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(4, jnp.int32), jnp.zeros(()))
    params = randomize(start, scale=0.2)
    sampler = first_hitting_sampler(MaskedProcess(path))
    predict = lambda x, t: network.apply(params, x, t)  # noqa: E731
    keys = jax.random.split(jax.random.key(1), 2048)
    x, log_weight, _ = jax.jit(jax.vmap(lambda key: sampler.sample(key, predict)))(keys)
    _, which, index = np.unique(np.asarray(x), axis=0, return_index=True, return_inverse=True)
    assert len(which) == 16
    log_q = -np.asarray(log_weight, np.float64)
    np.testing.assert_allclose(log_q, log_q[which][index.reshape(-1)], atol=1e-5)
    assert np.exp(log_q[which]).sum() == pytest.approx(1, abs=1e-5)
    counts = np.bincount(index.reshape(-1), minlength=16)
    probs = np.exp(log_q[which])
    assert np.sum((counts - 2048 * probs) ** 2 / (2048 * probs)) < 45  # 15 degrees of freedom, p of 1e-4
