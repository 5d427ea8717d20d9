"""Draws of the Ising torus and the Swendsen-Wang kernel against exact laws.

Every test allows four standard errors of a fixed-seed draw (a chi-square by its normal approximation), so a
right sampler fails a fresh seed about once in 16,000 comparisons.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from egmjax.mcmc import cluster_labels, swendsen_wang
from egmjax.targets import Ising, enumerated_log_prob

pytestmark = pytest.mark.slow  # compiles a lot

SIGMAS = 4.0


def chi_square_z(x, target: Ising) -> float:
    """Standardised chi-square of states against the exact law; states expected under 5 times are pooled."""
    expected = len(x) * np.exp(enumerated_log_prob(target))
    index = np.asarray(x) @ (2 ** np.arange(target.length**2 - 1, -1, -1))
    observed = np.bincount(index, minlength=expected.size)
    rare = expected < 5
    if rare.any():
        expected = np.append(expected[~rare], expected[rare].sum())
        observed = np.append(observed[~rare], observed[rare].sum())
    freedom = expected.size - 1
    return (np.sum((observed - expected) ** 2 / expected) - freedom) / np.sqrt(2 * freedom)


def z_scores(x, target: Ising) -> list[float]:
    """Energy and |m| of independent draws against their exact means, in standard errors."""
    energies = np.asarray(jax.vmap(target.energy)(x), np.float64)
    size = np.abs(2 * np.asarray(x, np.float64).mean(1) - 1)
    values, probs = target.magnetization_law()
    exact_size = probs @ abs(values)
    size_std = np.sqrt(probs @ (abs(values) - exact_size) ** 2)
    root = np.sqrt(len(x))
    energy_z = (energies.mean() - target.mean_energy) / target.energy_std * root
    return [energy_z, (size.mean() - exact_size) / size_std * root]


@pytest.mark.parametrize(("beta", "coupling", "field"), [(0.3, 1.0, 0.0), (0.3, 1.0, 0.2), (0.3, -1.0, 0.1)])
def test_transfer_draws_follow_the_full_law(beta, coupling, field):
    target = Ising(3, beta, coupling, field)
    x = target.sample(jax.random.key(1), 40_000)
    assert x.dtype == jnp.int32
    assert x.shape == (40_000, 9)
    assert abs(chi_square_z(x, target)) < SIGMAS
    assert abs(chi_square_z(x, Ising(3, beta * 1.1, coupling, field))) > SIGMAS  # the test has power


@pytest.mark.parametrize(
    ("length", "beta", "field"), [(4, 0.4407, 0.0), (5, 0.6, 0.05), (10, 0.4407, 0.0), (11, 0.4, 0.02)]
)
def test_transfer_draws_have_exact_means(length, beta, field):
    target = Ising(length, beta, 1.0, field)
    x = target.sample(jax.random.key(2), 4_000)
    assert max(np.abs(z_scores(x, target))) < SIGMAS


def test_transfer_draws_are_the_same_at_every_bond():
    target = Ising(10, 0.4407)
    x = target.sample(jax.random.key(3), 8_000)
    spins = 2.0 * np.asarray(x).reshape(-1, 10, 10) - 1
    mean = -target.mean_energy / (0.4407 * 200)
    for axis in (1, 2):
        bonds = (spins * np.roll(spins, -1, axis)).mean(0)
        z = (bonds - mean) / np.sqrt((1 - mean**2) / len(x))
        assert np.abs(z).max() < 5.0  # the largest of 100; 4 standard errors after a Bonferroni correction


def test_draws_are_reproducible():
    target = Ising(4, 0.4)
    first, again, other = (target.sample(jax.random.key(seed), 50) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_long_tori_are_sampled_by_cluster_moves():
    target = Ising(16, 0.4407)
    x = target.sample(jax.random.key(4), 1_500)
    assert x.shape == (1_500, 256)
    energies = np.asarray(jax.vmap(target.energy)(x), np.float64)
    error = target.energy_std / np.sqrt(1_500)  # successive draws of a chain correlate by less than .03
    assert abs(energies.mean() - target.mean_energy) < SIGMAS * error
    assert abs(energies.std() / target.energy_std - 1) < SIGMAS / np.sqrt(1_500)  # kurtosis below 3 here
    up = (2 * np.asarray(x).mean(1) - 1 > 0).mean()
    assert abs(up - 0.5) < SIGMAS * 0.5 / np.sqrt(1_500)


@pytest.mark.parametrize("field", [None, 0.15])
def test_one_cluster_step_keeps_the_full_law(field):
    target = Ising(3, 0.3, 1.0, 0.0 if field is None else field)
    start = target.sample(jax.random.key(5), 40_000)
    kernel = swendsen_wang(length=3, coupling=0.3, field=None if field is None else 0.3 * field)
    state = jax.vmap(kernel.init)(start)
    state, info = jax.vmap(kernel.step)(jax.random.split(jax.random.key(6), 40_000), state)
    assert (state.position != start).mean() > 0.1
    assert info.num_clusters.min() >= 1
    assert abs(chi_square_z(state.position, target)) < SIGMAS


def test_cluster_chains_reach_the_law_from_one_corner():
    target = Ising(5, 0.4)
    kernel = swendsen_wang(length=5, coupling=0.4)
    state = jax.vmap(kernel.init)(jnp.ones((4_000, 25), jnp.int32))

    def sweep(state, key):
        return jax.vmap(kernel.step)(jax.random.split(key, 4_000), state)[0], None

    state, _ = jax.jit(lambda s: jax.lax.scan(sweep, s, jax.random.split(jax.random.key(7), 40)))(state)
    assert max(np.abs(z_scores(state.position, target))) < SIGMAS


def test_labels_are_connected_components():
    rng = np.random.default_rng(0)
    length = 12
    index = np.arange(length**2).reshape(length, length)
    for density in (0.2, 0.5, 0.7, 1.0):
        right, down = rng.random((2, length, length)) < density
        pairs = [(index, np.roll(index, -1, 1), right), (index, np.roll(index, -1, 0), down)]
        i = np.concatenate([a[keep] for a, _, keep in pairs])
        j = np.concatenate([b[keep] for _, b, keep in pairs])
        graph = coo_array((np.ones(i.size), (i, j)), shape=(length**2, length**2))
        _, components = connected_components(graph, directed=False)
        smallest = np.array([np.nonzero(components == c)[0].min() for c in components])
        got = jax.jit(cluster_labels)(jnp.asarray(right), jnp.asarray(down))
        np.testing.assert_array_equal(np.asarray(got).ravel(), smallest)


def test_labels_of_a_winding_path():
    """One snake through every site: the longest path there is."""
    length = 8
    right, down = np.zeros((2, length, length), bool)
    right[:, :-1] = True
    down[np.arange(length - 1), [0 if i % 2 else length - 1 for i in range(length - 1)]] = True
    assert not np.asarray(cluster_labels(jnp.asarray(right), jnp.asarray(down))).any()


def test_kernel_arguments_are_checked():
    with pytest.raises(ValueError, match="length"):
        swendsen_wang(length=2, coupling=0.4)
    with pytest.raises(ValueError, match="coupling"):
        swendsen_wang(length=4, coupling=-0.4)
