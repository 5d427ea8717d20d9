"""Local fields in passing: exact where all neighbours are known, `2 beta sum of known spins` elsewhere, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.paths import Linear, MaskedPath
from egmjax.processes import with_local_fields
from egmjax.targets import Ising, Potts, SpinGlass

MASK = 2


def denoiser(target, num_states=2, network=lambda params, x, t: jnp.zeros((16, 2))):
    path = MaskedPath(Linear(), sites=target.length**2, num_states=num_states)
    return jax.jit(lambda x: with_local_fields(network, path, target.site_energies)(None, x, 0.5))


@pytest.mark.parametrize("field", [0.0, 0.3])
def test_spins_by_hand(field):
    """The difference of a site's logits is `2 beta (field + sum of known neighbours)`, masks count for nothing."""
    target = Ising(4, beta=0.5, field=field)
    x = np.random.default_rng(0).integers(0, 3, 16)
    logits = np.asarray(denoiser(target)(jnp.asarray(x, jnp.int32)), np.float64)
    spins = np.where(x == MASK, 0, 2 * x - 1).reshape(4, 4)
    around = sum(np.roll(spins, s, a) for s in (1, -1) for a in (0, 1)).reshape(-1)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], 2 * 0.5 * (field + around), atol=1e-5)
    np.testing.assert_allclose(logits.sum(1), 0, atol=1e-5)
    # a seeded fault: masks taken for the first symbol
    wrong = np.where(x == MASK, -1, spins.reshape(-1)).reshape(4, 4)
    wrong_around = sum(np.roll(wrong, s, a) for s in (1, -1) for a in (0, 1)).reshape(-1)
    assert np.abs(logits[:, 1] - logits[:, 0] - (field + wrong_around)).max() > 0.5


@pytest.mark.parametrize(
    "target", [SpinGlass(3, 0.7, 1.0, -0.5), Potts(3, num_states=3, beta=0.6)], ids=["glass", "potts"]
)
def test_the_last_site_has_its_exact_law(target):
    """Whatever the network is, its own logits come on top; with one site masked they are the exact conditionals."""
    num_states = target.space.num_states
    own = jax.random.normal(jax.random.key(0), (9, num_states))
    fields = denoiser(target, num_states, lambda params, x, t: own)
    known = jax.random.randint(jax.random.key(1), (9,), 0, num_states)
    for site in (0, 4):
        logits = fields(known.at[site].set(num_states))[site] - own[site]
        states = jnp.stack([known.at[site].set(s) for s in range(num_states)])
        energies = np.asarray(jax.vmap(target.energy)(states), np.float64)
        expected = np.exp(energies.min() - energies)
        np.testing.assert_allclose(jax.nn.softmax(logits), expected / expected.sum(), atol=1e-5)
