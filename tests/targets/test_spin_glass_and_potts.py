"""The spin glass and the Potts torus against enumeration, the Ising model and exact symmetries.

Tolerances: float64 rounding between exact routes; 1e-5 relative for float32 energies; four standard errors of
a fixed-seed draw (a chi-square by its normal approximation).
"""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.mcmc import swendsen_wang
from egmjax.targets import Ising, Potts, SpinGlass, Target, enumerate_states
from egmjax.targets import _torus_transfer as transfer

pytestmark = pytest.mark.slow  # compiles a lot

SIGMAS = 4.0


def gaussian_glass(length, seed, field=0.3, beta=0.6):
    rng = np.random.default_rng(seed)
    right, down = rng.normal(size=(2, length, length))
    return SpinGlass(length, beta, right, down, field * rng.normal(size=(length, length)))


def defined_energies(target, x):
    """The definition, bond by bond, in float64, for states `[n, L * L]`."""
    length = target.length
    grid = np.asarray(x, np.float64).reshape(-1, length, length)
    total = np.zeros(len(grid))
    for r, c in itertools.product(range(length), repeat=2):
        here, right, down = grid[:, r, c], grid[:, r, (c + 1) % length], grid[:, (r + 1) % length, c]
        if isinstance(target, Potts):
            total -= target.coupling * ((here == right).astype(float) + (here == down))
            continue
        if isinstance(target, Ising):
            j_right, j_down, h = target.coupling, target.coupling, target.field
        else:
            h = np.broadcast_to(target.field, (length, length))[r, c]
            j_right, j_down = (
                np.broadcast_to(j, (length, length))[r, c]
                for j in (target.coupling_right, target.coupling_down)
            )
        here, right, down = (2 * s - 1 for s in (here, right, down))
        total -= here * (j_right * right + j_down * down + h)
    return target.beta * total


def enumerated(target):
    """`(probs, log Z, mean, standard deviation)` in float64, in the order of `enumerate_states`."""
    energy = defined_energies(target, enumerate_states(target.length**2, target.space.num_states))
    log_z = np.logaddexp.reduce(-energy)
    probs = np.exp(-energy - log_z)
    mean = probs @ energy
    return probs, log_z, mean, np.sqrt(probs @ (energy - mean) ** 2)


def chi_square_z(x, probs, num_states):
    """Standardised chi-square of states against a law; states expected under 5 times are pooled."""
    x = np.asarray(x)
    expected = len(x) * probs
    index = x @ (num_states ** np.arange(x.shape[1] - 1, -1, -1))
    observed = np.bincount(index, minlength=expected.size)
    rare = expected < 5
    if rare.any():
        expected = np.append(expected[~rare], expected[rare].sum())
        observed = np.append(observed[~rare], observed[rare].sum())
    freedom = expected.size - 1
    return (np.sum((observed - expected) ** 2 / expected) - freedom) / np.sqrt(2 * freedom)


def energy_z(target, x):
    """The mean energy of independent draws against the exact one, in standard errors."""
    energies = defined_energies(target, x)
    return (energies.mean() - target.mean_energy) / target.energy_std * np.sqrt(len(energies))


@jax.jit
def generic_site_energies(target, x):
    """Every changed state's energy."""
    return Target.site_energies(target, x)


def check_site_energies(target, x, energies):
    """Equal to the energies of all changed states, up to a constant for each site."""
    want = generic_site_energies(target, x)
    assert energies.shape == want.shape
    centred = [e - np.mean(e, -1, keepdims=True) for e in (np.asarray(energies), np.asarray(want))]
    np.testing.assert_allclose(*centred, atol=2e-5)


LATTICES = [
    Ising(5, 0.4, -0.7, 0.3),
    Ising(4, 0.4407),
    gaussian_glass(5, 0),
    SpinGlass(4, 0.3, 1.0, -0.5, 0.2),
    SpinGlass.plus_minus(6, 1.0, 1),
    Potts(5, 3, 0.8),
    Potts(4, 2, 0.5, -1.0),
]


