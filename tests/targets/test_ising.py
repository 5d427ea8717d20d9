"""The Ising torus against tables, enumeration, and itself by independent routes.

Tolerances: half a unit of the last printed digit for tables; float64 rounding between exact routes; float32
rounding of energies where they enter (1e-6 for each bond).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.targets import Ising, enumerate_states, enumerated_log_prob, enumerated_log_z
from egmjax.targets._ising_exact import bond_law, density_of_states, joint_law, kaufman_log_z
from egmjax.targets._ising_transfer import transfer_moments

LOG_Z = [
    (4, 0.28, 12.53067), (4, 0.4407, 15.52225), (4, 0.6, 20.05653),
    (5, 0.28, 19.47702), (5, 0.4407, 23.88681), (5, 0.6, 30.94695),
    (10, 0.28, 77.71068), (10, 0.4407, 93.61225), (10, 0.6, 121.70639),
    (15, 0.28, 174.84561), (15, 0.4407, 209.82607), (15, 0.6, 272.97293),
    (16, 0.28, 198.93542), (16, 0.4407, 238.64717), (16, 0.6, 310.48704),
    (24, 0.28, 447.60464), (24, 0.4407, 536.15556), (24, 0.6, 697.72940),
]  # fmt: skip

MOMENTS = [  # length, beta, log Z, mean and standard deviation of beta E
    (5, 0.1, 17.5809, -0.5091, 0.7269), (5, 0.2, 18.3692, -2.1771, 1.6225),
    (5, 0.3, 19.8421, -5.7949, 3.1561), (5, 0.4, 22.4284, -13.2208, 4.8100),
    (5, 0.4407, 23.8868, -16.9315, 4.7465),
    (5, 0.5, 26.3380, -21.8733, 4.0493), (5, 0.6, 30.9470, -28.6304, 2.8093),
    (10, 0.1, 70.3231, -2.0338, 1.450), (10, 0.2, 73.4531, -8.5648, 3.125),
    (10, 0.3, 79.0600, -21.1939, 5.425),
    (10, 0.4, 88.1877, -47.4041, 10.645), (10, 0.4407, 93.6123, -65.0618, 11.225),
    (10, 0.5, 103.2730, -87.2716, 8.504), (10, 0.6, 121.7064, -114.545, 5.599),
]  # fmt: skip

ABS_MAGNETIZATION = [  # exact to three digits at length 5
    (0.1, 0.202), (0.2, 0.275), (0.3, 0.433), (0.4, 0.719), (0.4407, 0.823), (0.5, 0.915), (0.6, 0.973),
]  # fmt: skip


def energy_by_loops(spins: np.ndarray, beta: float, coupling: float, field: float) -> float:
    """The definition, with no arrays in it."""
    length = len(spins)
    total = 0.0
    for i in range(length):
        for j in range(length):
            total -= coupling * spins[i, j] * (spins[(i + 1) % length, j] + spins[i, (j + 1) % length])
            total -= field * spins[i, j]
    return beta * total


def enumerated(length: int, k: float, b: float) -> dict[str, np.ndarray | float]:
    """Everything about a tiny torus in float64, written independently of the library."""
    spins = (2.0 * enumerate_states(length**2, 2) - 1).reshape(-1, length, length)
    bonds = np.zeros(len(spins))
    for i in range(length):
        for j in range(length):
            bonds += spins[:, i, j] * (spins[:, (i + 1) % length, j] + spins[:, i, (j + 1) % length])
    total = spins.sum((1, 2))
    energy = -k * bonds - b * total
    log_z = np.logaddexp.reduce(-energy)
    probs = np.exp(-energy - log_z)
    mean = probs @ energy
    std = np.sqrt(probs @ (energy - mean) ** 2)
    out = {"bonds": bonds, "total": total, "energy": energy, "log_z": log_z, "probs": probs}
    return out | {"mean": mean, "std": std}


def check_energy_matches_exact(target: Ising) -> None:
    """`exp(-energy)` summed over every state gives the exact log Z: float32 energies, relative error 1e-6."""
    assert enumerated_log_z(target) == pytest.approx(target.log_z, abs=1e-6 * 2 * target.length**2)


@pytest.mark.parametrize(("length", "beta", "log_z"), LOG_Z)
def test_log_z_of_the_table(length, beta, log_z):
    assert Ising(length, beta).log_z == pytest.approx(log_z, abs=0.51e-5)


@pytest.mark.parametrize(("length", "beta", "log_z", "mean", "std"), MOMENTS)
def test_moments_of_the_table(length, beta, log_z, mean, std):
    target = Ising(length, beta)
    assert target.log_z == pytest.approx(log_z, abs=0.51e-4)
    assert target.mean_energy == pytest.approx(mean, abs=0.51e-3 if mean == -114.545 else 0.51e-4)
    assert target.energy_std == pytest.approx(std, abs=0.51e-3 if length == 10 else 0.51e-4)


@pytest.mark.parametrize(("beta", "value"), ABS_MAGNETIZATION)
def test_abs_magnetization_of_the_table(beta, value):
    values, probs = Ising(5, beta).magnetization_law()
    assert probs @ abs(values) == pytest.approx(value, abs=0.51e-3)


@pytest.mark.parametrize(("length", "beta", "log_z"), [(4, 0.2, 11.771470), (4, 0.4407, 15.522246)])
def test_fast_values(length, beta, log_z):
    assert Ising(length, beta).log_z == pytest.approx(log_z, abs=0.51e-6)


@pytest.mark.parametrize("k", [-0.7, -0.2, 0.0, 0.2, 0.5 * np.log(1 + np.sqrt(2)), 0.7])
@pytest.mark.parametrize("length", [3, 4])
def test_zero_field_against_enumeration(length, k):
    want = enumerated(length, k, 0.0)
    assert kaufman_log_z(length, k).real == pytest.approx(want["log_z"], abs=1e-10)
    bonds, probs = bond_law(length, k)
    law = np.array([want["probs"][want["bonds"] == s].sum() for s in bonds])
    np.testing.assert_allclose(probs, law, atol=1e-12)
    target = Ising(length, k)
    assert target.mean_energy == pytest.approx(want["mean"], abs=1e-10)
    assert target.energy_std == pytest.approx(want["std"], abs=1e-7)


@pytest.mark.parametrize(("k", "b"), [(0.3, 0.2), (-0.4, 0.1), (0.4407, 0.0), (0.0, -0.5), (0.0, 0.0)])
@pytest.mark.parametrize("length", [3, 4])
def test_transfer_matrix_against_enumeration(length, k, b):
    want = enumerated(length, k, b)
    log_z, mean, std = transfer_moments(length, k, b)
    assert log_z == pytest.approx(want["log_z"], abs=1e-10)
    assert mean == pytest.approx(want["mean"], abs=1e-10)
    assert std == pytest.approx(want["std"], abs=1e-7)
    values, probs = Ising(length, 1.0, coupling=k, field=b).magnetization_law()
    totals = np.round(values * length**2)
    law = np.array([want["probs"][want["total"] == total].sum() for total in totals])
    np.testing.assert_allclose(probs, law, atol=1e-12)


def test_transfer_matrix_against_kaufman_on_larger_tori():
    for length, k in [(5, 0.4407), (9, -0.3), (10, 0.6), (11, 0.4407)]:
        target = Ising(length, k)
        want = (target.log_z, target.mean_energy, target.energy_std)
        np.testing.assert_allclose(transfer_moments(length, k, 0.0), want, rtol=1e-9)


def test_density_of_states_against_enumeration():
    want = enumerated(4, 0.0, 0.0)
    bonds, totals, counts = density_of_states(4)
    for s, m, n in zip(bonds, totals, counts):
        assert n == np.sum((want["bonds"] == s) & (want["total"] == m))
    assert counts.sum() == 2**16


def test_density_of_states_at_length_5():
    bonds, _, counts = density_of_states(5)
    assert counts.sum() == 2**25
    assert np.logaddexp.reduce(np.log(counts) + 0.4407 * bonds) == pytest.approx(
        Ising(5, 0.4407).log_z, abs=1e-10
    )
    for energies, probs in [joint_law(5, 0.3, 0.1), Ising(5, 1.0, coupling=0.3, field=0.1).energy_law()]:
        mean = probs @ energies
        std = np.sqrt(probs @ (energies - mean) ** 2)
        np.testing.assert_allclose((mean, std), transfer_moments(5, 0.3, 0.1)[1:], rtol=1e-9)


def test_energy_law_is_the_same_by_both_routes():
    energies, probs = Ising(5, 0.4).energy_law()
    joint_energies, joint_probs = joint_law(5, 0.4, 0.0)
    large = joint_probs > 1e-10
    index = [int(np.argmin(abs(energies - e))) for e in joint_energies[large]]
    np.testing.assert_allclose(energies[index], joint_energies[large], atol=1e-9)
    np.testing.assert_allclose(probs[index], joint_probs[large], atol=1e-12)
    assert np.all(np.diff(energies) > 0)


@pytest.mark.parametrize(
    ("beta", "coupling", "field"), [(0.4, 1.0, 0.0), (0.3, 0.7, 0.25), (0.5, -1.0, -0.4)]
)
@pytest.mark.parametrize("length", [3, 6])
def test_energy_against_its_definition(length, beta, coupling, field):
    x = np.random.default_rng(1).integers(0, 2, (20, length**2)).astype(np.int32)
    target = Ising(length, beta, coupling, field)
    want = [energy_by_loops(2.0 * y.reshape(length, length) - 1, beta, coupling, field) for y in x]
    got = jax.jit(jax.vmap(target.energy))(x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(target.energy)(x.astype(np.float32)), want, rtol=1e-5, atol=1e-5)
    for dtype in (np.uint8, bool):
        np.testing.assert_allclose(jax.vmap(target.energy)(x.astype(dtype)), got, atol=1e-5)


def test_energy_matches_exact_and_catches_seeded_faults():
    class Truncated(Ising):
        """An integer state multiplies the coupling in integers, as one published benchmark does."""

        def energy(self, x):
            grid = 2 * x.reshape(self.length, self.length) - 1
            bonds = jnp.sum(grid * (jnp.roll(grid, -1, 0) + jnp.roll(grid, -1, 1)))
            return -(bonds * jnp.asarray(self.beta * self.coupling).astype(jnp.int32)).astype(float)

    class Open(Ising):
        """The bonds across the seam are missing."""

        def energy(self, x):
            grid = (2 * x.reshape(self.length, self.length) - 1).astype(float)
            bonds = jnp.sum(grid[1:] * grid[:-1]) + jnp.sum(grid[:, 1:] * grid[:, :-1])
            return -self.beta * self.coupling * bonds

    check_energy_matches_exact(Ising(4, 0.4407))
    check_energy_matches_exact(Ising(4, 0.4, 0.7, 0.3))
    check_energy_matches_exact(Ising(3, 0.4, -1.0, 0.2))
    for fault in (Truncated, Open):
        broken = jax.tree_util.register_dataclass(
            fault, data_fields=["beta", "coupling", "field"], meta_fields=["length"]
        )
        with pytest.raises(AssertionError):
            check_energy_matches_exact(broken(4, 0.4407))


def test_energy_has_gradients_and_sweeps_without_retracing():
    num_traces = 0

    @jax.jit
    def energy(target, x):
        nonlocal num_traces
        num_traces += 1
        return target.energy(x)

    x = jnp.asarray(np.random.default_rng(2).integers(0, 2, 25), jnp.int32)
    at_one = [float(energy(Ising(5, beta), x)) for beta in (0.1, 0.2, 0.4)]
    assert num_traces == 1
    np.testing.assert_allclose(at_one, at_one[0] * np.array([1, 2, 4]), rtol=1e-5)
    slope = jax.grad(lambda beta: Ising(5, beta).energy(x))(0.3)
    assert float(slope) == pytest.approx(at_one[0] / 0.1, rel=1e-5)
    gradient = jax.grad(Ising(5, 0.3, 1.0, 0.5).energy)(x.astype(float))
    spins = 2 * np.asarray(x).reshape(5, 5) - 1
    around = sum(np.roll(spins, shift, axis) for shift in (1, -1) for axis in (0, 1))
    np.testing.assert_allclose(gradient, -2 * 0.3 * (around.ravel() + 0.5), atol=1e-5)


def test_modes():
    for target in (Ising(4, 0.4407), Ising(4, 0.3, 1.0, 0.2), Ising(3, 0.5)):
        probs = np.exp(enumerated_log_prob(target))
        states = jnp.asarray(enumerate_states(target.length**2, 2))
        cells = np.bincount(jax.vmap(target.mode_index)(states), weights=probs, minlength=3)
        np.testing.assert_allclose(target.mode_weights, cells, atol=1e-6)  # float32 energies
    np.testing.assert_array_equal(Ising(15, 0.4407).mode_weights, [0.5, 0.5, 0.0])
    assert Ising(16, 0.4407).mode_weights is None
    assert Ising(10, 0.4407).mode_weights[2] == pytest.approx(0.00146, abs=0.51e-5)


def test_what_is_not_known_is_none():
    target = Ising(13, 0.3, 1.0, 0.1)
    unknown = (target.log_z, target.mean_energy, target.energy_std, target.energy_law(), target.mode_weights)
    assert all(value is None for value in unknown)
    assert target.sample(jax.random.key(0), 2) is None
    assert Ising(13, 0.3, -1.0).sample(jax.random.key(0), 2) is None
    assert Ising(13, 0.3).symmetric_under_flip
    assert not target.symmetric_under_flip


def test_observables():
    up = jnp.ones(9, jnp.int32)
    observables = Ising(3, 0.1).observables
    assert float(observables["magnetization"](up.at[0].set(0))) == pytest.approx(7 / 9)
    assert float(observables["magnetization"](0 * up)) == -1.0
    assert float(observables["abs_magnetization"](0 * up)) == 1.0


@pytest.mark.parametrize("length", [2, 0, 2.5])
def test_length_is_checked(length):
    with pytest.raises(ValueError, match="length"):
        Ising(length, 0.4)


def test_double_precision():
    with jax.enable_x64(True):
        target = Ising(3, 0.3, 0.7, 0.1)
        assert target.energy(jnp.ones(9, jnp.int32)).dtype == jnp.float64
        assert enumerated_log_z(target) == pytest.approx(target.log_z, abs=1e-12)
