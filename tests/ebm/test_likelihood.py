"""The likelihood's gradient against quadrature, where training ends, and how it says that it went wrong."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from egmjax import ebm
from egmjax.proposals import defensive_mixture
from egmjax.states import Real
from egmjax.training import data_source, fit, make_trainer

GRID = np.linspace(-9, 9, 2001)
BASE = ebm.gaussian_flow([0.0], [2.0])
LINE = Real((1,))


def quadratic(params, x):
    """`E = theta_0 x + theta_1 x^2`: tilted Gaussians are Gaussians."""
    return params[0] * x[0] + params[1] * x[0] ** 2


def density_on_grid(log_density):
    p = np.exp(log_density - log_density.max())
    return p / p.sum()


def exact_negatives(params_fn, num):
    """Independent draws of the model by inversion on a fine grid, in place of chains."""

    def init(key, params):
        return ebm.ChainState(jnp.zeros((num, 1)), jnp.zeros(()))

    def advance(key, state, params, data):
        nodes = jnp.asarray(GRID)
        log_p = jax.vmap(lambda x: BASE.log_prob((), x) - params_fn(params["energy"], x))(nodes[:, None])
        below = jnp.cumsum(jax.nn.softmax(log_p))
        x = nodes[jnp.searchsorted(below, jax.random.uniform(key, (num,)) * below[-1])]
        return state._replace(position=x[:, None]), {}

    return ebm.Negatives(init, advance)


def test_gradient_is_that_of_the_likelihood(x64):
    """One step of plain descent from `theta`: a difference of moments, by quadrature; without negatives another."""
    theta, num = jnp.asarray([0.3, 0.2]), 20_000
    data = np.random.default_rng(0).normal(1.0, 0.7, size=(num, 1))
    trainer = ebm.likelihood_trainer(
        quadratic,
        data_source(data, LINE),
        exact_negatives(quadratic, num),
        optax.sgd(1.0),
        batch_size=num,
        updates_per_iteration=1,
    )
    state, metrics = jax.jit(trainer.step)(trainer.init(jax.random.key(0), {"energy": theta}))
    p = density_on_grid(norm.logpdf(GRID, 0, 2) - 0.3 * GRID - 0.2 * GRID**2)
    features = np.stack([GRID, GRID**2])
    of_data, of_model = np.array([data.mean(), (data**2).mean()]), features @ p
    stderr = np.sqrt(
        ((features - of_model[:, None]) ** 2 @ p + np.var(np.hstack([data, data**2]), axis=0)) / num
    )
    found = np.asarray(theta - state.params["energy"])
    assert np.all(np.abs(found - (of_data - of_model)) < 4 * stderr)
    assert np.all(np.abs(found - of_data) > 10 * stderr)
    assert metrics["failed_update"] == -1
    assert metrics["grad_norm"] == pytest.approx(np.linalg.norm(found))


def chains(proposal=False, **options):
    """Negatives of the quadratic model; `proposal` moves them by the base, too."""

    def log_density(params, x):
        return BASE.log_prob((), x) - quadratic(params["energy"], x)

    settings = {"step_size": 0.1, "num_chains": 200, **options}
    if proposal:
        wide = ebm.flow_density(BASE, ())
        settings |= {"proposal_fn": lambda params: wide, "global_move": lambda p: ebm.i_sir(p, 4)}
    return ebm.chain_negatives(log_density, lambda params, key: BASE.sample((), key), **settings)


@pytest.mark.parametrize("kind", ["balanced", "pcd", "cd"])
def test_one_mode_is_learned_by_any_chains(kind):
    """Data `N(1, .7^2)`, model `N(m, v)` with `1 / v = 1 / 4 + 2 theta_1`, `m = -v theta_0`."""
    data = 1.0 + 0.7 * norm.ppf((np.arange(2000) + 0.5) / 2000)[:, None]
    negatives = chains(proposal=kind == "balanced", restart=kind == "cd", num_local=20 if kind == "cd" else 5)
    trainer = ebm.likelihood_trainer(
        quadratic,
        data_source(data, LINE),
        negatives,
        optax.adam(optax.cosine_decay_schedule(0.05, 400, 0.01)),
        batch_size=200,
        updates_per_iteration=100,
        ema_decay=0.98,
    )
    result = fit(trainer, trainer.init(jax.random.key(1), {"energy": jnp.zeros(2)}), 4)
    theta = np.asarray(result.state.ema_params["energy"], np.float64)
    variance = 1 / (0.25 + 2 * theta[1])
    # the last hundred updates of 200 chains, each worth a few independent draws: errors of about .02
    assert -variance * theta[0] == pytest.approx(1.0, abs=0.06)
    assert math.sqrt(variance) == pytest.approx(0.7, abs=0.06)
    last = result.history[-1]
    assert last["acceptance_local"] == pytest.approx(0.7, abs=0.15)
    if kind == "balanced":
        log_z = norm.logpdf(GRID, 0, 2) - theta[0] * GRID - theta[1] * GRID**2
        log_z = np.log(np.exp(log_z).sum() * (GRID[1] - GRID[0]))
        assert last["log_z"] == pytest.approx(log_z, abs=0.1)
        assert (
            last["log_z_upper"] > log_z - 0.05
        )  # a bound alone: the base's tails are wider than the model's


def test_a_penalty_biases_and_is_a_term_of_its_own():
    data = np.linspace(0.5, 1.5, 500)[:, None]
    trainer = ebm.likelihood_trainer(
        quadratic,
        data_source(data, LINE),
        chains(),
        optax.sgd(0.0),
        energy_penalty=0.5,
        updates_per_iteration=1,
    )
    params = {"energy": jnp.asarray([1.0, 0.0])}
    state, metrics = jax.jit(trainer.step)(trainer.init(jax.random.key(0), params))
    squares = np.mean(data**2) + np.mean(np.asarray(state.buffer.position) ** 2)
    assert float(metrics["loss_penalty"]) == pytest.approx(0.5 * squares, rel=0.01)
    assert float(metrics["loss"]) == pytest.approx(float(metrics["loss_energy"]) + 0.5 * squares, rel=0.01)


@pytest.mark.slow
def test_two_modes_balanced_and_not():
    """Modes at -3 and 3 with masses .8 and .2, energy of one offset on top of exact modes. With a flow the offset gets
    to the truth from equal masses; chains that only move locally drift the masses away (negative control).
    """
    pytest.importorskip("distrax")
    rng = np.random.default_rng(0)
    data = np.where(rng.random(20_000) < 0.8, -3.0, 3.0) + 0.4 * rng.normal(size=20_000)
    mean, scale = ebm.moments(data[:, None])
    flow = ebm.real_nvp(mean, scale, num_layers=1, width=4, depth=1)

    def log_modes(x):
        return -0.5 * jnp.square((jnp.abs(x[0]) - 3.0) / 0.4)

    def energy(params, x):
        return params * jnp.tanh(3 * x[0])

    def log_density(params, x):
        return log_modes(x) - energy(params["energy"], x)

    def proposal(params):
        wide = ebm.flow_density(ebm.gaussian_flow(mean, 1.5 * scale), ())
        return defensive_mixture((ebm.flow_density(flow, params["sampler"]), wide), (0.9, 0.1))

    def light_mass(balanced):
        settings = {"proposal_fn": proposal, "global_move": ebm.independence_metropolis} if balanced else {}
        negatives = ebm.chain_negatives(
            log_density,
            lambda params, key: 3.0 * jnp.sign(jax.random.normal(key, (1,))),
            step_size=0.05,
            num_chains=200,
            num_local=1,
            **settings,
        )
        trainer = ebm.likelihood_trainer(
            energy,
            data_source(data[:, None], LINE),
            negatives,
            optax.adam(0.02),
            sampler_loss_fn=ebm.flow_loss(flow) if balanced else None,
            batch_size=200,
            updates_per_iteration=100,
            ema_decay=0.99,
        )
        params = {"energy": jnp.zeros(())} | ({"sampler": flow.init(jax.random.key(0))} if balanced else {})
        state = fit(trainer, trainer.init(jax.random.key(1), params), 4).state
        offset = float(state.ema_params["energy"])
        p = density_on_grid(-0.5 * ((np.abs(GRID) - 3) / 0.4) ** 2 - offset * np.tanh(3 * GRID))
        return p[GRID > 0].sum(), np.mean(np.asarray(state.buffer.position) > 0)

    mass, chain = light_mass(balanced=True)
    # chains fluctuate by .03 an update, averaged over a hundred, a few of which are independent
    assert mass == pytest.approx(0.2, abs=0.03)
    assert chain == pytest.approx(0.2, abs=0.1)
    mass, chain = light_mass(balanced=False)
    assert mass < 0.02
    assert chain == pytest.approx(0.5, abs=0.15)


def test_a_flow_alone_is_fitted_by_the_usual_trainer():
    pytest.importorskip("distrax")
    data = np.random.default_rng(0).normal(size=(1000, 1)) ** 2
    mean, scale = ebm.moments(data)
    flow = ebm.spline_flow(mean, scale, num_layers=1, width=4, depth=1, num_bins=6)
    trainer = make_trainer(
        data_source(data, LINE),
        ebm.flow_objective(flow),
        optax.adam(0.03),
        batch_size=200,
        updates_per_iteration=100,
    )
    params = flow.init(jax.random.key(0))
    state = fit(trainer, trainer.init(jax.random.key(1), params), 2).state

    def score(params):
        return np.mean(jax.vmap(lambda x: flow.log_prob(params, x))(jnp.asarray(data)))

    assert score(state.ema_params) > score(params) + 0.3


def broken_run(on_metrics):
    """The energy is nan once its parameter has left zero, which is at the second update."""

    def energy(params, x):
        return jnp.where(jnp.abs(params) > 1e-6, jnp.nan, 1.0) * params * x[0]

    negatives = ebm.chain_negatives(
        lambda params, x: BASE.log_prob((), x), lambda params, key: BASE.sample((), key), step_size=0.1
    )
    trainer = ebm.likelihood_trainer(
        energy, data_source(np.ones((10, 1)) + np.eye(10)[:, :1], LINE), negatives, optax.sgd(0.1)
    )
    state = trainer.init(jax.random.key(0), {"energy": jnp.zeros(())})
    return fit(trainer, state, 1, on_metrics=on_metrics)


def test_divergence_keeps_the_last_good_parameters_and_is_named():
    class Kept:
        @staticmethod
        def latest():
            return 40

    state = broken_run(None).state
    assert np.isfinite(state.params["energy"])
    assert state.params["energy"] != 0
    with pytest.raises(FloatingPointError, match=r"^energy: .* update 1; there is no checkpoint"):
        broken_run(ebm.stop_on_divergence())
    with pytest.raises(FloatingPointError, match=r"^gradient: .* update 3; the last good checkpoint is 40"):
        ebm.stop_on_divergence(Kept)({"failed_update": 3.0, "loss_energy": 0.0})  # type: ignore[arg-type]
    with pytest.raises(FloatingPointError, match=r"^loss: .* iteration 2"):
        ebm.stop_on_divergence()({"iteration": 2, "loss": math.nan})


def test_halted_chains_are_warned_of_once():
    watch = ebm.stop_on_divergence()
    with pytest.warns(RuntimeWarning, match="acceptance_global: 0.001 at iteration 3"):
        watch({"iteration": 3, "acceptance_global": 0.001, "ess": 100.0})
    with pytest.warns(RuntimeWarning, match="ess: 1.5 at iteration 4"):
        watch({"iteration": 4, "acceptance_global": 0.001, "ess": 1.5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch({"iteration": 5, "acceptance_global": 0.001, "ess": 1.5})


def test_bad_input():
    source = data_source(np.zeros((2, 1)), LINE)
    for call, name in (
        (lambda: chains(num_chains=0), "num_chains"),
        (lambda: chains(step_size=0.0), "step_size"),
        (lambda: chains(target_acceptance=1.0), "target_acceptance"),
        (lambda: chains(local="hmc"), "local"),
        (lambda: chains(num_local=0), "num_local"),
        (lambda: chains(global_move=ebm.independence_metropolis), "proposal_fn"),
        (
            lambda: ebm.likelihood_trainer(quadratic, source, chains(), optax.sgd(1.0), batch_size=0),
            "batch_size",
        ),
        (
            lambda: ebm.likelihood_trainer(quadratic, source, chains(), optax.sgd(1.0), data_share=2),
            "data_share",
        ),
        (
            lambda: chains(restart=True).advance(
                jax.random.key(0), ebm.ChainState(jnp.zeros((200, 1)), jnp.zeros(())), {}, jnp.zeros((3, 1))
            ),
            "num_chains",
        ),
        (
            lambda: ebm.likelihood_trainer(quadratic, source, chains(), optax.sgd(1.0), energy_penalty=-1),
            "energy_penalty",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{name}: "):
            call()