@pytest.mark.parametrize("target", LATTICES, ids=lambda target: type(target).__name__)
def test_energy_against_its_definition(target, precision):
    x = (
        np.random.default_rng(1)
        .integers(0, target.space.num_states, (20, target.space.sites))
        .astype(np.int32)
    )
    want = defined_energies(target, x)
    got = jax.jit(jax.vmap(target.energy))(x)
    assert got.dtype == precision
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(target.energy)(x.astype(np.uint8)), want, rtol=1e-5, atol=1e-5)
    if not isinstance(target, Potts):
        np.testing.assert_allclose(jax.vmap(target.energy)(x.astype(precision)), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", LATTICES, ids=lambda target: type(target).__name__)
def test_site_energies_are_differences_of_energies(target, precision):
    x = np.random.default_rng(2).integers(0, target.space.num_states, target.space.sites).astype(np.int32)
    energies = jax.jit(lambda target, x: target.site_energies(x))(target, x)
    assert energies.dtype == precision
    check_site_energies(target, jnp.asarray(x), energies)
    np.testing.assert_array_equal(target.site_energies(jnp.asarray(x, jnp.uint8)), target.site_energies(x))
    if not isinstance(target, Potts):
        relaxed = jnp.asarray(np.random.default_rng(3).random(target.space.sites), precision)
        check_site_energies(target, relaxed, target.site_energies(relaxed))


def test_site_energies_catch_a_seeded_fault():
    """Couplings read at the site itself for all four of its bonds are right for equal couplings alone."""
    target, x = gaussian_glass(5, 0), jnp.asarray(np.random.default_rng(2).integers(0, 2, 25), jnp.int32)
    spins = 2.0 * np.asarray(x).reshape(5, 5) - 1
    around = sum(
        coupling * (np.roll(spins, 1, axis) + np.roll(spins, -1, axis))
        for coupling, axis in ((target.coupling_right, 1), (target.coupling_down, 0))
    )
    local = 0.6 * (around + target.field).ravel()
    with pytest.raises(AssertionError):
        check_site_energies(target, x, np.stack([local, -local], -1))


@pytest.mark.parametrize(
    "target",
    [
        gaussian_glass(3, 0),
        gaussian_glass(4, 1, beta=1.5),
        SpinGlass.plus_minus(4, 0.8, 3),
        SpinGlass(3, 0.4, 1.0, -0.5, 0.2),
        Potts(3, 3, 1.0),
        Potts(3, 3, 0.7, -1.0),
        Potts(3, 4, 1.1),
        Potts(4, 2, 0.9),
    ],
    ids=lambda target: f"{type(target).__name__}{target.length}",
)
def test_moments_against_enumeration(target):
    _, log_z, mean, std = enumerated(target)
    assert target.log_z == pytest.approx(log_z, abs=1e-10)
    assert target.mean_energy == pytest.approx(mean, abs=1e-9)
    assert target.energy_std == pytest.approx(std, abs=1e-9)


def test_moments_catch_exchanged_bonds():
    target = gaussian_glass(3, 0)
    exchanged = SpinGlass(3, target.beta, target.coupling_down, target.coupling_right, target.field)
    assert abs(exchanged.log_z - enumerated(target)[1]) > 1e-3


@pytest.mark.parametrize(
    ("length", "k", "b"), [(5, 0.4407, 0.0), (7, -0.3, 0.0), (8, 0.4, 0.05), (10, 0.4407, 0.0)]
)
def test_equal_couplings_are_the_ising_model(length, k, b):
    ising, glass = Ising(length, k, 1.0, b), SpinGlass(length, k, 1.0, 1.0, b)
    want = (ising.log_z, ising.mean_energy, ising.energy_std)
    np.testing.assert_allclose((glass.log_z, glass.mean_energy, glass.energy_std), want, rtol=1e-9)
    if b == 0 and length < 10:  # s s' = 2 1{s = s'} - 1
        potts = Potts(length, 2, 2 * k)
        bonds = 2 * length**2 * k
        got = (potts.log_z - bonds, potts.mean_energy + bonds, potts.energy_std)
        np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize(("length", "q", "beta"), [(3, 5, 0.9), (4, 3, 1.00505), (5, 3, -0.4), (5, 2, 1.3)])
def test_column_by_column(length, q, beta):
    """One column of the transfer matrix for each orbit of rows, even and odd sides, against all of it at once."""
    target = Potts(length, q, beta)
    assert target.log_z_by_columns() == pytest.approx(target.log_z, rel=1e-13)
    rows, sizes = transfer._orbits(length, q)
    states = enumerate_states(length, q)
    found = set()
    for row, size in zip(rows, sizes):
        images = {
            tuple(np.asarray(new)[np.roll(states[row], turn)[::step]])
            for new in itertools.permutations(range(q))
            for turn in range(length)
            for step in (1, -1)
        }
        assert len(images) == size
        assert not found & images
        found |= images
    assert len(found) == q**length


def by_clusters(q, k):
    """`log Z` of the 3x3 torus by Fortuin and Kasteleyn: a bond at a time, `sum of (e^K - 1)^bonds q^clusters`."""
    sites = np.arange(9).reshape(3, 3)
    found = {tuple(range(9)): 1.0}
    for a, b in ((a, b) for axis in (0, 1) for a, b in zip(sites.flat, np.roll(sites, -1, axis).flat)):
        new = collections.Counter(found)
        for cluster, weight in found.items():
            low, high = sorted((cluster[a], cluster[b]))
            new[tuple(low if c == high else c for c in cluster)] += weight * np.expm1(k)
        found = dict(new)
    return np.log(sum(weight * float(q) ** len(set(cluster)) for cluster, weight in found.items()))


@pytest.mark.parametrize("q", [3, 21, 130])
def test_columns_of_many_symbols(q):
    """Far more symbols than sites in a row."""
    assert Potts(3, q, 0.7).log_z_by_columns() == pytest.approx(by_clusters(q, 0.7), rel=1e-12)


def test_columns_out_of_reach(monkeypatch):
    with pytest.raises(ValueError, match="length"):
        Potts(14, 3, 1.0).log_z_by_columns()
    with pytest.raises(ValueError, match="bond"):
        Potts(4, 3, 50.0).log_z_by_columns()
    # a seeded fault: reflections forgotten in the sizes of orbits
    rows, sizes = transfer._orbits(4, 3)
    monkeypatch.setattr(transfer, "_orbits", lambda *_: (rows, np.maximum(sizes // 2, 1)))
    assert abs(Potts(4, 3, 1.0).log_z_by_columns() - Potts(4, 3, 1.0).log_z) > 0.1


def test_a_glass_with_randomly_flipped_axes_is_the_same_glass():
    """`s_i -> g_i s_i` with `J_ij -> g_i J_ij g_j` and `h_i -> g_i h_i` leaves all sums alone."""
    target = gaussian_glass(8, 4)
    g = 2.0 * np.random.default_rng(5).integers(2, size=(8, 8)) - 1
    turned = SpinGlass(
        8,
        target.beta,
        g * target.coupling_right * np.roll(g, -1, 1),
        g * target.coupling_down * np.roll(g, -1, 0),
        g * target.field,
    )
    for name in ("log_z", "mean_energy", "energy_std"):
        assert getattr(turned, name) == pytest.approx(getattr(target, name), rel=1e-10)


def test_a_frozen_glass_stays_in_its_ground_states():
    """At low temperature `E / beta` is an integer and the entropy the log of an even number."""
    target = SpinGlass.plus_minus(5, 10.0, 1)
    ground = round(target.mean_energy / target.beta)
    assert target.mean_energy / target.beta == pytest.approx(ground, abs=1e-9)
    assert target.energy_std < 1e-5  # rounding of the mean square, 4e-12
    degeneracy = np.exp(target.log_z + target.mean_energy)
    assert degeneracy == pytest.approx(round(degeneracy), abs=1e-6)
    assert round(degeneracy) % 2 == 0


def test_plus_minus_couplings():
    target = SpinGlass.plus_minus(10, 1.0, 7)
    couplings = np.stack([target.coupling_right, target.coupling_down])
    np.testing.assert_array_equal(abs(couplings), 1.0)
    assert abs(couplings.sum()) < SIGMAS * np.sqrt(200)
    np.testing.assert_array_equal(couplings[0], SpinGlass.plus_minus(10, 0.5, 7).coupling_right)
    assert (couplings[0] != SpinGlass.plus_minus(10, 1.0, 8).coupling_right).any()
    assert target.symmetric_under_flip
    assert not gaussian_glass(4, 0).symmetric_under_flip


@pytest.mark.parametrize(
    ("target", "other"),
    [
        (gaussian_glass(3, 0), gaussian_glass(3, 0, beta=0.66)),
        (SpinGlass.plus_minus(3, 0.4, 1), SpinGlass.plus_minus(3, 0.45, 1)),
        (Potts(3, 3, 0.6), Potts(3, 3, 0.65)),
    ],
)
def test_draws_follow_the_full_law(target, other):
    num_states = target.space.num_states
    x = target.sample(jax.random.key(1), 100_000)
    assert x.shape == (100_000, 9)
    assert x.dtype == jnp.int32
    assert abs(chi_square_z(x, enumerated(target)[0], num_states)) < SIGMAS
    assert abs(chi_square_z(x, enumerated(other)[0], num_states)) > SIGMAS  # the test has power
    np.testing.assert_array_equal(x[:50], target.sample(jax.random.key(1), 100_000)[:50])


@pytest.mark.parametrize("target", [gaussian_glass(8, 6, beta=1.0), Potts(5, 4, 1.0986)])
def test_draws_of_larger_tori(target):
    x = target.sample(jax.random.key(2), 4_000)
    assert abs(energy_z(target, x)) < SIGMAS
    spread = defined_energies(target, x).std() / target.energy_std
    assert abs(spread - 1) < SIGMAS / np.sqrt(4_000)  # kurtosis below 3 + 2 here


def test_one_cluster_step_keeps_the_potts_law():
    num_states = 3
    target = Potts(3, num_states, 0.7)
    start = target.sample(jax.random.key(3), 30_000)
    kernel = swendsen_wang(length=3, coupling=0.35, num_states=num_states)
    state = jax.vmap(kernel.init)(start)
    state, _ = jax.jit(jax.vmap(kernel.step))(jax.random.split(jax.random.key(4), 30_000), state)
    assert (state.position != start).mean() > 0.1
    assert abs(chi_square_z(state.position, enumerated(target)[0], 3)) < SIGMAS
    assert abs(energy_z(target, state.position)) < SIGMAS
    counts = np.bincount(np.asarray(state.position[:, 0]), minlength=num_states)
    assert np.abs(counts / 30_000 - 1 / num_states).max() < SIGMAS * np.sqrt(0.25 / 30_000)


def test_larger_potts_tori_are_sampled_by_cluster_moves(monkeypatch):
    """Cluster moves take over beyond the transfer matrix; here on a torus where it can check them."""
    target, other = Potts(5, 3, 0.9), Potts(5, 3, 0.8)
    exact = (target.log_z, target.mean_energy, target.energy_std, other.mean_energy)
    monkeypatch.setattr(Potts, "_is_solved", False)
    x = np.asarray(target.sample(jax.random.key(5), 1_000))
    assert x.shape == (1_000, 25)
    energies, error = defined_energies(target, x), exact[2] / np.sqrt(1_000)
    assert abs(energies.mean() - exact[1]) < SIGMAS * error
    assert abs(energies.mean() - exact[3] * 0.9 / 0.8) > SIGMAS * error  # the test has power
    counts = np.bincount(x[:, 0], minlength=3)
    assert np.abs(counts / 1_000 - 1 / 3).max() < SIGMAS * np.sqrt(2 / 9 / 1_000)
    assert Potts(8, 3, 0.8, -1.0).sample(jax.random.key(6), 2) is None
    assert Potts(6, 5, 0.8).sample(jax.random.key(6), 2) is None


def test_what_is_not_known_is_none():
    target = SpinGlass.plus_minus(11, 1.0)
    assert target.log_z is None
    assert target.mean_energy is None
    assert target.energy_std is None
    assert target.sample(jax.random.key(0), 2) is None
    assert Potts(8, 3, 1.0).log_z is None
    assert Potts(8, 3, 1.0).mean_energy is None
    assert Potts(8, 3, 1.0).energy_std is None


def test_observables():
    up = jnp.ones(9, jnp.int32)
    observables = SpinGlass.plus_minus(3, 0.1).observables
    assert float(observables["magnetization"](up.at[0].set(0))) == pytest.approx(7 / 9)
    assert float(observables["abs_magnetization"](0 * up)) == 1.0
    order = Potts(3, 3, 0.1).observables["order_parameter"]
    assert float(order(2 * up)) == pytest.approx(1.0)
    assert float(order(jnp.arange(9, dtype=jnp.int32) % 3)) == pytest.approx(0.0, abs=1e-6)
    assert Potts(3, 2, 0.1).symmetric_under_flip
    assert not Potts(3, 3, 0.1).symmetric_under_flip
    assert Potts(3, 3, 0.1).symmetric_under_relabelling
    assert SpinGlass.plus_minus(3, 0.1).symmetric_under_relabelling
    assert not gaussian_glass(4, 0).symmetric_under_relabelling


def test_leaves_sweep_without_retracing():
    num_traces = 0

    @jax.jit
    def energy(target, x):
        nonlocal num_traces
        num_traces += 1
        return target.energy(x)

    x = jnp.asarray(np.random.default_rng(2).integers(0, 2, 16), jnp.int32)
    glasses = [gaussian_glass(4, seed) for seed in range(3)]
    got = [float(energy(glass, x)) for glass in glasses]
    assert num_traces == 1
    np.testing.assert_allclose(got, [defined_energies(glass, x)[0] for glass in glasses], rtol=1e-5)
    batch = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf, float) for leaf in leaves]), *glasses)
    np.testing.assert_allclose(jax.vmap(lambda glass: glass.energy(x))(batch), got, rtol=1e-5)
    slope = jax.grad(lambda beta: Potts(4, 2, beta).energy(x))(0.3)
    assert float(slope) == pytest.approx(defined_energies(Potts(4, 2, 1.0), x)[0], rel=1e-5)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: SpinGlass(2, 1.0, 1.0, 1.0), "length"),
        (lambda: SpinGlass(4, 1.0, np.ones((4, 3)), 1.0), "coupling_right"),
        (lambda: SpinGlass(4, 1.0, 1.0, np.ones(16)), "coupling_down"),
        (lambda: SpinGlass(4, 1.0, 1.0, 1.0, np.ones(4)), "field"),
        (lambda: Potts(2, 3, 1.0), "length"),
        (lambda: Potts(3, 1, 1.0), "num_states"),
        (lambda: swendsen_wang(length=3, coupling=0.1, num_states=1), "num_states"),
        (lambda: swendsen_wang(length=3, coupling=0.1, field=0.1, num_states=3), "field"),
    ],
)
def test_arguments_are_checked(make, name):
    with pytest.raises(ValueError, match=rf"^{name}:"):
        make()


@pytest.mark.parametrize(
    "target", [SpinGlass.plus_minus(10, 8.0), SpinGlass.plus_minus(12, 0.5), Potts(7, 3, 30.0)], ids=str
)
def test_out_of_reach_is_unknown_and_not_an_error(target):
    """Too cold for float64, or too wide: a run on such a target is to end with a report that says so."""
    assert target.log_z is None
    assert target.mean_energy is None
    assert target.energy_std is None
    if isinstance(target, SpinGlass):
        assert target.sample(jax.random.key(0), 5) is None
