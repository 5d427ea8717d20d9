"""Log-means, denoisers and draws of partly masked lattices against enumeration and the chain rule.

Tolerances: float64 rounding between exact routes; four standard errors of fixed-seed draws.
"""

import itertools

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from egmjax.targets import (
    GaussianMixture,
    Ising,
    Potts,
    SpinGlass,
    clamped_log_mean,
    clamped_sample,
    enumerate_states,
    exact_denoiser,
)
from egmjax.targets._torus_transfer import Torus, log_sum, sample, site_probs

pytestmark = pytest.mark.slow  # compiles a lot

RNG = np.random.default_rng(0)
RIGHT, DOWN, FIELD = RNG.normal(size=(3, 4, 4))
TARGETS = [
    Ising(3, 0.4407),
    Ising(3, 0.4, -0.8, 0.3),
    SpinGlass(3, 0.9, RIGHT[:3, :3], DOWN[:3, :3], FIELD[:3, :3]),
    Potts(3, 3, 0.9),
]


def float64_energies(target, states):
    """`E` in float64, written from the definitions on the grid of couplings."""
    length = target.length
    grid = states.reshape(-1, length, length)
    right, down = np.roll(grid, -1, 2), np.roll(grid, -1, 1)
    if isinstance(target, Potts):
        return -target.beta * target.coupling * ((grid == right).sum((1, 2)) + (grid == down).sum((1, 2)))
    pair = (
        (target.coupling,) * 2 if isinstance(target, Ising) else (target.coupling_right, target.coupling_down)
    )
    s, right, down = (2.0 * part - 1 for part in (grid, right, down))
    return -target.beta * (s * (pair[0] * right + pair[1] * down + target.field)).sum((1, 2))


def enumerated(negative, states, xt, num_states):
    """`(psi, probs)` by looking at every state; `negative` is `-E`."""
    agrees = np.all((xt == num_states) | (states == xt), axis=1)
    log_total = logsumexp(negative[agrees])
    law = np.exp(negative[agrees] - log_total)
    probs = law @ (states[agrees][:, :, None] == np.arange(num_states)).reshape(len(law), -1)
    return log_total - np.sum(xt == num_states) * np.log(num_states), probs.reshape(-1, num_states)


def random_masks(rng, sites, num_states, num):
    """States with every share of masks, from none to all."""
    x = rng.integers(num_states, size=(num, sites))
    share = np.linspace(0, 1, num)[:, None]
    return np.where(rng.random((num, sites)) < share, num_states, x)


def check_against_enumeration(target, model, xts):
    """The library's answers for `target` are those of enumerating `model`."""
    num_states = model.space.num_states
    states = enumerate_states(model.space.sites, num_states)
    negative = -float64_energies(model, states)
    for xt in xts:
        want_psi, want_probs = enumerated(negative, states, xt, num_states)
        psi, probs = exact_denoiser(target, xt)
        assert psi == pytest.approx(want_psi, abs=1e-11)
        assert clamped_log_mean(target, xt) == pytest.approx(want_psi, abs=1e-11)
        np.testing.assert_allclose(probs, want_probs, atol=1e-12)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: type(target).__name__)
def test_masked_tori_against_enumeration(target):
    num_states = target.space.num_states
    xts = random_masks(np.random.default_rng(1), 9, num_states, 80 if num_states == 2 else 25)
    check_against_enumeration(target, target, xts)


def test_every_mask_of_two_rows():
    """Sites of one row free or not in every way, and the row below it all free."""
    target = TARGETS[2]
    xts = [
        np.array([*row, 2, 2, 2, *rest])
        for row in itertools.product((1, 2), repeat=3)
        for rest in ([0, 1, 1],)
    ]
    check_against_enumeration(target, target, xts)


def test_a_glass_of_sixteen_spins_against_enumeration():
    target = SpinGlass(4, 1.3, RIGHT, DOWN, FIELD)
    check_against_enumeration(target, target, random_masks(np.random.default_rng(2), 16, 2, 8))


