"""The forward equation `d/dt E f(X_t) = E (L_t f)(X_t)` with the exact prediction, for every path.

The left side differentiates the exact marginal (enumeration, or quadrature of a mixture) by a five-point
rule; the right side uses the process and its generator. Float64, tolerance 1e-7 of differences and quadrature.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax._pytree import frozen_pytree
from egmjax.generators import Jump, action
from egmjax.paths import CondOT, GaussianPath, MaskedPath
from egmjax.processes import FlowProcess, MaskedProcess, ProductProcess
from tests.core.exact import Mixture, Table, slope
from tests.core.registry import (
    GAUSSIAN_FORMS,
    GAUSSIAN_SCHEDULES,
    MASKED_FORMS,
    MASKED_SCHEDULES,
    gaussian_path,
    masked_path,
)

MIXTURE = Mixture([[-1.0], [1.4]], [0.4, 0.7], [0.35, 0.65])
NODES = np.linspace(-16.0, 16.0, 4001)
STEP = NODES[1] - NODES[0]
TIMES = (0.15, 0.4, 0.8)

TEST_FUNCTIONS = {
    "quadratic": lambda x: jnp.sum(x**2, axis=-1),
    "wave": lambda x: jnp.sin(1.3 * x[..., 0] - 0.4),
    "bump": lambda x: jnp.exp(-0.5 * (x[..., 0] - 0.5) ** 2),
}


def masked_residuals(process, model, forms, t):
    """`d/dt E f - E L f` for three random functions of the state."""
    values = np.random.default_rng(0).normal(size=(3, len(model.xt)))
    left = slope(lambda s: values @ model.marginal(forms(s)[0]), t)

    def right(x):
        generator = process.generator(model.predict(x, t), x, t)
        base = model.num_states + 1

        def row(f):
            return action(generator, lambda y: jnp.asarray(f)[y[0] * base + y[1]], x)

        return jnp.stack([row(f) for f in values])

    means = np.asarray(jax.jit(jax.vmap(right))(jnp.asarray(model.xt)))
    return np.abs(left - model.marginal(forms(t)[0]) @ means).max()


def flow_residual(process, forms, t, fn):
    def law(s):
        alpha, _, sigma, _ = forms(s)
        return MIXTURE.noised(alpha, sigma).pdf(NODES[:, None])

    values = np.asarray(fn(jnp.asarray(NODES[:, None])))
    predict = MIXTURE.residual(process.path)

    def right(x):
        return action(process.generator(predict(x, t), x, t), fn, x)

    acted = np.asarray(jax.jit(jax.vmap(right))(jnp.asarray(NODES[:, None])))
    return abs(slope(lambda s: (law(s) * values).sum(), t) - (law(t) * acted).sum()) * STEP


@pytest.mark.parametrize("name", MASKED_SCHEDULES)
def test_masked(name, x64):
    process, model = MaskedProcess(masked_path(name)), Table(3, 2, seed=1)
    for t in TIMES:
        assert masked_residuals(process, model, MASKED_FORMS[name], t) < 1e-7


@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_flow(name, x64):
    process = FlowProcess(gaussian_path(name, (1,)))
    for t in TIMES:
        for fn in TEST_FUNCTIONS.values():
            assert flow_residual(process, GAUSSIAN_FORMS[name], t, fn) < 1e-7


def test_product(x64):
    """One real coordinate and one site, coupled: `y ~ weights`, `x | y ~ N(mean_y, scale_y^2)`."""
    path = GaussianPath(CondOT(1.5), mean=0.1, scale=1.1, shape=(1,))
    process = ProductProcess((FlowProcess(path), MaskedProcess(MaskedPath(sites=1, num_states=2))))
    parts = [Mixture(MIXTURE.means[i : i + 1], MIXTURE.scales[i : i + 1], [1.0]) for i in range(2)]

    def law(s):
        """`[3, nodes]`: symbol 0, symbol 1, mask."""
        weighted = [
            w * p.noised(s, 1.5 * (1 - s)).pdf(NODES[:, None]) for w, p in zip(MIXTURE.weights, parts)
        ]
        return np.stack([s * weighted[0], s * weighted[1], (1 - s) * (weighted[0] + weighted[1])])

    def fn(state):
        x, y = state
        return jnp.sin(x[0] + 0.5 * y[0]) + y[0] * x[0] ** 2 / 4

    def right(x, y, t):
        state = (x[None], y[None])
        components = [parts[0].residual(path), parts[1].residual(path), MIXTURE.residual(path)]
        residuals = jnp.stack([p(x[None], t)[0] for p in components])
        variance = (t * jnp.asarray(MIXTURE.scales)) ** 2 + (1.5 * (1 - t)) ** 2
        away = x - t * jnp.asarray(MIXTURE.means[:, 0])
        logits = jnp.log(jnp.asarray(MIXTURE.weights)) - 0.5 * (away**2 / variance + jnp.log(variance))
        generator = process.generator((residuals[y][None], logits[None]), state, t)
        return action(generator, fn, state)

    symbols, nodes = jnp.arange(3), jnp.asarray(NODES)
    over = jax.jit(jax.vmap(jax.vmap(right, in_axes=(0, None, None)), in_axes=(None, 0, None)))
    values = np.asarray(jax.vmap(lambda y: jax.vmap(lambda x: fn((x[None], y[None])))(nodes))(symbols))
    for t in TIMES:
        left = slope(lambda s: (law(s) * values).sum() * STEP, t)
        acted = np.asarray(over(nodes, symbols, jnp.asarray(t)))
        assert abs(left - (law(t) * acted).sum() * STEP) < 1e-7


@frozen_pytree
class HazardDropped(MaskedProcess):
    def generator(self, prediction, xt, t):
        here = (xt == self.path.mask).astype(float)
        return Jump(here[:, None] * jax.nn.softmax(prediction, axis=-1))


@frozen_pytree
class DriftDropped(FlowProcess):
    """Forgets how the scale of the noise changes."""

    def generator(self, prediction, xt, t):
        flow = super().generator(prediction, xt, t)
        return flow._replace(velocity=flow.velocity - self.path.velocity(jnp.zeros_like(xt), xt, t))


def test_faults_are_detected(x64):
    wrong = HazardDropped(masked_path("linear"))
    assert masked_residuals(wrong, Table(3, 2, seed=1), MASKED_FORMS["linear"], 0.4) > 1e-2
    flow = DriftDropped(gaussian_path("condot", (1,)))
    assert flow_residual(flow, GAUSSIAN_FORMS["condot"], 0.4, TEST_FUNCTIONS["quadratic"]) > 1e-2
