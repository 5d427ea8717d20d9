"""States, parameters and shapes for the contract tests of networks."""

import jax
import jax.numpy as jnp
import numpy as np

from egmjax.states import Categorical, Real


def state(space, seed, masked="some"):
    """A state of `space` in the default float type; `masked`: "some", "all" or "none" of its sites."""
    rng = np.random.default_rng(seed)
    match space:
        case Real(shape):
            return jnp.asarray(rng.normal(size=shape), dtype=float)
        case Categorical(sites, num_states):
            x = rng.integers(0, num_states, size=sites)
            hidden = {
                "some": rng.random(sites) < 0.5,
                "all": np.full(sites, True),
                "none": np.full(sites, False),
            }
            return jnp.asarray(np.where(hidden[masked], num_states, x), dtype=jnp.int32)
    return tuple(state(part, seed + i, masked) for i, part in enumerate(space))


def randomize(params, seed=0, scale=0.5):
    """Parameters drawn anew, so that no layer is zero as at initialisation."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(scale * rng.normal(size=a.shape), dtype=a.dtype), params)


def shapes(tree):
    return jax.tree.map(lambda a: a.shape, tree)
