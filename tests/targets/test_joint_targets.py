"""JointMoG, JointDW4 and mean-free coordinates against closed forms, quadrature and each other.

Statistical tests allow four standard errors of a fixed-seed draw; the constants of JointDW4 are held to
Fourier quadrature at the accuracy of its grid, and to counts of its rejection sampler.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import chi2, kstest

from egmjax.targets import JointDW4, JointMoG, Target, enumerate_states, mean_free_basis
from egmjax.targets import _joint_dw4 as dw4
from egmjax.targets._star_rejection import star_accepted

pytestmark = pytest.mark.slow  # compiles a lot

NUM = 20_000
SIGMAS = 4.0
TYPE_PAIRS = ((0, 0), (0, 1), (1, 1))


def batched(fn, x):
    return np.asarray(jax.jit(jax.vmap(fn))(x), np.float64)


def z_score(values, mean, std=None):
    """Distance of a sample mean from `mean`, in standard errors."""
    values = np.asarray(values, np.float64)
    return (values.mean() - mean) / ((values.std() if std is None else std) / np.sqrt(len(values)))


def count_z(index, weights):
    """Standardised chi-square of cell counts against probabilities."""
    expected = len(index) * weights
    statistic = np.sum((np.bincount(index, minlength=len(weights)) - expected) ** 2 / expected)
    return (statistic - (len(weights) - 1)) / np.sqrt(2 * (len(weights) - 1))


def random_state(space, seed):
    rng = np.random.default_rng(seed)
    y = jnp.asarray(1.5 * rng.standard_normal(space[0].shape), float)
    return y, jnp.asarray(rng.integers(0, 2, space[1].sites), jnp.int32)


@pytest.mark.parametrize("target", [JointMoG(), JointMoG(3, 0.5), JointDW4()], ids=["mog", "mog3", "dw4"])
def test_site_energies_are_differences_of_energy(target, precision):
    """The cheap conditionals against the generic ones, which put every symbol in and evaluate the energy."""
    x = random_state(target.space, 0)
    got, want = np.asarray(jax.jit(target.site_energies)(x)), np.asarray(Target.site_energies(target, x))
    scale = {"float32": 3e-6, "float64": 1e-13}[precision] * abs(want).max()
    np.testing.assert_allclose(got - got[:, :1], want - want[:, :1], atol=scale)
    assert got.dtype == want.dtype == target.energy(x).dtype == jnp.dtype(precision)


def test_joint_mog_published_numbers():
    target = JointMoG()
    assert target.log_z == pytest.approx(4.0811, abs=0.51e-4)
    assert target.mean_energy == 5.0
    assert target.energy_std**2 == pytest.approx(5.0)


def test_joint_mog_against_quadrature(x64):
    """One pair: the sum over both symbols of a trapezoid rule. Pairs are independent, so log Z and moments add."""
    target, x = JointMoG(1, 0.45), np.linspace(-6.0, 6.0, 2001)
    energies = np.array(
        [batched(target.energy, (x[:, None], np.full((x.size, 1), d, np.int32))) for d in (0, 1)]
    )
    log_z = logsumexp(-energies) + np.log(x[1] - x[0])
    probs = np.exp(-energies - logsumexp(-energies))
    assert JointMoG(7, 0.45).log_z == pytest.approx(7 * log_z, abs=1e-9)
    assert target.mean_energy == pytest.approx(np.sum(probs * energies), abs=1e-9)
    assert target.energy_std == pytest.approx(np.sqrt(np.sum(probs * (energies - 0.5) ** 2)), abs=1e-9)
    agree = probs[0, :1000].sum() + probs[1, 1001:].sum() + 0.5 * probs[:, 1000].sum()  # x[1000] = 0
    values, law = JointMoG(1, 0.45).sign_agreement_law()
    assert values.tolist() == [0.0, 1.0]
    assert law[1] == pytest.approx(agree, abs=1e-5)  # a trapezoid rule cut at zero


def test_joint_mog_draws_follow_every_law():
    target = JointMoG(5, 0.8)  # wide enough for signs to disagree
    x = target.sample(jax.random.key(1), NUM)
    assert x[0].shape == x[1].shape == (NUM, 5)
    assert x[1].dtype == jnp.int32
    energies = batched(target.energy, x)
    assert kstest(2 * energies, chi2(5).cdf).pvalue > 1e-4
    assert kstest(2 * energies * 1.03, chi2(5).cdf).pvalue < 1e-4  # the test has power
    assert abs(z_score(energies, target.mean_energy, target.energy_std)) < SIGMAS
    assert abs(count_z(batched(target.mode_index, x).astype(int), target.mode_weights)) < SIGMAS
    for name, fn in target.observables.items():
        values, probs = getattr(target, f"{name}_law")()
        assert probs.sum() == pytest.approx(1.0)
        mean = probs @ values
        assert abs(z_score(batched(fn, x), mean, np.sqrt(probs @ (values - mean) ** 2))) < SIGMAS


def test_joint_mog_energy_law_is_close_to_the_continuous_one():
    """Atoms at quantiles: mean and variance of the chi-square to a thousandth."""
    values, probs = JointMoG().energy_law()
    assert probs @ values == pytest.approx(5.0, rel=1e-4)
    assert np.sqrt(probs @ (values - 5) ** 2) == pytest.approx(np.sqrt(5.0), rel=1e-3)


def test_joint_mog_sees_signs_that_do_not_belong():
    """Marginals right, pairing lost: the real parts alone look perfect, the observables do not."""
    target = JointMoG()
    x, d = target.sample(jax.random.key(2), 2_000)
    broken = (x, jnp.roll(d, 1, axis=0))
    assert abs(z_score(batched(target.observables["sign_agreement"], broken), 0.5)) < SIGMAS
    assert batched(target.energy, broken).mean() > 20 * target.mean_energy


@pytest.mark.parametrize("build", [lambda: JointMoG(0), lambda: JointMoG(2.0)])
def test_joint_mog_refuses_sizes(build):
    with pytest.raises(ValueError, match=r"^num_pairs: "):
        build()


@pytest.mark.parametrize(("particles", "dim"), [(2, 1), (4, 2), (13, 3)])
def test_mean_free_basis_is_orthonormal(particles, dim):
    basis = mean_free_basis(particles, dim)
    assert basis.shape == (particles * dim, (particles - 1) * dim)
    np.testing.assert_allclose(basis.T @ basis, np.eye((particles - 1) * dim), atol=1e-14)
    np.testing.assert_allclose(basis.reshape(particles, dim, -1).sum(axis=0), 0.0, atol=1e-14)


def test_mean_free_volume_against_differences():
    """`d(x_i - x_1) = N^(s/2) dy`: the factor that the quadrature and the rejection sampler rely on."""
    for particles, dim in ((4, 2), (3, 1)):
        x = mean_free_basis(particles, dim).reshape(particles, dim, -1)
        differences = (x[1:] - x[:1]).reshape((particles - 1) * dim, -1)
        assert abs(np.linalg.det(differences)) == pytest.approx(particles ** (dim / 2))


def test_mean_free_basis_refuses_sizes():
    with pytest.raises(ValueError, match=r"^num_particles: "):
        mean_free_basis(1, 2)
    with pytest.raises(ValueError, match=r"^spatial_dim: "):
        mean_free_basis(3, 0)


def test_joint_dw4_energy_is_the_definition(x64):
    """A loop over pairs in plain numpy, at positions with their centre anywhere."""
    target = JointDW4()
    rng = np.random.default_rng(3)
    positions, tau = 1.5 * rng.standard_normal((4, 2)) + 7.0, rng.integers(0, 2, 4)
    want, a, b = 0.0, {0: 0.8, 1: 0.4, 2: 0.6}, {0: -3.0, 1: -2.5, 2: -2.8}
    for i in range(4):
        for j in range(i + 1, 4):
            r = np.sqrt(np.sum((positions[i] - positions[j]) ** 2) + 1e-6)
            kind = tau[i] + tau[j]
            want += 0.5 * (a[kind] * (r - 2) ** 4 + b[kind] * (r - 2) ** 2)
    y = jnp.asarray(mean_free_basis(4, 2).T @ positions.ravel())
    assert float(target.energy((y, jnp.asarray(tau, jnp.int32)))) == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(target.positions(y), positions - positions.mean(axis=0), atol=1e-12)


def test_joint_dw4_does_not_change_under_permutation_or_rotation(precision):
    target = JointDW4()
    y, tau = random_state(target.space, 4)
    x, order, angle = np.asarray(target.positions(y)), np.array([2, 0, 3, 1]), 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = jnp.asarray(mean_free_basis(4, 2).T @ (x[order] @ turn).ravel(), y.dtype)
    tolerance = {"float32": 1e-4, "float64": 1e-11}[precision]
    assert float(target.energy((moved, tau[order]))) == pytest.approx(
        float(target.energy((y, tau))), rel=tolerance
    )


def test_joint_dw4_gradient_is_finite_where_particles_meet():
    assert np.isfinite(
        jax.grad(lambda y: JointDW4().energy((y, jnp.zeros(4, jnp.int32))))(jnp.zeros(6))
    ).all()


def pair_weight(r, s, t, beta):
    a, b = {(0, 0): (0.8, -3.0), (0, 1): (0.4, -2.5), (1, 1): (0.6, -2.8)}[s, t]
    energy = 0.5 * (a * (r - 2) ** 4 + b * (r - 2) ** 2)
    return np.exp(-beta * energy), energy


def fourier_quadrature(num, spacing, num_nodes, beta=1.0):
    """`log Z`, mean energy, mean pair distance and the law of the types `[2, 2, 2, 2]`; see `_joint_dw4`.

    All pairs are alike once types are summed over, so the mean energy is six times that of the pair at `r`.
    """
    axis = (np.arange(num) - num // 2) * spacing
    x, y = np.meshgrid(axis, axis, indexing="ij")
    lag = np.fft.ifftshift(axis)
    distance = np.sqrt(lag[:, None] ** 2 + lag**2 + 1e-6)
    kernel = {
        k: np.fft.rfft2(pair_weight(distance, *k, beta)[0]).real * spacing**4 / num**2 for k in TYPE_PAIRS
    }
    multiplicity = np.full(num // 2 + 1, 2.0)
    multiplicity[[0, -1]] = 1.0
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    mass, energy, length = np.zeros((3, 2, 2, 2, 2))
    for r, w in zip(3.6 * (nodes + 1), 3.6 * weights):
        left, right = (np.sqrt((x + side * r / 2) ** 2 + y**2 + 1e-6) for side in (1, -1))
        at_left = {k: pair_weight(left, *k, beta)[0] for k in TYPE_PAIRS}
        at_right = {k: pair_weight(right, *k, beta)[0] for k in TYPE_PAIRS}
        for s, t in TYPE_PAIRS:
            third = [
                np.fft.rfft2(at_left[min(s, k), max(s, k)] * at_right[min(t, k), max(t, k)]) for k in (0, 1)
            ]
            regular = np.sqrt(r**2 + 1e-6)
            factor, pair_energy = pair_weight(regular, s, t, beta)
            for k, l in np.ndindex(2, 2):
                overlap = (third[k].conj() * third[l]).real * kernel[min(k, l), max(k, l)]
                term = 2 * np.pi * r * w * factor * np.sum(overlap * multiplicity) / 4
                for index in {(s, t, k, l), (t, s, k, l)}:
                    mass[index] += term
                    energy[index] += term * pair_energy
                    length[index] += term * regular
    total = mass.sum()
    return np.log(total), 6 * energy.sum() / total, length.sum() / total, mass / total


def check_constants(num, spacing, num_nodes, tolerance):
    log_z, mean, distance, types = fourier_quadrature(num, spacing, num_nodes)
    target = JointDW4()
    assert target.log_z == pytest.approx(log_z, abs=tolerance)
    assert target.mean_energy == pytest.approx(mean, abs=tolerance)
    assert pytest.approx(distance, abs=tolerance) == dw4.MEAN_PAIR_DISTANCE
    ones = np.indices((2, 2, 2, 2)).sum(axis=0)
    np.testing.assert_allclose(
        target.mode_weights, np.bincount(ones.ravel(), types.ravel()), atol=min(tolerance, 1e-5)
    )
    h = 0.04  # var E = -d mean / d beta, by four-point differences
    means = [fourier_quadrature(num, spacing, num_nodes, 1 + k * h)[1] for k in (-2, -1, 1, 2)]
    slope = (8 * (means[2] - means[1]) - (means[3] - means[0])) / (12 * h)
    assert target.energy_std == pytest.approx(np.sqrt(-slope), abs=tolerance)


def test_joint_dw4_constants_against_quadrature():
    check_constants(160, 0.1, 64, tolerance=2e-4)


@pytest.mark.slow
def test_joint_dw4_constants_to_their_last_digit():
    check_constants(400, 0.04, 128, tolerance=0.6e-4)


def test_joint_dw4_draws_agree_with_the_constants():
    target = JointDW4()
    x = target.sample(jax.random.key(5), NUM)
    assert x[0].shape == (NUM, 6)
    assert x[1].dtype == jnp.int32
    energies = batched(target.energy, x)
    assert abs(z_score(energies, target.mean_energy, target.energy_std)) < SIGMAS
    kurtosis = np.mean((energies - energies.mean()) ** 4) / energies.var() ** 2
    error = 0.5 * np.sqrt((kurtosis - 1) / NUM)  # of log std
    assert abs(np.log(energies.std() / target.energy_std)) < SIGMAS * error
    assert abs(z_score(batched(target.observables["mean_distance"], x), 2.7051)) < SIGMAS
    index = batched(target.mode_index, x).astype(int)
    assert abs(count_z(index, target.mode_weights)) < SIGMAS
    uniform_types = np.array([1, 4, 6, 4, 1]) / 16
    assert abs(count_z(index, uniform_types)) > SIGMAS  # the test has power: types are not uniform
    again = target.sample(jax.random.key(5), 10)
    np.testing.assert_array_equal(again[1], x[1][:10])


def test_joint_dw4_acceptance_gives_log_z():
    """The count of accepted proposals is an unbiased estimate of Z, independent of any grid but the radial one."""
    rng, proposed = np.random.default_rng(6), 2**19
    proposal = dw4._proposal()
    accepted = sum(len(star_accepted(rng, proposal, 2**16)[1]) for _ in range(proposed // 2**16))
    log_z = np.log(accepted / proposed * proposal.mass.sum() / 4)  # 4 = N^(s/2)
    assert abs(log_z - JointDW4().log_z) < SIGMAS / np.sqrt(accepted)


def test_joint_dw4_types_given_positions():
    """For each draw the four exact conditionals, averaged, must reproduce the marginal of a type."""
    target = JointDW4()
    x = target.sample(jax.random.key(7), 4_000)
    conditional = batched(lambda x: jax.nn.softmax(-target.site_energies(x), axis=-1)[:, 1], x)
    marginal = target.mode_weights @ np.arange(5) / 4
    assert abs(z_score(conditional.mean(axis=1), marginal)) < SIGMAS
    assert len(enumerate_states(4, 2)) == 16
