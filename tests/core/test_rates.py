"""General discrete paths and their three families of rates, by enumeration over two sites of three symbols.

Path and marginals are written out in numpy. Forward equation to the five-point rule, couplings and additions to 1e-12,
weights to 4 standard errors.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax._pytree import frozen_pytree
from egmjax.estimators import elbo, snis
from egmjax.generators import metropolis, superpose
from egmjax.paths import MetricPath, Polynomial
from egmjax.processes import RateProcess
from egmjax.proposals import model_rollout, reference_posterior
from egmjax.simulators import grid_sampler, time_grid
from tests.core.checks import chi_square_score, ess_fraction, weight_score
from tests.core.exact import Table, grid, number, slope
from tests.core.registry import bounded_psi, garbage
from tests.core.test_combine import matrix

pytestmark = pytest.mark.slow  # compiles a lot

MODEL = Table(3, 2, seed=3, spread=1.2)
X, POWER, STRENGTH = grid(3, 2), 1.3, 2.0
DISTANCE = np.array([[0.0, 0.3, 1.0], [0.4, 0.0, 0.6], [1.2, 0.5, 0.0]])
FAMILIES = ("minimal", "campbell", "kinetic")
NUM, K = 20_000, 4.0


def path():
    return MetricPath(
        sites=2,
        num_states=3,
        distance=jnp.asarray(DISTANCE, float),
        schedule=Polynomial(POWER),
        strength=STRENGTH,
    )


def process(family="minimal", **options):
    stepper = "coupling" if family == "minimal" else "leap"
    return RateProcess(path(), family=family, **{"stepper": stepper, **options})


def table(t):
    """`p_t(y | z)`, `[z, y]`."""
    if t >= 1:
        return np.eye(3)
    mass = np.exp(-STRENGTH * t**POWER / (1 - t**POWER) * DISTANCE)
    return mass / mass.sum(-1, keepdims=True)


def joint(t):
    """`p(x_t, x_1)`, `[x_t, x_1]`."""
    noise = table(t)
    return noise[MODEL.x1[None, :], X[:, None]].prod(-1) * MODEL.p1


def marginal(t):
    return joint(t).sum(1)


def exact(x, t):
    """`f` of the exact posterior: what the other site says."""
    p = process().path
    likelihood, states = p.likelihood(x, t), jnp.asarray(MODEL.x1)
    at = jnp.stack([likelihood[i, states[:, i]] for i in range(2)], -1)
    others = jnp.asarray(MODEL.p1, float)[:, None] * at[:, ::-1]
    return jnp.log(jnp.einsum("ki,kiz->iz", others, jax.nn.one_hot(states, 3, dtype=float)))


def test_path(x64):
    """Exact ends, positive probabilities between, and the law written out; the reference is the flat one, noised."""
    p = path()
    np.testing.assert_array_equal(p.table(1.0), np.stack([np.eye(3)] * 2))
    np.testing.assert_allclose(p.table(0.0), 1 / 3, rtol=1e-12)
    for t in (0.0, 0.2, 0.7, 0.999):
        np.testing.assert_allclose(p.table(t)[1], table(t), atol=1e-12)
        reference = np.exp(jax.vmap(lambda x, t=t: p.log_reference(x, t))(jnp.asarray(X)))
        np.testing.assert_allclose(reference, table(t).sum(0)[X].prod(-1), rtol=1e-10)
    value, speed = p.table_with_slope(0.3)
    np.testing.assert_allclose(value.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(speed[0], slope(table, 0.3), atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_rates_solve_the_forward_equation(family, x64):
    """`Q p = dp/dt`; with the reversed rates `(Q + Qbar) p = 0`; of the three the minimal total rate is the least."""
    model = process(family)
    for t in (0.0, 0.15, 0.6):
        p = marginal(t)
        forward = matrix(lambda x, t=t: model.generator(exact(x, t), x, t), X)
        rate = slope(marginal, t) if t > 0 else slope(lambda s: marginal(0.3 * abs(s)), 0.0)
        if t > 0:
            assert np.abs(forward @ p - rate).max() < 1e-8
            assert np.abs(rate).max() > 0.02
        both = matrix(
            lambda x, t=t: superpose(
                [model.generator(exact(x, t), x, t), model.backward_generator(exact(x, t), x, t)], [1, 1]
            ),
            X,
        )
        assert np.abs(both @ p).max() < 1e-12
        added = matrix(lambda x, t=t: metropolis(model.log_ratios(exact, x, t)), X)
        assert np.abs(added @ p).max() < 1e-12


def test_minimal_rates_are_minimal_and_a_mixture_path_is_an_instance(x64):
    """With the metric of equality: `kappa' / (1 - kappa) D(y)`, kappa that of the equivalent mixture."""
    t, x = 0.4, jnp.array([2, 1])
    total = {
        f: float(jnp.sum(process(f).generator(garbage(process())(x, t), x, t).intensities)) for f in FAMILIES
    }
    assert total["minimal"] < min(total["campbell"], total["kinetic"])
    same = MetricPath(sites=2, num_states=3, distance=1.0 - jnp.eye(3))
    model = RateProcess(same)
    kappa = lambda s: (1 - np.exp(-s / (1 - s))) / (1 + 2 * np.exp(-s / (1 - s)))  # noqa: E731
    raw = garbage(model)(x, t)
    law = np.exp(model.posterior(raw, x, t))
    found = model.generator(raw, x, t).intensities
    expected = slope(kappa, t) / (1 - kappa(t)) * law
    away = np.asarray(x)[:, None] != np.arange(3)
    np.testing.assert_allclose(np.asarray(found)[away], expected[away], rtol=1e-7)


def test_coupling_carries_every_endpoint_exactly(x64):
    """Given one endpoint the step maps `p_t(. | z)` to `p_s(. | z)` at any step, and its reversal back, to 1e-12."""
    model = process()
    for t, s in ((0.0, 0.4), (0.3, 0.35), (0.2, 1.0)):
        for z in X[[1, 5]]:
            sure = jnp.where(jnp.asarray(z)[:, None] == jnp.arange(3)[None, :], 0.0, -jnp.inf)
            ahead = np.exp(jax.vmap(lambda x, t=t, s=s, f=sure: model._ahead(f, x, t, s))(jnp.asarray(X)))
            behind = np.exp(jax.vmap(lambda x, t=t, s=s, f=sure: model._behind(f, x, t, s))(jnp.asarray(X)))
            for i in range(2):
                p, q = table(t)[z[i]], table(s)[z[i]]
                kernel = np.stack([ahead[X[:, i] == x][0, i] for x in range(3)])
                np.testing.assert_allclose(p @ kernel, q, atol=1e-12)
                back = np.stack([behind[X[:, i] == x][0, i] for x in range(3)])
                np.testing.assert_allclose(p[:, None] * kernel, (q[:, None] * back).T, atol=1e-12)


def roll_out(model, predict, times, num=NUM):
    sampler = grid_sampler(model, times)

    @jax.jit
    @jax.vmap
    def run(key):
        rollout = sampler.sample(key, predict)
        return rollout.x, rollout.log_weight - MODEL.energy(rollout.x)  # the reference is flat at t=1

    x, log_w = run(jax.random.split(jax.random.key(0), num))
    return x, np.asarray(log_w, np.float64)


@functools.cache
def spoiled(family):
    model = process(family)
    return roll_out(model, garbage(model), (0.0, 0.3, 0.7, 1.0))


@pytest.mark.parametrize("family", FAMILIES)
def test_mean_weight_is_z_for_a_spoiled_network(family):
    score, error = weight_score(spoiled(family)[1], MODEL.log_z)
    assert score < K
    assert 1e-3 < error < 0.03


def test_reference_and_exact_network():
    """Constant weights for the reference at any step; ESS to 1 and the target's law with the exact network."""
    model = process()
    x, idle = roll_out(model, lambda x, t: jnp.zeros((2, 3)), (0.0, 0.3, 0.7, 1.0), 500)
    np.testing.assert_allclose(idle, 2 * np.log(3) - jax.vmap(MODEL.energy)(x), atol=2e-5)
    ess = [ess_fraction(roll_out(model, exact, time_grid(n), 3000)[1]) for n in (4, 100)]
    assert ess[0] < ess[1]
    assert ess[1] > 0.93
    x, log_w = roll_out(process("kinetic"), exact, time_grid(100), 4000)
    assert ess_fraction(log_w) > 0.8
    assert chi_square_score(number(np.asarray(x), 3), MODEL.p1) < 4.5


