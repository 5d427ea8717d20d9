"""Which sites of an energy depend on each other, against neighbours written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.states import Categorical, Real
from egmjax.targets import Ising, Potts, SpinGlass, dependence, from_energy, independent_sites


def neighbours(length):
    row, column = np.divmod(np.arange(length**2), length)
    apart = [np.abs(a[:, None] - a[None, :]) for a in (row, column)]
    apart = [np.minimum(a, length - a) for a in apart]
    return apart[0] + apart[1] == 1


LATTICES = [
    Ising(4, beta=0.3, field=0.2),
    Ising(5, beta=0.5),
    Potts(4, 3, 0.7),
    SpinGlass.plus_minus(4, 1.0, seed=1),
]


@pytest.mark.parametrize("target", LATTICES, ids=lambda target: type(target).__name__)
def test_lattices(target):
    pairs = dependence(target)
    length = round(np.sqrt(target.space.sites))
    np.testing.assert_array_equal(pairs, neighbours(length))
    chosen = independent_sites(pairs)
    assert not pairs[chosen][:, chosen].any()
    assert (pairs[chosen].any(axis=0) | chosen).all(), "no site can be added"
    assert chosen.sum() == length * (length // 2), "an odd ring of four-cycles leaves a seam"


def test_an_energy_of_ones_own():
    """Three sites in a triple product, two in a pair, one alone; a field couples nothing."""

    def energy(x):
        s = 2.0 * x.astype(float) - 1.0
        return s[0] * s[1] * s[2] + 0.01 * s[3] * s[4] + 3.0 * s[5] + 2.0 * s[0]

    pairs = dependence(from_energy(energy, Categorical(6, 2)))
    want = np.zeros((6, 6), bool)
    for i, j in ((0, 1), (0, 2), (1, 2), (3, 4)):
        want[i, j] = want[j, i] = True
    np.testing.assert_array_equal(pairs, want)
    assert independent_sites(pairs).sum() == 3
    # neighbours on a ring exclude each other: nothing that is infinite passes for independent
    hard_core = lambda x: jnp.where(jnp.any(x * jnp.roll(x, 1) > 0), jnp.inf, jnp.sum(1.0 * x))  # noqa: E731
    hard = dependence(from_energy(hard_core, Categorical(4, 2)))
    assert all(hard[i, (i + 1) % 4] for i in range(4))
    with pytest.raises(ValueError, match="target"):
        dependence(from_energy(lambda x: jnp.sum(x**2), Real((2,))))
    with pytest.raises(ValueError, match="pairs"):
        independent_sites(pairs[:2])
