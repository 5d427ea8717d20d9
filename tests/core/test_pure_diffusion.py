"""Diffusion without drift: the forward equation by quadrature, the atom that absorption builds, weights.

Data for the marginal process: density `(1 + c cos(pi v)) / L` in the box, `v` in `[0, 1]`, of known noise.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax._pytree import frozen_pytree
from egmjax.generators import action
from egmjax.paths import Linear, UniformPath
from egmjax.processes import PureDiffusionProcess
from egmjax.simulators import grid_sampler
from tests.core.checks import chi_square_score, weight_score
from tests.core.exact import slope
from tests.core.registry import garbage

pytestmark = pytest.mark.slow  # compiles a lot

LOW, HIGH = -1.0, 2.0
LENGTH, TILT = HIGH - LOW, 0.6
PATH = UniformPath(LOW, HIGH, Linear(), (1,))
NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)
NODES, WEIGHTS = 0.5 * (NODES + 1), 0.5 * WEIGHTS  # in units of the box
NUM, K = 20_000, 4.0


def wave(x):
    """No slope at the ends, as reflection wants."""
    return jnp.cos(jnp.pi * (x[0] - LOW) / LENGTH) + 0.3 * jnp.cos(2 * jnp.pi * (x[0] - LOW) / LENGTH)


def log_noise(target):
    """The prediction whose noise is `target` times the reference's."""
    return jnp.log(jnp.where(target > 0, target, 1e-30))


def test_weak_form_given_the_endpoint(x64):
    """z=.4, kappa=.35, kappa'=1.7 on [-1, 2]: both sides are -.32115688882."""

    process, z, kappa, speed = PureDiffusionProcess(PATH), 0.4, 0.35, 1.7
    pieces = [(LOW, z), (z, HIGH)]  # a kink at z
    right = 0.0
    for a, b in pieces:
        x = jnp.asarray(a + (b - a) * NODES)[:, None]
        target = jax.vmap(lambda y: process.target(y, jnp.array([z]), kappa))(x)

        def acted(y, f):
            return action(process.generator(log_noise(f), y, kappa), wave, y)

        values = np.asarray(jax.vmap(acted)(x, target))
        right += (1 - kappa) / LENGTH * (b - a) * WEIGHTS @ values
    x = jnp.asarray(LOW + LENGTH * NODES)[:, None]
    left = float(wave(jnp.array([z]))) - WEIGHTS @ np.asarray(jax.vmap(wave)(x))
    np.testing.assert_allclose(speed * right, -0.32115688882, atol=1e-10)  # kappa' = 1 above
    np.testing.assert_allclose(speed * left, -0.32115688882, atol=1e-10)


def density(v, t):
    return (1 + t * TILT * np.cos(np.pi * v)) / LENGTH


def exact_target(v, t):
    """`2 kappa' (integral of (F_data - F_uniform) + E (z - low)^2 / 2 L) / p_t` over `kappa' L^2 / 3`."""
    lifted = TILT / np.pi**2 * (1 - jnp.cos(np.pi * v))
    second = 1 / 3 - 2 * TILT / np.pi**2  # of v under the data
    return 6 * (lifted + second / 2) / (1 + t * TILT * jnp.cos(np.pi * v))


def exact(x, t):
    return jnp.log(exact_target((x - LOW) / LENGTH, t))


def test_marginal_forward_equation_and_targets(x64):
    """`d/dt E f = E L f` within 1e-9, and the mean of the targets over `x_r` is the marginal's, whatever `r`."""
    process = PureDiffusionProcess(PATH)
    x = jnp.asarray(LOW + LENGTH * NODES)[:, None]
    values = np.asarray(jax.vmap(wave)(x))
    for t in (0.1, 0.5, 0.9):
        acted = jax.vmap(lambda y, t=t: action(process.generator(exact(y, t), y, t), wave, y))(x)
        left = slope(lambda s: LENGTH * WEIGHTS @ (density(NODES, s) * values), t)
        assert abs(left - LENGTH * WEIGHTS @ (density(NODES, t) * np.asarray(acted))) < 1e-9
    t, y = 0.4, jnp.array([0.35])
    v = (0.35 - LOW) / LENGTH
    for r in (0.55, 0.8, 1.0):
        total = 0.0
        for a, b in ((LOW, 0.35), (0.35, HIGH)):
            later = jnp.asarray(a + (b - a) * NODES)[:, None]
            target = np.asarray(jax.vmap(lambda w, r=r: process.target(y, w, t, r))(later))[:, 0]
            law = density((np.asarray(later)[:, 0] - LOW) / LENGTH, r) * (1 - t / r) / LENGTH
            total += (b - a) * WEIGHTS @ (law * target)
        np.testing.assert_allclose(total / density(v, t), exact_target(v, t), rtol=1e-9)


