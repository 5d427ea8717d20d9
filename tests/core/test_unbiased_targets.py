"""`E[target(x_t, x_r, t, r) | x_t]` is the same for every `r`: the posterior of the endpoint.

Masked paths by enumeration (1e-12), Gaussian paths by quadrature over a mixture of two Gaussians (1e-8: the
trapezoid rule on a smooth integrand is exact to rounding; the tails are cut at 1e-12).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax._pytree import frozen_pytree
from egmjax.paths import MaskedPath
from egmjax.processes import FlowProcess, MaskedProcess
from tests.core.exact import Mixture, Table
from tests.core.registry import GAUSSIAN_FORMS, GAUSSIAN_SCHEDULES, MASKED_SCHEDULES, gaussian_path
from tests.core.test_paths_exact import table

pytestmark = pytest.mark.slow  # compiles a lot

TIMES = [(0.0, 0.3), (0.0, 0.8), (0.0, 1.0), (0.35, 0.4), (0.35, 0.8), (0.35, 1.0), (0.6, 0.9)]
MIXTURE = Mixture([[-1.0], [1.4]], [0.4, 0.7], [0.35, 0.65])


def masked_error(process, model, t, r):
    """Largest error of the posterior mean over reachable states, at sites whose clock moves in `(t, r)`."""
    path = process.path
    kappa_t, kappa_r = np.asarray(path.kappa(t)), np.asarray(path.kappa(r))
    xt = jnp.asarray(model.xt)
    joint = table(lambda a, b: path.log_prob(a, b, t, r), xt, xt) * model.marginal(kappa_r)
    targets = jax.vmap(lambda a: jax.vmap(lambda b: process.target(a, b, t, r))(xt))(xt)
    reachable = joint.sum(1) > 0
    posterior = joint[reachable] / joint[reachable].sum(1, keepdims=True)
    mean = np.einsum("xk,xkis->xis", posterior, np.asarray(targets)[reachable])
    error = np.abs(mean - model.denoiser[reachable]).max(-1)
    still = (kappa_r == kappa_t) & (model.xt[reachable] == model.num_states)
    return float(error[~still].max())


def flow_error(process, mixture, t, r, forms):
    alpha, _, sigma, _ = forms(t)
    alpha_r, _, sigma_r, _ = forms(r) if r < 1 else (1.0, 0.0, 0.0, 0.0)
    xr = np.linspace(-25.0, 25.0, 8001)[:, None]
    density = mixture.noised(alpha_r, sigma_r).pdf(xr)
    path, worst = process.path, 0.0

    @jax.jit
    def tables(x):
        nodes = jnp.asarray(xr)
        log_prob = jax.vmap(lambda b: path.log_prob(x, b, t, r))(nodes)
        return log_prob, jax.vmap(lambda b: process.target(x, b, t, r))(nodes)

    for value in (-1.5, 0.2, 2.0):
        x = jnp.array([value])
        log_prob, targets = tables(x)
        posterior = np.exp(np.asarray(log_prob)) * density
        mean = (posterior[:, None] * np.asarray(targets)).sum(0) / posterior.sum()
        belief = path.endpoint_belief(x, t)
        exact = (mixture.endpoint(x, alpha, sigma) - belief.mean) / belief.scale
        worst = max(worst, float(np.abs(mean - np.asarray(exact)).max()))
    return worst


@pytest.mark.parametrize(
    ("name", "sites"), [*((name, 2) for name in MASKED_SCHEDULES), ("linear", 3), ("polynomial", 3)]
)
def test_masked_target_is_unbiased_for_every_r(name, sites, x64):
    process = MaskedProcess(MaskedPath(MASKED_SCHEDULES[name](), sites=sites, num_states=3))
    model = Table(3, sites, seed=4, spread=1.5)
    for t, r in TIMES:
        assert masked_error(process, model, t, r) < 1e-12, (t, r)


@pytest.mark.parametrize("name", GAUSSIAN_SCHEDULES)
def test_flow_target_is_unbiased_for_every_r(name, x64):
    process = FlowProcess(gaussian_path(name, (1,)))
    for t, r in TIMES:
        if r - t > 0.1:
            assert flow_error(process, MIXTURE, t, r, GAUSSIAN_FORMS[name]) < 1e-8, (t, r)


def test_masked_target_shows_no_mask_and_fixes_revealed_sites(x64):
    process = MaskedProcess(MaskedPath(sites=2, num_states=3))
    target = process.target(jnp.array([3, 1]), jnp.array([3, 1]), 0.2, 0.6)
    assert target.shape == (2, 3)
    np.testing.assert_allclose(target[1], [0, 1, 0], atol=1e-12)
    np.testing.assert_array_equal(target[0], [0, 0, 0])  # nothing was learnt about a site that stays masked


@frozen_pytree
class OneHotTarget(MaskedProcess):
    """The target of `r = 1` used for every `r`."""

    def target(self, xt, xr, t, r=1.0):
        return jax.nn.one_hot(xr, self.path.num_states, dtype=float)


@frozen_pytree
class EndpointIsXr(FlowProcess):
    def target(self, xt, xr, t, r=1.0):
        belief = self.path.endpoint_belief(xt, t)
        return (xr - belief.mean) / belief.scale


def test_faults_are_detected(x64):
    path = MaskedPath(sites=2, num_states=3)
    assert masked_error(OneHotTarget(path), Table(3, 2), 0.2, 0.5) > 0.1
    good = FlowProcess(gaussian_path("condot", (1,)))
    bad = EndpointIsXr(**{f.name: getattr(good, f.name) for f in dataclasses.fields(good)})
    assert flow_error(bad, MIXTURE, 0.2, 0.5, GAUSSIAN_FORMS["condot"]) > 0.1
