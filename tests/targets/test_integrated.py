"""Coordinates integrated out, against enumeration, quadrature and the laws of the whole; ManyWell against quadrature.

Statistical tests allow four standard errors of a fixed-seed draw.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import chi2, kstest

from egmjax.states import Categorical, Real
from egmjax.targets import (
    Funnel,
    GaussianBernoulliRBM,
    GaussianMixture,
    ManyWell,
    enumerate_states,
    from_energy,
    gaussian_coordinates,
    integrated,
)

SIGMAS = 4.0
NUM = 20_000
CURVATURE = np.array([[2.0, 0.6, 0.0], [0.6, 1.5, -0.3], [0.0, -0.3, 1.0]])


def batched(fn, x):
    return np.asarray(jax.jit(jax.vmap(fn))(x), np.float64)


def coupled_energy(x):
    """Three reals that are Gaussian given two symbols, which set mean, width and correlation; and a quartic real."""
    (a, y), d = x
    width = 1.0 + 0.7 * d[0] + a[0] ** 2
    shift = jnp.stack([a[0], d[1] - 0.5, d[0] * a[0]])
    curvature = jnp.asarray(CURVATURE, y.dtype)
    return a[0] ** 4 + 0.3 * d[1] * a[0] + 0.5 * width * y @ (curvature @ y) - jnp.dot(shift, y)


def flat_energy(x):
    real, d = x
    return coupled_energy(((real[1:2], real[jnp.array([0, 2, 3])]), d))


SPACE = (Real((4,)), Categorical(2, 2))
COUPLED = from_energy(flat_energy, SPACE)


def marginal_energy(a, d):
    """By the normalising constant of a Gaussian, in numpy."""
    curvature = (1.0 + 0.7 * d[0] + a**2) * CURVATURE
    shift = np.array([a, d[1] - 0.5, d[0] * a])
    _, log_det = np.linalg.slogdet(curvature / (2 * np.pi))
    return a**4 + 0.3 * d[1] * a - 0.5 * shift @ np.linalg.solve(curvature, shift) + 0.5 * log_det


def test_the_block_is_found():
    assert gaussian_coordinates(COUPLED) == ((0, 2, 3), ())
    assert gaussian_coordinates(ManyWell(2)) == ((1, 3),)
    assert gaussian_coordinates(Funnel(4)) == ((1, 2, 3),)
    assert gaussian_coordinates(GaussianMixture.three_modes()) == ((),)
    assert gaussian_coordinates(from_energy(lambda x: jnp.sum(x * 1.0), Categorical(2, 2))) == ((),)


def test_a_product_of_gaussians_given_each_other_keeps_one():
    """`y_0^2 y_1^2` is quadratic in either alone, not in both."""
    target = from_energy(lambda x: 0.5 * (1 + x[0] ** 2) * (1 + x[1] ** 2), Real((2,)))
    assert sum(map(len, gaussian_coordinates(target))) == 1


def test_marginal_energy_is_that_of_the_gaussian_integral(x64):
    target = integrated(COUPLED)
    assert target.space == (Real((1,)), Categorical(2, 2))
    fn = jax.jit(target.energy)
    for a, d in [(0.3, (0, 1)), (-1.2, (1, 0)), (0.8, (1, 1))]:
        got = fn((jnp.array([a]), jnp.array(d, jnp.int32)))
        assert float(got) == pytest.approx(marginal_energy(a, d), abs=1e-10)


def test_completions_weigh_nothing(precision):
    """`-E(x, y) - log p(y | x) = -E_A(x)` for every draw, with the density of `y` written out."""
    target = integrated(COUPLED)
    x = (jnp.array([0.7]), jnp.array([1, 0], jnp.int32))
    full = jax.jit(lambda key: jax.vmap(lambda k: target.complete(k, x))(jax.random.split(key, 50)))(
        jax.random.key(0)
    )
    curvature, shift = (1.7 + 0.49) * CURVATURE, np.array([0.7, -0.5, 0.7])
    y = np.asarray(full[0], np.float64)[:, [0, 2, 3]]
    offset = y - np.linalg.solve(curvature, shift)
    log_prob = -0.5 * np.einsum("ni,ij,nj->n", offset, curvature, offset)
    log_prob += 0.5 * np.linalg.slogdet(curvature / (2 * np.pi))[1]
    tolerance = {"float32": 1e-4, "float64": 1e-11}[precision]
    np.testing.assert_allclose(
        batched(COUPLED.energy, full) + log_prob, float(jax.jit(target.energy)(x)), atol=tolerance
    )
    back = jax.vmap(target.split)(full)
    for part, given in zip(back, x):
        np.testing.assert_array_equal(part, np.broadcast_to(given, part.shape))


def test_completed_draws_have_the_right_moments():
    target = integrated(COUPLED)
    x = (jnp.array([0.7]), jnp.array([1, 0], jnp.int32))
    keys = jax.random.split(jax.random.key(1), NUM)
    y = np.asarray(jax.jit(jax.vmap(lambda k: target.complete(k, x)[0]))(keys), np.float64)[:, [0, 2, 3]]
    covariance = np.linalg.inv((1.7 + 0.49) * CURVATURE)
    mean = covariance @ np.array([0.7, -0.5, 0.7])
    white = np.linalg.solve(np.linalg.cholesky(covariance), (y - mean).T)
    assert np.all(np.abs(white.mean(axis=1)) < SIGMAS / np.sqrt(NUM))
    assert np.all(np.abs(white @ white.T / NUM - np.eye(3)) < SIGMAS * np.sqrt(2 / NUM))
    # seeded fault: the other triangular factor has the wrong covariance
    wrong = np.linalg.solve(np.linalg.cholesky(covariance).T, (y - mean).T)
    assert np.any(np.abs(wrong @ wrong.T / NUM - np.eye(3)) > SIGMAS * np.sqrt(2 / NUM))


def test_rbm_without_its_visible_units(x64):
    """Three symbols remain, enumerated: log Z and the law of the modes are those of the whole."""
    whole = GaussianBernoulliRBM.six_modes()
    target = integrated(whole)
    assert target.space == Categorical(3, 2)
    energies = batched(target.energy, jnp.asarray(enumerate_states(3, 2), jnp.int32))
    assert logsumexp(-energies) == pytest.approx(whole.log_z, abs=1e-9)
    assert target.log_z == whole.log_z
    np.testing.assert_allclose(np.exp(-energies - whole.log_z), whole.mode_weights, atol=1e-9)


def test_funnel_of_any_dimension_becomes_a_gaussian(x64):
    target = integrated(Funnel(6))
    x = jnp.linspace(-7.0, 7.0, 9)[:, None]
    want = 0.5 * (np.asarray(x[:, 0]) / 3) ** 2 + 0.5 * np.log(2 * np.pi * 9)
    np.testing.assert_allclose(batched(target.energy, x), want, atol=1e-10)


def test_parameters_are_leaves_and_may_be_swept():
    target = integrated(GaussianBernoulliRBM.six_modes())
    h = jnp.array([1, 0, 1], jnp.int32)

    def energy(scale):
        base = dataclasses.replace(target.base, scale=scale)
        return dataclasses.replace(target, rest=dataclasses.replace(target.rest, base=base)).energy(h)

    got = jax.jit(jax.vmap(energy))(jnp.array([0.8, 1.3]))
    want = [
        -np.log(2 * np.pi * s**2) + 24.0 for s in (0.8, 1.3)
    ]  # `W h = 0`: the hidden biases alone are left
    np.testing.assert_allclose(got, want, rtol=1e-5)


SADDLE = from_energy(lambda x: x[0] ** 2 - x[1] ** 2, Real((2,)))
FLAT = from_energy(lambda x: x[0] ** 2 + 0.0 * x[1], Real((2,)))


def cubic(x):
    return jnp.sum(x**2) + x[0] ** 4


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: integrated(from_energy(cubic, Real((3,))), [0, 1]), r"^block: the energy is not quadratic"),
        (lambda: integrated(SADDLE, [1]), r"^block: the Hessian"),
        (lambda: integrated(FLAT, [1]), r"^block: the Hessian"),
        (lambda: integrated(Funnel(3), [0, 1, 2]), r"^block: must hold some"),
        (lambda: integrated(Funnel(3), []), r"^block: must hold some"),
        (lambda: integrated(Funnel(3), [1, 1]), r"^block: expected distinct"),
        (lambda: integrated(Funnel(3), [3]), r"^block: expected distinct"),
        (lambda: integrated(COUPLED, [(0,)]), r"^block: expected indices for each"),
        (lambda: integrated(COUPLED, [(0,), (1,)]), r"^block: expected distinct"),
        (lambda: integrated(GaussianMixture.three_modes()), r"^target: no coordinate"),
    ],
)
def test_refusals(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def double_well(a, c=(-0.5, -6.0, 1.0)):
    return c[0] * a + c[1] * a**2 + c[2] * a**4


@pytest.mark.parametrize("c", [(-0.5, -6.0, 1.0), (0.2, 1.0, 0.3)], ids=["published", "one_well"])
def test_many_well_against_adaptive_quadrature(c):
    target = ManyWell(3, *c)
    lowest = min(double_well(a, c) for a in np.linspace(-4, 4, 4001))

    def moment(fn, low=-8.0, high=8.0):
        def mass(a):
            return fn(double_well(a, c)) * np.exp(lowest - double_well(a, c))

        points = [-1.7, 0.0, 1.7] if low < 0 < high else [1.7]
        return quad(mass, low, high, points=points, epsabs=1e-13, limit=400)[0]

    z, mean = moment(lambda u: 1.0), moment(lambda u: u)
    mean /= z
    variance = moment(lambda u: (u - mean) ** 2) / z
    assert target.log_z == pytest.approx(3 * (np.log(z) - lowest + 0.5 * np.log(2 * np.pi)), abs=1e-8)
    assert target.mean_energy == pytest.approx(3 * (mean + 0.5), abs=1e-8)
    assert target.energy_std**2 == pytest.approx(3 * (variance + 0.5), abs=1e-8)
    assert target.right_probability == pytest.approx(moment(lambda u: 1.0, 0.0) / z, abs=1e-9)


def test_many_well_published_number():
    assert ManyWell().log_z == pytest.approx(16 * (np.log(11784.50927) + 0.5 * np.log(2 * np.pi)), abs=1e-6)


def test_many_well_energy_is_the_definition(precision):
    x = jax.random.normal(jax.random.key(0), (6,)) * 2
    pairs = np.asarray(x, np.float64).reshape(3, 2)
    want = np.sum(double_well(pairs[:, 0]) + 0.5 * pairs[:, 1] ** 2)
    got = jax.jit(ManyWell(3).energy)(x)
    assert float(got) == pytest.approx(want, rel=1e-5)
    assert got.dtype == jnp.dtype(precision)


def test_many_well_draws():
    target = ManyWell(2)
    x = target.sample(jax.random.key(2), NUM)
    assert x.shape == (NUM, 4)
    wells = np.sort(np.asarray(x, np.float64)[:, :2:2].ravel())
    grid = np.linspace(-4.5, 4.5, 20_001)
    cdf = np.cumsum(np.exp(-double_well(grid)))
    assert kstest(wells, lambda a: np.interp(a, grid, cdf / cdf[-1])).pvalue > 1e-4
    assert kstest(wells + 0.05, lambda a: np.interp(a, grid, cdf / cdf[-1])).pvalue < 1e-4  # has power
    energies = batched(target.energy, x)
    assert abs(energies.mean() - target.mean_energy) < SIGMAS * target.energy_std / np.sqrt(NUM)
    for name, fn in target.observables.items():
        values, probs = getattr(target, f"{name}_law")()
        mean = probs @ values
        error = np.sqrt(probs @ (values - mean) ** 2 / NUM)
        assert abs(batched(fn, x).mean() - mean) < SIGMAS * error
    assert kstest(batched(target.observables["gaussian_chi_square"], x), chi2(2).cdf).pvalue > 1e-4
    index = batched(target.mode_index, x).astype(int)
    expected = NUM * target.mode_weights
    assert np.sum((np.bincount(index, minlength=3) - expected) ** 2 / expected) < chi2(2).ppf(1 - 1e-4)


def test_many_well_without_its_gaussians(x64):
    target = integrated(ManyWell(2))
    assert target.space == Real((2,))
    x = jnp.array([0.4, -1.9])
    assert float(target.energy(x)) == pytest.approx(
        double_well(0.4) + double_well(-1.9) - np.log(2 * np.pi), abs=1e-10
    )
    full = target.complete(jax.random.key(0), x)
    np.testing.assert_array_equal(full[0::2], x)


@pytest.mark.parametrize("num", [0, 2.0])
def test_many_well_refuses_sizes(num):
    with pytest.raises(ValueError, match=r"^num_wells: "):
        ManyWell(num)
