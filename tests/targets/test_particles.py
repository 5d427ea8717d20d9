"""DW4 and LJ13 against quadrature, rejection counts and known minima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from benchmarks.chain_report import summarize_series
from egmjax.mcmc import parallel_tempering, refreshing_moves
from egmjax.targets import DW4, LJ13, mean_free_basis
from egmjax.targets import _particles as particles
from egmjax.targets._star_rejection import star_accepted

pytestmark = pytest.mark.slow  # compiles a lot

SIGMAS = 4.0


def fourier_quadrature(beta=1.0, num=200, spacing=0.12, num_nodes=128):
    """`log Z`, mean energy and mean pair distance of DW4; particles 1 and 2 at distance `r`, see `_joint_dw4`."""

    def energy(r):
        return 0.9 * (r - 4) ** 4 - 4 * (r - 4) ** 2

    axis = (np.arange(num) - num // 2) * spacing
    lag = np.fft.ifftshift(axis)
    kernel = np.fft.rfft2(np.exp(-beta * energy(np.hypot(lag[:, None], lag)))).real * spacing**4 / num**2
    multiplicity = np.full(num // 2 + 1, 2.0)
    multiplicity[[0, -1]] = 1.0
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    sums = np.zeros(3)
    for r, w in zip(4.1 * (nodes + 1), 4.1 * weights):
        sides = [energy(np.hypot(axis[:, None] + side * r / 2, axis)) for side in (1, -1)]
        third = np.abs(np.fft.rfft2(np.exp(-beta * (sides[0] + sides[1])))) ** 2
        mass = 2 * np.pi * r * w * np.exp(-beta * energy(r)) * np.sum(third * kernel * multiplicity) / 4
        sums += mass * np.array([1.0, energy(r), r])
    return np.log(sums[0]), 6 * sums[1] / sums[0], sums[2] / sums[0]


def test_dw4_constants_against_quadrature():
    target = DW4()
    log_z, mean, distance = fourier_quadrature()
    assert target.log_z == pytest.approx(log_z, abs=1e-6)
    assert target.mean_energy == pytest.approx(mean, abs=1e-6)
    assert distance == pytest.approx(4.044987, abs=1e-6)
    h = 0.02  # var E = -d mean / d beta, by four-point differences
    means = [fourier_quadrature(1 + k * h)[1] for k in (-2, -1, 1, 2)]
    slope = (8 * (means[2] - means[1]) - (means[3] - means[0])) / (12 * h)
    assert target.energy_std == pytest.approx(np.sqrt(-slope), abs=2e-6)
    assert abs(fourier_quadrature(1.01)[0] - target.log_z) > 0.1  # another temperature is seen


def test_dw4_draws_and_acceptance():
    target = DW4()
    x = target.sample(jax.random.key(0), 2_000)
    assert x.shape == (2_000, 6)
    energies = np.asarray(jax.vmap(target.energy)(x), np.float64)
    assert abs(energies.mean() - target.mean_energy) < SIGMAS * target.energy_std / np.sqrt(2_000)
    distance = np.asarray(jax.vmap(target.observables["mean_distance"])(x), np.float64)
    assert abs(distance.mean() - 4.044987) < SIGMAS * distance.std() / np.sqrt(2_000)
    rng, proposal = np.random.default_rng(1), particles._proposal()
    accepted = sum(len(star_accepted(rng, proposal, 2**16)[1]) for _ in range(10))
    log_z = np.log(accepted / (10 * 2**16) * proposal.mass.sum() / 4)
    assert abs(log_z - target.log_z) < SIGMAS / np.sqrt(accepted)


@pytest.mark.parametrize(("target", "num", "dim"), [(DW4(), 4, 2), (LJ13(), 13, 3)])
def test_energies_do_not_change_under_permutation_and_rotation(precision, target, num, dim):
    rng = np.random.default_rng(2)
    basis = mean_free_basis(num, dim)
    y = jnp.asarray(2.5 * rng.standard_normal(basis.shape[1]), float)
    turn, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    x = np.asarray(target.positions(y), np.float64)[rng.permutation(num)] @ turn
    moved = jnp.asarray(basis.T @ x.ravel(), float)
    tolerance = {"float32": 1e-3, "float64": 1e-11}[precision]
    assert float(target.energy(moved)) == pytest.approx(float(target.energy(y)), rel=tolerance)
    assert target.energy(y).dtype == jnp.dtype(precision)


def test_dw4_pair_minimum(x64):
    """Depth -4.444 at 2.509 and 5.491."""
    r = np.linspace(1, 7, 60_001)
    energy = particles._double_well(r)
    assert energy.min() == pytest.approx(-4 / 0.9, abs=1e-7)
    for half, minimum in ((r < 4, 2.509), (r > 4, 5.491)):
        assert r[half][energy[half].argmin()] == pytest.approx(minimum, abs=0.51e-3)


def test_lj13_minima(x64):
    """The icosahedron with a particle at its centre, relaxed: -44.3268 for the pairs alone, -83.0896 in full."""
    golden = (1 + 5**0.5) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    corners += [np.roll(c, 1) for c in corners] + [np.roll(c, 2) for c in corners]
    start = (
        mean_free_basis(13, 3).T
        @ np.vstack([np.zeros(3), np.array(corners) / np.sqrt(1 + golden**2)]).ravel()
    )

    def lowest(energy_fn):
        value_and_grad = jax.jit(jax.value_and_grad(energy_fn))
        return minimize(
            lambda y: [np.asarray(v) for v in value_and_grad(jnp.asarray(y))], start, jac=True, tol=1e-10
        ).fun

    target, single = LJ13(), LJ13(0.5)
    assert lowest(target.energy) == pytest.approx(-83.0896, abs=0.51e-4)
    assert lowest(lambda y: single.energy(y) - 0.5 * jnp.sum(y**2)) == pytest.approx(-44.3268, abs=0.51e-4)


def test_lj13_is_infinite_and_never_nan_where_particles_meet():
    assert LJ13().energy(jnp.zeros(36)) == jnp.inf
    assert not np.isnan(LJ13().energy(jnp.full(36, 1e-4)))


def test_forces_where_particles_meet():
    """DW4 is finite everywhere; of LJ13 forces are no numbers there, which Metropolis tests and weights refuse."""
    assert np.isfinite(DW4().energy(jnp.zeros(6)))
    assert np.isfinite(jax.grad(DW4().energy)(jnp.zeros(6))).all()
    assert not np.isfinite(jax.grad(LJ13().energy)(jnp.zeros(36))).any()


def virial(target, x):
    """`y . grad E`, whose mean is the dimension for every density that vanishes far out and where particles meet."""
    return np.asarray(jax.vmap(lambda y: y @ jax.grad(target.energy)(y))(x), np.float64)


def tempered_series(target, num_chains, num_steps):
    """Energies and mean distances `[chains, steps]` by parallel tempering with Langevin moves from the icosahedron."""
    golden = (1 + 5**0.5) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    corners += [np.roll(c, 1) for c in corners] + [np.roll(c, 2) for c in corners]
    start = np.vstack([np.zeros(3), np.array(corners) / np.sqrt(1 + golden**2)])
    start = jnp.asarray(mean_free_basis(13, 3).T @ start.ravel(), float)
    langevin = refreshing_moves(target.space, num_steps=10, step_size=8e-4)
    tempering = parallel_tempering(
        target.energy,
        lambda key, y, b: langevin(key, y, lambda z: -b * target.energy(z)),
        (1.0, 0.85, 0.7, 0.57, 0.45),
    )

    def chain(key):
        def step(state, key):
            state, _ = tempering.step(key, state)
            y = state.position[0]
            return state, (target.energy(y), target.observables["mean_distance"](y))

        return jax.lax.scan(step, tempering.init(start), jax.random.split(key, num_steps))[1]

    optimized = {"xla_backend_optimization_level": 3}  # much to compute, unlike in most tests
    return jax.jit(jax.vmap(chain), compiler_options=optimized)(
        jax.random.split(jax.random.key(5), num_chains)
    )


def test_lj13_draws_by_two_methods_and_the_virial_theorem():
    """Hamiltonian chains from noise and tempered Langevin chains from the ground state; means, and halves of chains.

    Two of these 256 chains start where the square of the force overflows: without a guard they never move.
    """
    target = LJ13()
    x = target.sample(jax.random.key(5), 256 * 8)
    assert x.shape == (256 * 8, 36)
    value = virial(target, x)
    assert abs(value.mean() - 36) < SIGMAS * value.std() / np.sqrt(256 * 8)
    assert abs(virial(LJ13(0.5), x).mean() - 36) > SIGMAS * value.std() / np.sqrt(256 * 8)  # it can tell
    drawn = [
        np.asarray(jax.vmap(fn)(x), np.float64) for fn in (target.energy, target.observables["mean_distance"])
    ]
    assert drawn[0].max() < 20.0
    for values, other in zip(drawn, tempered_series(target, 24, 1_500)):
        chains = summarize_series(values.reshape(8, 256).T)
        tempered = summarize_series(np.asarray(other)[:, 500:])
        assert chains["r_hat"] < 1.05  # four draws a half, with a correlation of .1
        assert chains["ess"] > 1_000
        assert tempered["r_hat"] < 1.1
        assert abs(chains["mean"] - tempered["mean"]) < SIGMAS * np.hypot(
            chains["stderr"], tempered["stderr"]
        )


def test_lj13_draws_where_chains_mix():
    assert LJ13(0.5).sample(jax.random.key(0), 300).shape == (300, 36)
    assert LJ13(2.0).sample(jax.random.key(0), 10) is None