@pytest.mark.parametrize("loss", ["itakura_saito", "squared"])
def test_minimiser_of_the_divergence_is_the_mean(loss, x64):
    process = PureDiffusionProcess(PATH, loss)
    targets = jnp.array([0.0, 0.4, 3.0])
    risk = lambda f: jnp.mean(jax.vmap(lambda a: process.divergence(a[None], f, f, 0.3))(targets))  # noqa: E731
    best = jnp.log(jnp.mean(targets))[None]
    np.testing.assert_allclose(jax.grad(risk)(best), 0, atol=1e-12)
    assert risk(best + 0.1) > risk(best) < risk(best - 0.1)


def follow(process, z, kappa, num_steps, num=NUM):
    """The conditional chain to `kappa`, equal steps of its clock."""
    times = jnp.asarray(-np.expm1(np.linspace(0, np.log1p(-kappa), num_steps + 1)), dtype=float)

    def run(key):
        key_prior, key_steps = jax.random.split(key)

        def body(x, inputs):
            return process.conditional_step(inputs[0], x, z, inputs[1], inputs[2]), None

        keys = jax.random.split(key_steps, num_steps)
        return jax.lax.scan(body, process.path.sample_prior(key_prior), (keys, times[:-1], times[1:]))[0]

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num)))[:, 0]


def atom_score(process, kappa=0.5, z=0.4):
    x = follow(process, jnp.array([z]), kappa, 200)
    atom = x == np.float32(z)
    share = abs(atom.mean() - kappa) - 0.005  # of the step
    cells = np.floor((x[~atom] - LOW) / LENGTH * 10).astype(int)
    return share / np.sqrt(kappa * (1 - kappa) / NUM), chi_square_score(
        np.clip(cells, 0, 9), np.full(10, 0.1)
    )


def test_absorption_builds_the_atom_and_leaves_the_rest_uniform():
    share, rest = atom_score(PureDiffusionProcess(PATH))
    assert share < K
    assert rest < 6  # of a density within a few percent
    x = follow(PureDiffusionProcess(PATH), jnp.array([0.4]), 0.999, 400, 4000)
    assert np.mean(x == np.float32(0.4)) > 0.99


def psi(x):
    return jnp.sum(jnp.log1p(TILT * jnp.cos(jnp.pi * (x - LOW) / LENGTH))) + 0.3


def log_weights(process, predict, times=(0.0, 0.3, 0.6, 1.0)):
    sampler = grid_sampler(process, times)

    def one(key):
        rollout = sampler.sample(key, predict)
        return rollout.x, rollout.log_weight

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), NUM))


def test_reflections_stay_in_the_box():
    """In float32 `low + (high - low)` may lie beyond `high`, where the reference has no mass."""
    for low, high in ((-0.1, 0.3), (0.1, 0.7), (-1.3, 2.6)):
        path = UniformPath(low, high, Linear(), (5000,))
        near_an_end = jnp.where(jnp.arange(5000) % 2 == 0, path.low, path.high)
        x = jnp.nextafter(near_an_end, jnp.asarray(jnp.inf)) + 2.0 * path.length
        for moved in (x, near_an_end, near_an_end - 4.0 * path.length):
            assert np.all(np.isfinite(path.log_reference(PureDiffusionProcess(path)._fold(moved), 1.0)))


def test_weights_and_marginals_of_the_exact_noise():
    process = PureDiffusionProcess(PATH)
    x, log_w = log_weights(process, garbage(process))
    score, error = weight_score(log_w + jax.vmap(psi)(x), 0.3)
    assert score < K
    assert 1e-3 < error < 0.03
    _, idle = log_weights(process, lambda x, t: jnp.zeros((1,)))
    np.testing.assert_allclose(idle, 0, atol=2e-5)
    x, _ = log_weights(process, exact, tuple(np.linspace(0, 1, 65)))
    edges = np.linspace(0, 1, 11)
    law = np.diff(edges + TILT * np.sin(np.pi * edges) / np.pi)
    cells = np.clip(np.floor((np.asarray(x)[:, 0] - LOW) / LENGTH * 10).astype(int), 0, 9)
    assert chi_square_score(cells, law) < 5
    with pytest.raises(ValueError, match="loss"):
        PureDiffusionProcess(PATH, "absolute")
    with pytest.raises(ValueError, match="low"):
        UniformPath(1.0, 1.0)


@frozen_pytree
class NeverAbsorbed(PureDiffusionProcess):
    def conditional_step(self, key, xt, z, t, s):
        std = self.path.length * jnp.sqrt(self._profile(xt, z) * jnp.log((1 - t) / (1 - s)))
        return self._fold(xt + std * jax.random.normal(key, xt.shape))


def test_faults_are_detected():
    assert atom_score(NeverAbsorbed(PATH))[0] > 50
