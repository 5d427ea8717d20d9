"""Gibbs and MALA-within-Gibbs against enumerated and otherwise known laws.

A kernel is started in one corner, or from random states, and must get to the law. Four standard errors of
fixed seeds; the last states of independent chains are independent draws.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.mcmc import gibbs, mala_within_gibbs, refreshing_moves
from egmjax.states import Categorical, Real
from egmjax.targets import GaussianBernoulliRBM, JointDW4, JointMoG, enumerate_states

pytestmark = pytest.mark.slow  # compiles a lot

SIGMAS = 4.0
POTTS = Categorical(3, 3)


def potts_energy(x):
    """Three coupled three-state sites and a field; no symmetry."""
    bonds = (x[0] == x[1]) * 1.2 + (x[1] == x[2]) * -0.7 + (x[0] == x[2]) * 0.4
    return -bonds - jnp.sum(jnp.asarray([0.3, -0.2, 0.5]) * x.astype(float))


def chi_square_z(x, energy_fn, space):
    """Standardised chi-square of states against the enumerated law."""
    states = enumerate_states(space.sites, space.num_states)
    energies = np.asarray(jax.vmap(energy_fn)(jnp.asarray(states)), np.float64)
    probs = np.exp(-energies)
    expected = len(x) * probs / probs.sum()
    powers = space.num_states ** np.arange(space.sites - 1, -1, -1)
    observed = np.bincount(np.asarray(x) @ powers, minlength=len(states))
    return (np.sum((observed - expected) ** 2 / expected) - len(states) + 1) / np.sqrt(2 * (len(states) - 1))


def run_chains(kernel, start, num_steps, seed):
    """The last states of all chains and the info of the last step."""

    def chain(position, key):
        def step(state, key):
            return kernel.step(key, state)

        return jax.lax.scan(step, kernel.init(position), jax.random.split(key, num_steps))

    num_chains = jax.tree.leaves(start)[0].shape[0]
    state, info = jax.jit(jax.vmap(chain))(start, jax.random.split(jax.random.key(seed), num_chains))
    return state.position, info


@pytest.mark.parametrize("scan", ["systematic", "random"])
def test_gibbs_reaches_the_enumerated_law(scan):
    kernel = gibbs(potts_energy, POTTS, scan=scan)
    x, info = run_chains(kernel, jnp.zeros((20_000, 3), jnp.int32), 20, 0)
    assert x.dtype == jnp.int32
    assert 0 < info.num_changed.mean() < 3
    assert abs(chi_square_z(x, potts_energy, POTTS)) < SIGMAS


def test_gibbs_all_sites_at_once_is_another_law():
    """Negative control: parallel updates from the old state converge to something else, and the test sees it."""

    def step(x, key):
        symbols = jnp.arange(3)
        sites = jnp.arange(3)
        energies = jax.vmap(lambda i: jax.vmap(lambda s: potts_energy(x.at[i].set(s)))(symbols))(sites)
        return jax.random.categorical(key, -energies).astype(x.dtype), None

    chain = jax.jit(jax.vmap(lambda x, key: jax.lax.scan(step, x, jax.random.split(key, 20))[0]))
    x = chain(jnp.zeros((20_000, 3), jnp.int32), jax.random.split(jax.random.key(1), 20_000))
    assert chi_square_z(x, potts_energy, POTTS) > 10 * SIGMAS


def test_gibbs_with_cheap_conditionals_makes_the_same_draws():
    def conditional(x, site):
        return jax.vmap(lambda s: potts_energy(x.at[site].set(s)))(jnp.arange(3)) + 100.0

    start = jnp.zeros((50, 3), jnp.int32)
    plain, _ = run_chains(gibbs(potts_energy, POTTS), start, 5, 2)
    cheap, _ = run_chains(gibbs(potts_energy, POTTS, conditional_fn=conditional), start, 5, 2)
    assert (plain == cheap).mean() > 0.99  # up to rounding of the constant


def test_gibbs_never_enters_zero_density():
    def energy(x):
        return jnp.where(x[0] == x[1], jnp.inf, 0.0)

    x, _ = run_chains(gibbs(energy, Categorical(2, 3)), jnp.tile(jnp.array([[0, 1]]), (500, 1)), 10, 3)
    assert (x[:, 0] != x[:, 1]).all()


def test_mala_within_gibbs_keeps_and_reaches_a_mixed_law(precision):
    """A random RBM, whose exact marginals are known; started in the wrong place."""
    rng = np.random.default_rng(4)
    target = GaussianBernoulliRBM(0.8 * rng.standard_normal((2, 3)), np.array([0.5, -0.3]), np.zeros(3), 0.9)
    num = 4_000
    start = (jnp.full((num, 2), 2.0), jnp.zeros((num, 3), jnp.int32))
    kernel = mala_within_gibbs(target.energy, target.space, step_size=0.4)
    x, info = run_chains(kernel, start, 60, 5)
    assert x[0].dtype == jnp.dtype(precision)
    assert 0.4 < info.acceptance_rate.mean() < 0.99
    energies = np.asarray(jax.vmap(target.energy)(x), np.float64)
    assert abs(energies.mean() - target.mean_energy) < SIGMAS * target.energy_std / np.sqrt(num)
    expected = num * target.mode_weights
    observed = np.bincount(jax.vmap(target.mode_index)(x), minlength=8)
    assert np.sum((observed - expected) ** 2 / expected) < 7 + SIGMAS * np.sqrt(14)


def test_mala_within_gibbs_takes_either_order():
    target = JointMoG(2, 0.5)
    turned = mala_within_gibbs(
        lambda x: target.energy((x[1], x[0])), (Categorical(2, 2), Real((2,))), step_size=0.1, scan="random"
    )
    (d, x), _ = run_chains(turned, (jnp.zeros((4_000, 2), jnp.int32), jnp.zeros((4_000, 2))), 80, 6)
    assert d.dtype == jnp.int32
    energies = np.asarray(jax.vmap(target.energy)((x, d)), np.float64)
    assert abs(energies.mean() - 1.0) < SIGMAS / np.sqrt(4_000)


def compact_start(num, seed):
    """Close together: far out the quartic walls are too steep for a Langevin step, and chains stay there."""
    key_y, key_tau = jax.random.split(jax.random.key(seed))
    tau = jax.random.bernoulli(key_tau, 0.5, (num, 4)).astype(jnp.int32)
    return 0.7 * jax.random.normal(key_y, (num, 6)), tau


def test_joint_dw4_by_mcmc_agrees_with_quadrature():
    """Independent of the rejection sampler and of the quadrature: 3,000 chains from a random start."""
    target, num = JointDW4(), 3_000
    kernel = mala_within_gibbs(target.energy, target.space, step_size=0.05, num_mala=5)
    x, info = run_chains(kernel, compact_start(num, 7), 60, 8)
    assert 0.6 < info.acceptance_rate.mean() < 0.75
    energies = np.asarray(jax.vmap(target.energy)(x), np.float64)
    assert abs(energies.mean() - target.mean_energy) < SIGMAS * target.energy_std / np.sqrt(num)
    distance = np.asarray(jax.vmap(target.observables["mean_distance"])(x), np.float64)
    assert abs(distance.mean() - 2.7051) < SIGMAS * distance.std() / np.sqrt(num)
    expected = num * target.mode_weights
    observed = np.bincount(jax.vmap(target.mode_index)(x), minlength=5)
    assert np.sum((observed - expected) ** 2 / expected) < 4 + SIGMAS * np.sqrt(8)


def test_joint_dw4_without_the_proposal_ratio_is_far_off():
    """Negative control: accepting with `exp(E - E')` alone samples positions from about `exp(-2 E)`.

    Mean energies measured in long runs: -9.03 at `h = .02`, -9.11 at .005.
    """
    target, num, step_size = JointDW4(), 500, 0.02

    def step(x, key):
        key_noise, key_accept, key_types = jax.random.split(key, 3)
        y, tau = x
        energy, gradient = jax.value_and_grad(lambda y: target.energy((y, tau)))(y)
        proposed = y - step_size * gradient + jnp.sqrt(2 * step_size) * jax.random.normal(key_noise, y.shape)
        accept = jnp.log(jax.random.uniform(key_accept)) < energy - target.energy((proposed, tau))
        y = jnp.where(accept, proposed, y)
        sweep = gibbs(lambda tau: target.energy((y, tau)), target.space[1])
        return (y, sweep.step(key_types, sweep.init(tau))[0].position), target.energy((y, tau))

    chain = jax.jit(jax.vmap(lambda x, key: jax.lax.scan(step, x, jax.random.split(key, 400))[1][200:]))
    energies = np.asarray(
        chain(target.sample(jax.random.key(9), num), jax.random.split(jax.random.key(10), num)), np.float64
    )
    error = energies.mean(axis=1).std() / np.sqrt(num)
    assert energies.mean() == pytest.approx(-9.03, abs=0.01 + SIGMAS * error)
    assert energies.mean() < target.mean_energy - 20 * error


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: gibbs(potts_energy, Real((3,))), "space"),
        (lambda: gibbs(potts_energy, POTTS, scan="sideways"), "scan"),
        (lambda: mala_within_gibbs(potts_energy, POTTS, step_size=0.1), "space"),
        (lambda: mala_within_gibbs(potts_energy, (Real((2,)), Real((2,))), step_size=0.1), "space"),
        (lambda: mala_within_gibbs(potts_energy, (Real((2,)), POTTS), step_size=0.0), "step_size"),
        (lambda: mala_within_gibbs(potts_energy, (Real((2,)), POTTS), step_size=0.1, num_mala=0), "num_mala"),
        (lambda: mala_within_gibbs(potts_energy, (Real((2,)), POTTS), step_size=0.1, scan="x"), "scan"),
    ],
)
def test_kernels_refuse_what_they_cannot_do(build, name):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        build()


def two_bumps(x):
    """A density on a real coordinate and two spins: `log p` up to a constant; for tests of refreshing moves."""
    y, d = x
    return -0.5 * jnp.sum((y - 1.5 * d[0]) ** 2) + 0.8 * d[0] * d[1] - 0.3 * d[1]


REFRESHED = {
    "symbols": (Categorical(2, 2), lambda d: two_bumps((jnp.zeros(1), d))),
    "real": (Real((1,)), lambda y: two_bumps((y, jnp.array([1, 0])))),
    "mixed": ((Real((1,)), Categorical(2, 2)), two_bumps),
}


@pytest.mark.parametrize("kind", REFRESHED)
def test_refreshing_moves_leave_the_density_as_it_is(kind):
    """Exact draws stay exact: means of test functions before and after differ by less than 4.5 standard errors."""
    space, log_density = REFRESHED[kind]
    rng = np.random.default_rng(0)
    num = 20_000
    table = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    at = jax.vmap(lambda d: log_density(d) if kind == "symbols" else two_bumps((1.5 * d[:1], d)))
    mass = np.exp(np.asarray(at(jnp.asarray(table)), np.float64))
    d = table[rng.choice(4, size=num, p=mass / mass.sum())]
    y = 1.5 * (d[:, :1] if kind == "mixed" else 1.0) + rng.normal(size=(num, 1))
    y, d = jnp.asarray(y, dtype=float), jnp.asarray(d, dtype=jnp.int32)
    x = {"symbols": d, "real": y, "mixed": (y, d)}[kind]
    refresh = refreshing_moves(space, num_steps=2, step_size=0.3)
    moved = jax.jit(jax.vmap(lambda k, a: refresh(k, a, log_density)))(
        jax.random.split(jax.random.key(0), num), x
    )
    changed = 0.0
    for before, after in zip(jax.tree.leaves(x), jax.tree.leaves(moved)):
        assert before.dtype == after.dtype
        before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
        changed = max(changed, np.mean(before != after))
        for fn in (lambda v: v, np.square, lambda v: v.prod(-1, keepdims=True)):
            difference = fn(after) - fn(before)
            assert np.all(np.abs(difference.mean(0)) < 4.5 * difference.std(0) / np.sqrt(num) + 1e-9)
    assert changed > 0.2


def test_refreshing_moves_refuse_bad_input():
    with pytest.raises(ValueError, match="num_steps"):
        refreshing_moves(Categorical(2, 2), num_steps=0)
    with pytest.raises(ValueError, match="step_size"):
        refreshing_moves(Real((1,)), num_steps=1)
