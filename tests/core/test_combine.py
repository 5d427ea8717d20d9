"""Combining after training, by enumeration: predictor-corrector, divergence-free additions, superposition, guidance.

`Q p = dp/dt` and `Q p = 0` to 1e-12 of rate matrices built from the generators; chains with corrections against exact
marginals (chi-square below 4.5) and weights (4 standard errors); order of convergence of a superposition.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax._pytree import frozen_pytree
from egmjax.generators import (
    Diffusion,
    Jump,
    action,
    gibbs,
    guided,
    langevin,
    metropolis,
    predictor_corrector,
    superpose,
)
from egmjax.paths import CondOT, GaussianPath, Linear, MaskedPath, MixturePath, Polynomial
from egmjax.processes import (
    DiffusionProcess,
    FlowProcess,
    GaussianProcess,
    MaskedProcess,
    MixtureProcess,
    SuperpositionProcess,
    guide,
)
from egmjax.simulators import grid_sampler, rate_sampler, time_grid
from tests.core import test_mixture as mixture
from tests.core.checks import chi_square_score, weight_score
from tests.core.exact import Mixture, Table, grid, number, slope
from tests.core.registry import garbage

pytestmark = pytest.mark.slow  # compiles a lot

MODEL = Table(3, 2, seed=3, spread=1.2)
POWER, NUM, K = 1.7, 20_000, 4.0
PRIOR = (0.5, 0.2, 0.3)
AMOUNT = lambda t: 4.0 * t**2 * (1.0 - t) ** 0.25  # noqa: E731


def masked():
    return MaskedProcess(MaskedPath(Polynomial(POWER), sites=2, num_states=3))


def uniform():
    return MixtureProcess(MixturePath(Polynomial(POWER), jnp.asarray(PRIOR, float), sites=2, num_states=3))


CASES = {  # process, its states, the exact network, the exact marginal at t
    "masked": (
        masked,
        grid(4, 2),
        lambda p: MODEL.predict,
        lambda p, t: MODEL.marginal(np.full(2, t**POWER)),
    ),
    "uniform": (
        uniform,
        grid(3, 2),
        mixture.exact_prediction,
        lambda p, t: mixture.marginal(p, np.full(2, t**POWER)),
    ),
}


def matrix(generator_fn, states):
    """`A[y, x]`, columns summing to zero, of a jump generator at every state."""
    base = int(states.max()) + 1
    jumps = jax.jit(jax.vmap(lambda x: generator_fn(x).intensities))(jnp.asarray(states))
    rates = np.zeros((len(states), len(states)))
    for column, x in enumerate(states):
        for i, row in enumerate(np.asarray(jumps[column])):
            for y, rate in enumerate(row):
                if y != x[i]:
                    to = x.copy()
                    to[i] = y
                    rates[number(to, base), column] += rate
    return rates - np.diag(rates.sum(0))


@pytest.mark.parametrize("name", CASES)
def test_rate_matrices(name, x64):
    """`L p = dp/dt`, `Lbar p = -dp/dt`, predictor-corrector `= dp/dt`, Metropolis and Gibbs `= 0`."""
    build, states, network, marginal = CASES[name]
    process, t = build(), 0.4
    predict = network(process.path) if name == "uniform" else MODEL.predict
    p = marginal(process.path, t)
    rate = slope(lambda s: marginal(process.path, s), t)

    def forward(x):
        return process.generator(predict(x, t), x, t)

    def backward(x):
        return process.backward_generator(predict(x, t), x, t)

    assert np.abs(matrix(forward, states) @ p - rate).max() < 1e-7  # of the five-point rule
    assert np.abs(matrix(lambda x: superpose([forward(x), backward(x)], [1, 1]), states) @ p).max() < 1e-12
    corrected = matrix(lambda x: predictor_corrector(forward(x), backward(x), 1.3), states)
    assert np.abs(corrected @ p - matrix(forward, states) @ p).max() < 1e-12
    if name == "masked":
        kappa, speed = t**POWER, POWER * t ** (POWER - 1)
        found = predictor_corrector(forward(jnp.array([3, 1])), backward(jnp.array([3, 1])), 1.3).intensities
        denoiser = MODEL.denoiser[number(np.array([3, 1]), 4), 0]
        np.testing.assert_allclose(found[0, :3], 2.3 * speed / (1 - kappa) * denoiser, rtol=1e-9)
        np.testing.assert_allclose(found[1], [0, 0, 0, 1.3 * speed / kappa], rtol=1e-9)
    for move in (metropolis, gibbs):
        added = matrix(lambda x, move=move: move(process.log_ratios(predict, x, t), 0.7), states)
        assert np.abs(added @ p).max() < 1e-12
        assert np.abs(added).max() > 0.05
    wrong = matrix(lambda x: metropolis(-process.log_ratios(predict, x, t)), states)
    assert np.abs(wrong @ p).max() > 1e-2


def test_langevin_and_the_noise_of_a_diffusion(x64):
    """`E L0 f = 0` by quadrature; `(1 + c) L + c Lbar` of a diffusion is the diffusion at `1 + 2 c` times the noise."""
    target = Mixture([[-1.0], [1.4]], [0.4, 0.7], [0.35, 0.65])
    path, t, c = GaussianPath(CondOT(1.5), mean=0.3, scale=1.2, shape=(1,)), 0.4, 0.8
    nodes = np.linspace(-14, 14, 3001)
    density = target.noised(t, 1.5 * (1 - t)).pdf(nodes[:, None])
    predict = target.residual(path)

    def both(x):
        f = lambda y: jnp.sin(1.3 * y[0] - 0.4)  # noqa: E731
        return action(langevin(path.score(predict(x, t), x, t), 0.9), f, x)

    acted = np.asarray(jax.jit(jax.vmap(both))(jnp.asarray(nodes[:, None])))
    assert abs((density * acted).sum() * (nodes[1] - nodes[0])) < 1e-9
    process, x = DiffusionProcess(path, 0.5), jnp.array([0.7])
    pair = process.generator(predict(x, t), x, t), process.backward_generator(predict(x, t), x, t)
    stronger = DiffusionProcess(path, 0.5 * (1 + 2 * c)).generator(predict(x, t), x, t)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), predictor_corrector(*pair, c), stronger
    )
    flow = FlowProcess(path)
    pair = flow.generator(predict(x, t), x, t), flow.backward_generator(predict(x, t), x, t)
    np.testing.assert_allclose(predictor_corrector(*pair, c).velocity, pair[0].velocity, rtol=1e-12)
    assert isinstance(stronger, Diffusion)


@functools.cache
def corrected(name, exact, times=(0.0, 0.3, 0.7, 1.0), num=NUM):
    """States, log-weights and what is seen at the times, of roll-outs with corrections."""
    process = CASES[name][0]()
    predict = CASES[name][2](process.path) if exact else garbage(process)
    base = 4 if name == "masked" else 3
    sampler = grid_sampler(process, times, corrector_fn=AMOUNT, observer=lambda x, t: number(x, base))
    assert not sampler.is_reversal

    @jax.jit
    @jax.vmap
    def run(key):
        rollout = sampler.sample(key, predict)
        return rollout.x, rollout.log_weight + mixture.psi(process, rollout.x), rollout.observed

    x, log_w, seen = run(jax.random.split(jax.random.key(0), num))
    return sampler, predict, np.asarray(x), np.asarray(log_w, np.float64), np.asarray(seen)


@pytest.mark.parametrize("name", CASES)
def test_weights_of_corrected_rollouts(name):
    """`E[w] = Z` for a spoiled network, forwards; `E[1 / w] = 1 / Z` backwards from exact samples."""
    sampler, predict, _, log_w, _ = corrected(name, exact=False)
    score, error = weight_score(log_w, MODEL.log_z)
    assert score < K
    assert 1e-3 < error < 0.05
    process, x1 = CASES[name][0](), MODEL.sample(1, NUM)
    back = jax.jit(jax.vmap(lambda k, x: sampler.log_weight(k, predict, x) + mixture.psi(process, x)))
    upper = np.asarray(back(jax.random.split(jax.random.key(2), NUM), x1), np.float64)
    score, error = weight_score(-upper, -MODEL.log_z)
    assert score < K
    assert 1e-3 < error < 0.05


@pytest.mark.parametrize("name", CASES)
def test_corrections_keep_the_marginals(name):
    """After training: every marginal of a fine grid is the exact one."""
    times = tuple(np.linspace(0, 1, 129))
    _, _, x, _, seen = corrected(name, exact=True, times=times, num=6000)
    path = CASES[name][0]().path
    for step in (32, 80, 120):
        assert chi_square_score(seen[:, step], CASES[name][3](path, times[step])) < 4.5
    assert chi_square_score(number(x, 3), MODEL.p1) < 4.5


# -- rates ------------------------------------------------------------------------------------------------------


@functools.cache
def simulated(method, num_steps, amount=0.0):
    process = masked()
    rates = None
    if amount:
        rates = lambda f, x, t: predictor_corrector(  # noqa: E731
            process.generator(f(x, t), x, t), process.backward_generator(f(x, t), x, t), amount * t
        )
    times = np.append(np.linspace(0, 0.96, num_steps), 1.0)
    # (1 + c) and c times what all sites can do
    bound = lambda t, s: 2 * POWER * ((1 + amount) / (1 - s**POWER) + amount)  # noqa: E731
    sampler = rate_sampler(
        process,
        times,
        method=method,
        rates_fn=rates,
        bound_fn=bound if amount else None,
        observer=lambda x, t: number(x, 4),
    )
    run = jax.jit(jax.vmap(lambda k: sampler.sample(k, MODEL.predict)))
    return times, jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(4), 8000)))


@pytest.mark.parametrize("amount", [0.0, 1.5])
def test_thinning_is_exact_on_a_coarse_grid(amount):
    times, rollout = simulated("thinning", 5, amount)
    for step in (2, 4):
        law = MODEL.marginal(np.full(2, times[step] ** POWER))
        assert chi_square_score(rollout.observed[:, step], law) < 4.5
    assert rollout.num_exceeded.sum() == 0
    assert rollout.num_calls.sum(1).mean() > rollout.num_jumps.sum(1).mean() >= 2
    if not amount:  # every site is revealed once
        assert np.all(rollout.num_jumps.sum(1) == 2)


def test_leaping_tends_to_the_marginals_with_the_step():
    scores = []
    for num_steps in (4, 100):
        times, rollout = simulated("leap", num_steps)
        law = MODEL.marginal(np.full(2, times[-2] ** POWER))
        scores.append(chi_square_score(rollout.observed[:, -1], law))
        assert np.all(rollout.num_calls == 1)
    assert scores[0] > 30 > 4.5 > scores[1]


# -- superposition and guidance ---------------------------------------------------------------------------------


@frozen_pytree
class ExactBridge(GaussianProcess):
    """Draws the endpoint from the exact posterior of `N(1, 0.5^2)` and follows the bridge: exact at every step."""

    def step(self, key, xt, predict_fn, t, s, prediction=None):
        key_end, key_bridge = jax.random.split(key)
        alpha, sigma = self.path.coefficients(t)
        variance = 1.0 / (4.0 + (alpha / sigma) ** 2)
        mean = variance * (4.0 + alpha / sigma**2 * xt)
        end = mean + jnp.sqrt(variance) * jax.random.normal(key_end, xt.shape)
        noise = jax.random.normal(key_bridge, xt.shape)
        c, v = self.path.chain(t, s)
        a, w = self.path.chain(s, 1.0)
        total = v + c**2 * w
        return (v * a * end + c * w * xt) / total + jnp.sqrt(v * w / total) * noise, jnp.zeros(())


def test_superposition_keeps_the_order_of_the_flow(x64):
    """Half of the steps Heun, half exact kernels: a quarter of the error with half of the step.

    Both are affine, so mean and variance of the chain follow from two states and no noise of sampling is left.
    """
    path = GaussianPath(CondOT(1.0), shape=(1,))
    predict = Mixture([[1.0]], [0.5], [1.0]).residual(path)
    process = SuperpositionProcess((FlowProcess(path), ExactBridge(path)), (0.5, 0.5), separate=True)
    both = lambda x, t: (predict(x, t), predict(x, t))  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 20_000)

    @jax.jit
    def moments(times):
        """The chain's mean and variance at `t=1`: `E x_s`, `E x_s^2` are linear in those of `x_t`."""

        def advance(carry, ends):
            mean, square = carry
            t, s = ends
            at = lambda x: jax.vmap(lambda k: process.step(k, x[None], both, t, s)[0][0])(keys)  # noqa: E731
            flow = [
                process.processes[0].step(keys[0], jnp.array([x]), predict, t, s)[0][0] for x in (0.0, 1.0)
            ]
            gain = flow[1] - flow[0]
            # the exact half in closed form, from the law that it keeps
            alpha, sigma = path.coefficients(t)
            beta, tau = path.coefficients(s)
            c, _ = path.chain(t, s)
            kept = c * ((beta * 0.5) ** 2 + tau**2) / ((alpha * 0.5) ** 2 + sigma**2)
            left = (beta * 0.5) ** 2 + tau**2 - kept**2 * ((alpha * 0.5) ** 2 + sigma**2)
            shift = beta - kept * alpha
            drawn = at(jnp.asarray(0.3))
            expected = 0.5 * (flow[0] + 0.3 * gain + kept * 0.3 + shift)
            expected_square = 0.5 * (flow[0] + 0.3 * gain) ** 2 + 0.5 * ((kept * 0.3 + shift) ** 2 + left)
            error = jnp.stack(
                [
                    jnp.abs(jnp.mean(a) - b) / (jnp.std(a) / len(keys) ** 0.5)
                    for a, b in ((drawn, expected), (drawn**2, expected_square))
                ]
            )
            new_mean = 0.5 * (flow[0] + gain * mean + kept * mean + shift)
            squares = (
                gain**2 * square + 2 * gain * flow[0] * mean + flow[0] ** 2,
                kept**2 * square + 2 * kept * shift * mean + shift**2 + left,
            )
            return (new_mean, 0.5 * sum(squares)), error

        (mean, square), errors = jax.lax.scan(advance, (0.0, 1.0), (times[:-1], times[1:]))
        return mean, square - mean**2, jnp.max(errors)

    errors = []
    for n in (8, 16, 32):
        mean, variance, score = moments(jnp.asarray(time_grid(n)))
        assert score < 4.5  # the chain does follow these moments
        errors.append(abs(mean - 1.0) + abs(variance - 0.25))
    assert 3.4 < errors[0] / errors[1] < 4.8
    assert 3.4 < errors[1] / errors[2] < 4.8


