"""Multi-spin coding against the same quantities state by state, and its estimate against enumeration.

Statistical tolerance: 4 standard errors with fixed keys unless stated.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax import multispin
from egmjax.estimators import multispin_snis
from egmjax.paths import MaskedPath
from egmjax.targets import Ising, Potts, SpinGlass, enumerate_states
from tests.core.checks import weight_score, z_score

TARGET = Ising(length=3, beta=0.5, field=0.2)
PATH = MaskedPath(sites=9)
XT = jnp.array([2, 1, 2, 2, 0, 2, 1, 2, 2], jnp.int32)
T = 0.3


def exact_posterior():
    """`P(x_1[i] = 1 | x_t)` and `psi(x_t)` by enumeration, float64."""
    states = np.asarray(enumerate_states(9, 2))
    fits = np.all((np.asarray(XT) == 2) | (states == np.asarray(XT)), axis=1)
    weights = np.exp(-np.asarray(jax.vmap(TARGET.energy)(states[fits]), np.float64))
    return weights @ states[fits] / weights.sum(), np.log(weights.mean())


def estimates(seed, repeats, *, num, chunk=64, energy_fn=TARGET.multispin_energy):
    @jax.jit
    @jax.vmap
    def each(key):
        return multispin_snis(key, XT, T, path=PATH, energy_fn=energy_fn, num_proposals=num, chunk_size=chunk)

    return each(jax.random.split(jax.random.key(seed), repeats))


@pytest.mark.parametrize("num", [1, 32, 77])
def test_pack_and_unpack(num):
    x = np.random.default_rng(0).integers(2, size=(num, 5))
    words = multispin.pack(jnp.asarray(x))
    assert words.shape == (5, -(-num // 32))
    assert words.dtype == jnp.uint32
    states = np.asarray(multispin.unpack(words))
    np.testing.assert_array_equal(states[:num], x)
    assert not states[num:].any()


def test_counts_and_weights_of_many_rows():
    """260 rows: more than a field of eight bits holds."""
    rng = np.random.default_rng(1)
    planes = rng.integers(2**32, size=(260, 2, 2), dtype=np.uint32)
    planes[:, 0] = 2**32 - 1  # every count at its largest
    bits = planes[None] >> np.arange(32, dtype=np.uint32)[:, None, None, None] & 1
    np.testing.assert_array_equal(jax.jit(multispin.count)(planes), bits.sum((1, 2)))
    weights = rng.normal(size=(32, 2)).astype(np.float32)
    expected = np.einsum("jin,jn->i", bits[:, 0], weights, dtype=np.float64)
    np.testing.assert_allclose(multispin.total_weight(jnp.asarray(planes[0]), weights), expected, atol=1e-4)


@pytest.mark.parametrize(
    "target",
    [
        Ising(length=3, beta=0.4, coupling=-1.2),
        Ising(length=6, beta=0.4407, field=-0.3),
        SpinGlass.plus_minus(5, 0.7, seed=3),
        SpinGlass(4, 0.7, 0.5, -0.5),
    ],
    ids=["antiferromagnet", "field", "glass", "stripes"],
)
def test_energies_are_those_of_single_states(target):
    x = jax.random.randint(jax.random.key(0), (64, target.space.sites), 0, 2)
    energies = jax.jit(target.multispin_energy)(multispin.pack(x))
    np.testing.assert_allclose(energies.reshape(-1), jax.vmap(target.energy)(x), rtol=1e-5, atol=1e-5)


def test_a_traced_temperature():
    words = multispin.pack(jnp.eye(9, dtype=jnp.int32))
    energies = jax.jit(jax.vmap(lambda beta: Ising(length=3, beta=beta).multispin_energy(words)))
    each = energies(jnp.array([0.2, 0.4]))
    np.testing.assert_allclose(each[1], 2 * each[0], rtol=1e-6)


def test_none_where_bits_are_not_enough():
    assert SpinGlass(3, 1.0, np.arange(9.0).reshape(3, 3), 1.0).multispin_energy is None
    assert SpinGlass(3, 1.0, 1.0, 1.0, field=0.1).multispin_energy is None
    assert Potts(length=3, num_states=3, beta=1.0).multispin_energy is None
    traced = []
    jax.jit(lambda j: traced.append(SpinGlass(3, 1.0, j, j).multispin_energy))(1.0)
    assert traced == [None]


@pytest.mark.parametrize("chunk", [32, 1024])
def test_the_estimate_is_that_of_the_posterior(chunk):
    """600 proposals, which fill neither the last chunk nor the last word."""
    ones, psi = exact_posterior()
    result = estimates(chunk, 200, num=600, chunk=chunk)
    target = np.asarray(result.target, np.float64)
    np.testing.assert_allclose(target.sum(-1), 1.0, rtol=1e-5)
    masked = np.asarray(XT) == 2
    np.testing.assert_allclose(target[:, ~masked, 1], np.tile(np.asarray(XT)[~masked], (200, 1)), atol=1e-6)
    assert z_score(target[:, masked, 1], ones[masked]) < 4.5  # the largest of six; bias O(1/600) is below
    score, error = weight_score(result.log_normalizer, psi)
    assert score < 4
    assert error < 0.02
    assert np.all(np.asarray(result.info.ess) <= 600)


def test_normalizer_of_few_proposals_and_a_fault():
    """`E exp(log_normalizer) = exp(psi)` at K = 5; counting the padded lanes would be noticed."""
    _, psi = exact_posterior()
    log_normalizer = estimates(1, 20_000, num=5).log_normalizer
    score, error = weight_score(log_normalizer, psi)
    assert score < 4
    assert error < 0.02
    assert weight_score(log_normalizer + np.log(5 / 32), psi)[0] > 4


def test_infinite_energies_are_counted():
    def energy_fn(words):
        lanes = jnp.broadcast_to(jnp.arange(32)[:, None], (32, words.shape[1]))
        return jnp.where(lanes < 8, jnp.inf, TARGET.multispin_energy(words))

    result = estimates(2, 3, num=64, energy_fn=energy_fn)
    np.testing.assert_array_equal(result.info.num_nonfinite, 16)
    assert np.all(np.isfinite(result.target))


def test_errors():
    arguments = {"path": PATH, "energy_fn": TARGET.multispin_energy, "num_proposals": 8}
    for change, name in (
        ({"path": MaskedPath(sites=9, num_states=3)}, "path"),
        ({"num_proposals": 0}, "num_proposals"),
        ({"chunk_size": 40}, "chunk_size"),
        ({"energy_fn": lambda words: 0.0 * jnp.sum(words)}, "energy_fn"),
        ({"energy_fn": lambda words: multispin.count(words.reshape(3, 3, -1))}, "energy_fn"),
    ):
        with pytest.raises(ValueError, match=f"^{name}:"):
            multispin_snis(jax.random.key(0), XT, T, **(arguments | change))
