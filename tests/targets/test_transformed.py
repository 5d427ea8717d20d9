"""Densities on bounded supports in unbounded coordinates, against one-dimensional quadrature and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import beta, kstest

from egmjax.targets import Funnel, JointMoG, Target, Transformed, transformed

distrax = pytest.importorskip("distrax")

A, B = 2.5, 0.8  # a density that diverges at the upper edge


class Logistic:
    """The least a bijector can be."""

    def forward_and_log_det(self, y):
        return jax.nn.sigmoid(y), jax.nn.log_sigmoid(y) + jax.nn.log_sigmoid(-y)

    def inverse(self, x):
        return jnp.log(x) - jnp.log1p(-x)


def log_beta(x):
    return jnp.sum((A - 1) * jnp.log(x) + (B - 1) * jnp.log1p(-x))


BIJECTORS = {
    "sigmoid": distrax.Sigmoid(),
    "block": distrax.Block(distrax.Sigmoid(), 1),
    "own": Logistic(),
}


def line_integral(energy_fn):
    """`log Z` on the line by the trapezoid rule, and its nodes and probabilities."""
    y = np.linspace(-60, 60, 24_001)
    energies = np.asarray(jax.jit(jax.vmap(energy_fn))(jnp.asarray(y[:, None])), np.float64)
    mass = np.exp(-energies)
    return np.log(mass.sum() * (y[1] - y[0])), y, mass / mass.sum()


@pytest.mark.parametrize("name", BIJECTORS)
def test_the_normaliser_is_that_of_the_support(x64, name):
    target = transformed(log_beta, BIJECTORS[name], (1,))
    log_z, y, probs = line_integral(target.energy)
    assert log_z == pytest.approx(betaln(A, B), abs=1e-8)
    inside = np.asarray(jax.vmap(target.transform)(jnp.asarray(y[:, None])))[:, 0]
    assert probs @ inside == pytest.approx(A / (A + B), abs=1e-8)


def test_the_log_determinant_is_needed(x64):
    """Seeded fault: without it the normaliser is another."""

    class Forgetful(Logistic):
        def forward_and_log_det(self, y):
            x, log_det = super().forward_and_log_det(y)
            return x, 0.0 * log_det

    log_z, *_ = line_integral(transformed(lambda x: log_beta(x) * 2, Forgetful(), (1,)).energy)
    right, *_ = line_integral(transformed(lambda x: log_beta(x) * 2, Logistic(), (1,)).energy)
    assert abs(log_z - right) > 0.1


def test_another_interval_in_two_dimensions(x64):
    """`[-1, 3]` by a chain; elementwise determinants add."""
    bijector = distrax.Chain([distrax.ScalarAffine(shift=-1.0, scale=4.0), distrax.Sigmoid()])
    target = transformed(lambda x: -0.5 * jnp.sum(x**2), bijector, (2,))
    y = jnp.asarray([0.3, -1.2])
    jacobian = jax.jacobian(target.transform)(y)
    x = target.transform(y)
    want = 0.5 * jnp.sum(x**2) - jnp.linalg.slogdet(jacobian)[1]
    assert float(target.energy(y)) == pytest.approx(float(want), abs=1e-12)
    assert x.min() > -1
    assert x.max() < 3


class UniformCube(Target):
    """The unit square with everything known."""

    space = Funnel(2).space
    log_z = 0.0
    mode_weights = np.array([0.25, 0.75])

    def energy(self, x):
        return jnp.where(jnp.all((x > 0) & (x < 1)), jnp.zeros((), x.dtype), jnp.inf)

    def sample(self, key, num_samples):
        return jax.random.uniform(key, (num_samples, 2), minval=1e-6)

    @property
    def observables(self):
        return {"first": lambda x: x[0]}

    def mode_index(self, x):
        return (x[0] > 0.25).astype(jnp.int32)


def test_what_is_known_of_the_base_is_carried_over():
    target = transformed(UniformCube(), distrax.Sigmoid())
    assert isinstance(target, Transformed)
    assert target.log_z == 0.0
    y = target.sample(jax.random.key(0), 20_000)
    assert np.abs(np.asarray(y)).max() > 3
    first = np.asarray(jax.vmap(target.observables["first"])(y), np.float64)
    assert kstest(first, beta(1, 1).cdf).pvalue > 1e-4
    share = np.asarray(jax.vmap(target.mode_index)(y)).mean()
    assert abs(share - 0.75) < 4 * np.sqrt(0.1875 / 20_000)
    assert target.mode_weights is UniformCube.mode_weights
    assert target.mean_energy is None  # the determinant changes it


def test_far_out_the_density_is_zero_and_never_nan(precision):
    target = transformed(log_beta, distrax.Sigmoid(), (1,))
    for y in (-500.0, -50.0, 50.0, 500.0):
        energy = jax.jit(target.energy)(jnp.full((1,), y))
        assert energy > 10
        assert energy.dtype == jnp.dtype(precision)


def test_jit_and_vmap_take_the_target_as_an_argument():
    target = transformed(log_beta, distrax.Sigmoid(), (1,))
    y = jnp.linspace(-1.0, 1.0, 5)[:, None]
    got = jax.jit(lambda target, y: jax.vmap(target.energy)(y))(target, y)
    np.testing.assert_allclose(got, [target.energy(row) for row in y], rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: transformed(log_beta, distrax.Sigmoid()), "shape"),
        (lambda: transformed(log_beta, jnp.tanh, (1,)), "bijector"),
        (lambda: transformed(JointMoG(), distrax.Sigmoid()), "base"),
        (lambda: transformed(lambda x: x, distrax.Sigmoid(), (2,)), "energy_fn"),
    ],
)
def test_refusals(build, name):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        build()