def test_guidance(x64):
    process = masked()
    first, second = garbage(process, 1), garbage(process, 2)
    x, t, w = jnp.array([3, 1]), 0.4, 0.7
    predict = guide(first, second, lambda t: 0.7 + 0.0 * t)
    probs = [np.exp(process.posterior(f(x, t), x, t))[0] for f in (first, second, predict)]
    expected = probs[0] ** (1 + w) * probs[1] ** -w
    np.testing.assert_allclose(probs[2], expected / expected.sum(), rtol=1e-9)
    rates = [process.generator(f(x, t), x, t) for f in (first, second)]
    geometric = guided(*rates, w)
    np.testing.assert_allclose(geometric.law[0], probs[2], rtol=1e-9)
    assert np.all(geometric.intensities[1] == 0)
    flow = FlowProcess(GaussianPath(CondOT(1.5), shape=(2,)))
    first, second, y = garbage(flow, 1), garbage(flow, 2), jnp.array([0.2, -0.4])
    parts = [flow.generator(f(y, t), y, t) for f in (first, second)]
    found = flow.generator(guide(first, second, w)(y, t), y, t).velocity
    np.testing.assert_allclose(found, (1 + w) * parts[0].velocity - w * parts[1].velocity, rtol=1e-9)
    np.testing.assert_allclose(guided(*parts, w).velocity, found, rtol=1e-9)
    with pytest.raises(ValueError, match="conditional: guidance is for"):
        guided(parts[0], rates[0], w)
    with pytest.raises(ValueError, match="conditional: products of unlike numbers"):
        guided((parts[0],), (parts[0], parts[1]), w)