def test_minimiser_of_the_divergence_is_the_posterior(x64):
    t, row = 0.4, 5
    weights = jnp.asarray(joint(t)[row] / joint(t)[row].sum())
    for weighting in ("rate", "uniform"):
        model = process("campbell", weighting=weighting)
        x = jnp.asarray(X[row])
        target = model.weighted_target(weights, x, jnp.asarray(MODEL.x1), t)
        gradient = jax.grad(lambda f, m=model, a=target, x=x: m.divergence(a, f, x, t))(exact(x, t))
        np.testing.assert_allclose(gradient, 0, atol=1e-10)


def test_bound_holds_for_the_exact_network():
    """Strictly: the chains given an endpoint do not mix to a Markov chain, as those of a Markov path do."""
    found = jax.jit(
        lambda k: elbo(k, jnp.asarray(X[3]), process=process(), predict_fn=exact, num_times=20_000)
    )(jax.random.key(0))
    assert found.elbo + 4 * found.standard_error < np.log(MODEL.p1[3]) < found.elbo + 1.5
    assert found.standard_error < 0.1
    assert found.num_nonfinite == 0


def test_refusals():
    model = process()
    x = jnp.array([0, 1])
    with pytest.raises(ValueError, match="r: the target of this process exists at r=1 only"):
        snis(
            jax.random.key(0),
            x,
            0.3,
            0.8,
            process=model,
            proposal=reference_posterior(model.path),
            psi_fn=bounded_psi,
            num_proposals=4,
        )
    for call in (
        lambda: model.target(x, x, 0.3, 0.8),
        lambda: model.path.sample(jax.random.key(0), x, 0.3, 0.8),
    ):
        with pytest.raises(ValueError, match="r: this path is not Markov"):
            call()
    with pytest.raises(ValueError, match="sampler: roll-outs from x_t"):
        model_rollout(grid_sampler(model, time_grid(2)), exact)
    for options, match in (
        ({"family": "other"}, "family"),
        ({"stepper": "other"}, "stepper"),
        ({"family": "kinetic"}, "stepper: the maximal coupling"),
    ):
        with pytest.raises(ValueError, match=match):
            RateProcess(path(), **options)
    for distance in (None, np.ones((3, 3)), np.zeros((3, 3)), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="distance"):
            MetricPath(sites=2, num_states=3, distance=distance)


# -- seeded faults ---------------------------------------------------------------------------------------------


@frozen_pytree
class LandsAnywhere(RateProcess):
    """Jumps land by the law at the later time instead of where it has gained."""

    def _flux(self, x, t):
        p, dp = self.path.table_with_slope(t)
        return jnp.maximum(-self._at(dp, x), 0.0)[..., None] * p, p


@frozen_pytree
class Inverted(RateProcess):
    def _ratio(self, ahead, xt, xs, predict_fn, t, s):
        return -super()._ratio(ahead, xt, xs, predict_fn, t, s)


def test_faults_are_detected(x64):
    bad, t = LandsAnywhere(path()), 0.6
    forward = matrix(lambda x: bad.generator(exact(x, t), x, t), X)
    assert np.abs(forward @ marginal(t) - slope(marginal, t)).max() > 1e-2
    bad = Inverted(path())
    log_w = roll_out(bad, garbage(bad), (0.0, 0.3, 0.7, 1.0))[1]
    assert weight_score(log_w, MODEL.log_z)[0] > 10