def test_seeded_faults_are_caught():
    target = TARGETS[2]
    xts = random_masks(np.random.default_rng(3), 9, 2, 10)
    exchanged = SpinGlass(3, 0.9, target.coupling_down, target.coupling_right, target.field)
    shifted = SpinGlass(3, 0.9, np.roll(target.coupling_right, 1, 0), target.coupling_down, target.field)
    for fault in (exchanged, shifted):
        with pytest.raises(AssertionError):
            check_against_enumeration(fault, target, xts)


@pytest.mark.parametrize(("rows", "columns", "num_states"), [(3, 4, 2), (4, 3, 2), (2, 3, 3), (5, 2, 2)])
def test_oblong_tori_with_a_field_for_each_symbol(rows, columns, num_states):
    rng = np.random.default_rng(4)
    right, down = rng.normal(size=(2, rows, columns))
    field = rng.normal(size=(rows, columns, num_states))
    torus = Torus(right, down, field, 0.7)
    states = enumerate_states(rows * columns, num_states)
    grid = states.reshape(-1, rows, columns)
    negative = 0.7 + np.sum(
        right * (grid == np.roll(grid, -1, 2)) + down * (grid == np.roll(grid, -1, 1)), (1, 2)
    )
    for r, c in itertools.product(range(rows), range(columns)):
        negative += field[r, c, grid[:, r, c]]
    for xt in random_masks(rng, rows * columns, num_states, 20):
        psi, probs = enumerated(negative, states, xt, num_states)
        completions = np.sum(xt == num_states) * np.log(num_states)
        got, got_probs = site_probs(torus, xt.reshape(rows, columns))
        assert got == pytest.approx(psi + completions, abs=1e-11)
        assert log_sum(torus, xt.reshape(rows, columns)) == pytest.approx(psi + completions, abs=1e-11)
        np.testing.assert_allclose(got_probs.reshape(-1, num_states), probs, atol=1e-12)


@pytest.mark.parametrize(("length", "beta", "log_z"), [(5, 0.4407, 23.88681), (10, 0.4407, 93.61225)])
def test_all_masked_is_the_normaliser(length, beta, log_z):
    psi, probs = exact_denoiser(Ising(length, beta), np.full(length**2, 2))
    assert psi + length**2 * np.log(2) == pytest.approx(log_z, abs=0.51e-5)
    assert psi + length**2 * np.log(2) == pytest.approx(Ising(length, beta).log_z, abs=1e-10)
    np.testing.assert_allclose(probs, 0.5, atol=1e-12)


def test_a_very_cold_lattice():
    cold = Ising(10, 6.0)
    psi, probs = exact_denoiser(cold, np.full(100, 2))
    assert psi + 100 * np.log(2) == pytest.approx(cold.log_z, rel=1e-12)
    np.testing.assert_allclose(probs, 0.5, atol=1e-12)


def test_fields_agree_with_the_homogeneous_transfer_matrix():
    target = Ising(10, 0.4, 1.0, 0.03)
    assert clamped_log_mean(target, np.full(100, 2)) + 100 * np.log(2) == pytest.approx(
        target.log_z, abs=1e-9
    )


def test_nothing_masked_is_the_energy():
    target = SpinGlass.plus_minus(10, 1.0)
    x = np.random.default_rng(5).integers(2, size=100)
    psi, probs = exact_denoiser(target, x)
    assert psi == pytest.approx(-float(target.energy(jax.numpy.asarray(x))), abs=1e-4)  # float32 energy
    np.testing.assert_array_equal(probs, np.eye(2)[x])


