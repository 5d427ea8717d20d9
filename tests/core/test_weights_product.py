"""Certified weights of a product: a flow in the plane and two sites, coupled by the energy. 4 standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.paths import GaussianPath, MaskedPath, Trigonometric
from egmjax.processes import FlowProcess, MaskedProcess, ProductProcess
from egmjax.simulators import grid_sampler, time_grid
from tests.core.checks import ess_fraction, weight_score
from tests.core.exact import grid, number
from tests.core.registry import garbage

pytestmark = pytest.mark.slow  # compiles a lot

NUM, K = 20_000, 4.0
SCALE = 1.3  # above 1.06, so that 1/w has a variance even where the network predicts the reference
SYMBOLS = grid(2, 2)
LOG_MASS = np.array(
    [0.3, -0.4, 0.9, 0.1]
)  # of each symbol state, after the real coordinate is integrated out
MEANS = np.array([-0.7, 0.2, 0.5, 1.1])
LOG_Z = float(np.log(np.exp(LOG_MASS).sum()))
GAUSSIAN = GaussianPath(Trigonometric(1.5), mean=0.1, scale=1.5, shape=(1,))


def psi(x, order):
    """Of a state whose real component stands at `order.index`; relative to the reference at `t=1`."""
    real, symbols = (x[0], x[1]) if order == "flow first" else (x[1], x[0])
    row = number(symbols, 2)
    away = (real[0] - jnp.asarray(MEANS, dtype=float)[row]) / SCALE
    log_density = -0.5 * away**2 - float(np.log(SCALE * np.sqrt(2 * np.pi)))
    return jnp.asarray(LOG_MASS, dtype=float)[row] + log_density - GAUSSIAN.log_reference(real, 1.0)


def process_of(order="flow first", stepper="heun", flow=FlowProcess):
    parts = (flow(GAUSSIAN, stepper=stepper), MaskedProcess(MaskedPath(sites=2, num_states=2)))
    return ProductProcess(parts if order == "flow first" else parts[::-1])


def exact_network(xt, t):
    """Posterior of the endpoint given a real coordinate and symbols under masks, by enumeration."""
    real, symbols = xt
    alpha, sigma = GAUSSIAN.coefficients(t)
    variance = (alpha * SCALE) ** 2 + sigma**2
    means = jnp.asarray(MEANS, dtype=float)
    states = jnp.asarray(SYMBOLS)
    possible = jnp.all((symbols[None] == 2) | (symbols[None] == states), axis=-1)
    logits = jnp.asarray(LOG_MASS, dtype=float) - 0.5 * (real[0] - alpha * means) ** 2 / variance
    belief = jax.nn.softmax(jnp.where(possible, logits, -1e9))
    each = means + alpha * SCALE**2 / variance * (real[0] - alpha * means)
    reference = GAUSSIAN.endpoint_belief(real, t)
    scale = jnp.where(reference.scale > 0, reference.scale, 1.0)
    residual = jnp.where(sigma > 0, (jnp.sum(belief * each) - reference.mean) / scale, 0.0)
    one_hot = (states[:, :, None] == jnp.arange(2)[None, None]).astype(float)
    return residual, jnp.log(jnp.einsum("k,kis->is", belief, one_hot) + 1e-12)


def forward(process, predict_fn, order, steps, num=NUM):
    sampler = grid_sampler(process, time_grid(steps))

    @jax.jit
    @jax.vmap
    def run(key):
        rollout = sampler.sample(key, predict_fn)
        return rollout.x, psi(rollout.x, order) + rollout.log_weight

    return run(jax.random.split(jax.random.key(0), num))


@pytest.mark.parametrize("order", ["flow first", "masks first"])
@pytest.mark.parametrize("stepper", ["euler", "heun"])
def test_mean_weight_is_z_for_a_spoiled_network(order, stepper):
    process = process_of(order, stepper)
    _, log_w = forward(process, garbage(process, gain=0.3), order, 4)
    score, error = weight_score(log_w, LOG_Z)
    assert score < K
    assert 1e-3 < error < 0.02


def test_exact_network_tends_to_ess_one():
    process = process_of()
    ess = [ess_fraction(forward(process, exact_network, "flow first", n, 4000)[1]) for n in (3, 12, 80)]
    assert ess[0] < ess[1] < ess[2]
    assert ess[2] > 0.97  # the two components see each other one step late: first order in the step


@pytest.mark.parametrize("order", ["flow first", "masks first"])
def test_backward_weights_bound_log_z_from_above(order, x64):
    """EUBO >= log Z >= ELBO, `E_p[1 / w] = 1 / Z`."""
    process = process_of(order)
    predict_fn = garbage(process, gain=0.2)
    sampler, rng = grid_sampler(process, time_grid(4)), np.random.default_rng(3)
    row = rng.choice(4, size=NUM, p=np.exp(LOG_MASS - LOG_Z))
    real = jnp.asarray(MEANS[row, None] + SCALE * rng.normal(size=(NUM, 1)))
    symbols = jnp.asarray(SYMBOLS[row])
    x1 = (real, symbols) if order == "flow first" else (symbols, real)
    run = jax.jit(jax.vmap(lambda k, x: psi(x, order) + sampler.log_weight(k, predict_fn, x)))
    upper = np.asarray(run(jax.random.split(jax.random.key(1), NUM), x1))
    score, error = weight_score(-upper, -LOG_Z)
    assert score < K
    assert error < 0.03
    lower = np.asarray(forward(process, predict_fn, order, 4)[1])
    stderr = max(upper.std(), lower.std()) / np.sqrt(NUM)
    assert upper.mean() - 10 * stderr > LOG_Z > lower.mean() + 10 * stderr


def test_two_flows_are_refused():
    flow = FlowProcess(GAUSSIAN)
    with pytest.raises(ValueError, match="at most one flow"):
        ProductProcess((flow, flow))


def test_fault_is_detected():
    """A product that forgets the determinant of its flow."""

    class NoDeterminant(FlowProcess):
        def _map_with_log_det(self, x, predict_fn, t, s):
            return super()._map_with_log_det(x, predict_fn, t, s)[0], jnp.zeros(())

    process = process_of(flow=NoDeterminant)
    _, log_w = forward(process, garbage(process, gain=0.3), "flow first", 4)
    assert weight_score(log_w, LOG_Z)[0] > 10