def test_refusals():
    process = masked()
    for arguments, match in (
        ({"method": "euler"}, "method"),
        ({"method": "thinning", "rates_fn": lambda f, x, t: None}, "bound_fn"),
    ):
        with pytest.raises(ValueError, match=match):
            rate_sampler(process, time_grid(3), **arguments)
    with pytest.raises(ValueError, match="process: expected a JumpProcess"):
        rate_sampler(FlowProcess(GaussianPath(CondOT(1.5))), time_grid(3))
    with pytest.raises(ValueError, match="num_corrections"):
        grid_sampler(process, time_grid(3), num_corrections=0)


# -- seeded faults ---------------------------------------------------------------------------------------------


@frozen_pytree
class BackTooOften(MaskedProcess):
    def backward_generator(self, prediction, xt, t):
        return Jump(2.0 * super().backward_generator(prediction, xt, t).intensities)


@frozen_pytree
class BackwardsFlipped(MaskedProcess):
    """The corrector's move back is paid for with the wrong sign."""

    def increment(self, key, xt, xs, predict_fn, t, s):
        return -super().increment(key, xt, xs, predict_fn, t, s)


def test_faults_are_detected(x64):
    process, t = BackTooOften(masked().path), 0.4

    def both(x):
        parts = process.generator(MODEL.predict(x, t), x, t), process.backward_generator(None, x, t)
        return superpose(parts, [1, 1])

    assert np.abs(matrix(both, grid(4, 2)) @ MODEL.marginal(np.full(2, t**POWER))).max() > 1e-2
    bad = BackwardsFlipped(MaskedPath(Linear(), sites=2, num_states=3))
    sampler = grid_sampler(bad, [0.0, 0.5, 1.0], corrector_fn=lambda t: 0.9 * jnp.ones_like(t))

    def log_weight(key):
        rollout = sampler.sample(key, garbage(bad))
        return rollout.log_weight + mixture.psi(bad, rollout.x)

    log_w = jax.jit(jax.vmap(log_weight))(jax.random.split(jax.random.key(0), NUM))
    assert weight_score(log_w, MODEL.log_z)[0] > 5