@pytest.mark.parametrize(
    "target", [Ising(10, 0.4407), SpinGlass.plus_minus(10, 1.2, 1), Ising(10, 3.0), Potts(6, 4, 1.1)]
)
def test_chain_rule_on_large_lattices(target):
    """`P(x_i = s | x_t) = exp(psi(x_t with x_i = s) - psi(x_t)) / q`: a ratio of means."""
    rng = np.random.default_rng(6)
    num_states = target.space.num_states
    x = rng.integers(num_states, size=target.space.sites)
    xt = np.where(rng.random(x.size) < 0.6, num_states, x)
    psi, probs = exact_denoiser(target, xt)
    np.testing.assert_allclose(probs.sum(1), 1.0, rtol=1e-12)
    for site in rng.choice(np.flatnonzero(xt == num_states), 6):
        for symbol in range(num_states):
            revealed = xt.copy()
            revealed[site] = symbol
            ratio = np.exp(clamped_log_mean(target, revealed) - psi) / num_states
            assert probs[site, symbol] == pytest.approx(ratio, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("target", TARGETS[1:], ids=lambda target: type(target).__name__)
def test_completions_follow_their_law(target):
    num_states = target.space.num_states
    xt = np.array([0, 1, num_states, num_states, num_states, 1, num_states, 0, num_states])
    states = enumerate_states(9, num_states)
    states = states[np.all((xt == num_states) | (states == xt), axis=1)]
    negative = -float64_energies(target, states)
    num = 20_000
    expected = num * np.exp(negative - logsumexp(negative))
    x = np.asarray(clamped_sample(jax.random.key(0), target, xt, num))
    assert x.shape == (num, 9)
    powers = num_states ** np.arange(8, -1, -1)
    order = np.searchsorted(states @ powers, x @ powers)
    np.testing.assert_array_equal(states[order], x)  # every draw is a completion
    observed = np.bincount(order, minlength=len(states))
    rare = expected < 5
    observed, expected = (np.append(v[~rare], v[rare].sum()) for v in (observed, expected))
    freedom = len(expected) - 1 - (expected[-1] == 0)
    keep = expected > 0
    chi_square = np.sum((observed[keep] - expected[keep]) ** 2 / expected[keep])
    assert abs(chi_square - freedom) / np.sqrt(2 * freedom) < 4.0


def test_completions_of_a_large_lattice_have_the_denoiser_as_their_mean():
    target = SpinGlass.plus_minus(10, 1.0, 2)
    rng = np.random.default_rng(7)
    xt = np.where(rng.random(100) < 0.6, 2, rng.integers(2, size=100))
    _, probs = exact_denoiser(target, xt)
    x = np.asarray(clamped_sample(jax.random.key(1), target, xt, 4_000))
    np.testing.assert_array_equal(x[:, xt < 2], np.broadcast_to(xt[xt < 2], (4_000, np.sum(xt < 2))))
    up = probs[:, 1]
    error = np.sqrt(np.maximum(up * (1 - up), 1e-3) / 4_000)
    assert np.abs((x.mean(0) - up) / error).max() < 5.0  # the largest of 100; 4 after a Bonferroni correction
    again = clamped_sample(jax.random.key(1), target, xt, 4_000)
    np.testing.assert_array_equal(x, again)


def test_draws_do_not_mix_up_solutions():
    """Solutions are kept between calls; another model or mask has its own."""
    rng = np.random.default_rng(8)
    zeros = np.zeros((3, 3))
    field = np.zeros((3, 3, 2))
    up = field + np.array([0.0, 40.0])
    assert sample(rng, Torus(zeros, zeros, up), 10).min() == 1
    assert sample(rng, Torus(zeros, zeros, -up), 10).max() == 0
    clamped = np.full((3, 3), 2)
    clamped[1] = 0
    assert sample(rng, Torus(zeros, zeros, up), 10, clamped)[:, 1].max() == 0


def test_arguments_are_checked():
    target = Ising(12, 0.4)
    with pytest.raises(ValueError, match=r"^xt: 12 and 12 masked sites"):
        clamped_log_mean(target, np.full(144, 2))
    striped = np.full((12, 12), 2)
    striped[0] = 1
    psi = clamped_log_mean(target, striped.ravel())  # one clamped row makes it narrow
    assert np.isfinite(psi)
    with pytest.raises(ValueError, match=r"^xt: expected integers"):
        exact_denoiser(Ising(3, 0.4), np.zeros((3, 3), int))
    with pytest.raises(ValueError, match=r"^xt: expected integers"):
        exact_denoiser(Ising(3, 0.4), np.zeros(9))
    with pytest.raises(ValueError, match=r"^xt: expected symbols"):
        exact_denoiser(Ising(3, 0.4), np.full(9, 3))
    with pytest.raises(ValueError, match=r"^target: couplings"):
        clamped_log_mean(Ising(10, 20.0), np.full(100, 2))
    with pytest.raises(ValueError, match=r"^target: expected"):
        clamped_log_mean(GaussianMixture.gmm25(), np.full(9, 2))
