"""Learned noised energies: regression of psi, bootstrapping through it, targets implied by it, one-site conditionals.

Against enumeration over three sites of two symbols, or closed forms of a Gaussian mixture; statistical tolerance
4 to 5 standard errors with fixed keys.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from egmjax.estimators import psi_from_energy, snis
from egmjax.losses import linex
from egmjax.paths import GaussianPath, MaskedPath, MixturePath, Trigonometric
from egmjax.processes import (
    DiffusionProcess,
    FlowProcess,
    MaskedProcess,
    MixtureProcess,
    ProductProcess,
    SuperpositionProcess,
)
from egmjax.proposals import reference_posterior
from egmjax.targets import from_energy
from egmjax.training import (
    Context,
    from_psi_objective,
    psi_objective,
    snis_objective,
    sum_objectives,
    weighted_objective,
)
from tests.core.exact import Mixture, Table, number

pytestmark = pytest.mark.slow  # compiles a lot

MODEL = Table(2, 3, seed=2, spread=1.0)
PROCESS = MaskedProcess(MaskedPath(sites=3, num_states=2))
PSI = psi_from_energy(MODEL.energy, PROCESS.path)
NUM = 4000
T = 0.3


def context(params=None, temper=1.0):
    return Context(params, jnp.asarray(temper), jnp.int32(0))


def table_psi(params, x, t):
    """A learned psi with a free value for each masked state."""
    return params[number(x, 3)]


def examples_of(objective, params=None, num=NUM, t=T, seed=0, temper=1.0):
    x1 = MODEL.sample(seed, num)
    run = jax.jit(
        lambda p: objective.examples(jax.random.key(seed), context(p, temper), x1, jnp.full((num,), t))
    )
    return run(params)


def by_state(examples):
    return np.asarray(number(np.asarray(examples.xt), 3))


@pytest.mark.parametrize("divergence", ["linex", "squared"])
def test_minimiser_of_the_psi_regression(divergence):
    """linex: `log E exp(y) = psi`, for K as small as 2. Squared: `E y`, below it by Jensen."""
    objective = psi_objective(
        PROCESS, table_psi, reference_posterior(PROCESS.path), PSI, num_proposals=2, divergence=divergence
    )
    examples, info = examples_of(objective, num=40_000)
    assert int(info["num_nonfinite"]) == 0
    rows, labels = by_state(examples), np.asarray(examples.target, np.float64)
    params = np.zeros(len(MODEL.xt))
    for row in range(len(params)):
        mine = labels[rows == row]
        params[row] = np.log(np.exp(mine).mean()) if divergence == "linex" else mine.mean()
    gradient = jax.grad(lambda p: jnp.mean(jax.vmap(lambda e: objective.loss(p, e))(examples)))(
        jnp.asarray(params, dtype=float)
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-5)  # these are the minimisers of the loss as written
    all_masked = np.flatnonzero((MODEL.xt == 2).all(1))[0]
    mine = np.exp(labels[rows == all_masked])
    error = mine.std() / np.sqrt(len(mine)) / mine.mean()
    gap = params[all_masked] - MODEL.psi[all_masked]
    assert abs(gap) < 4 * error if divergence == "linex" else gap < -6 * error


def test_linex_is_a_divergence_and_never_overflows():
    y, f = jnp.asarray(1.2), jnp.asarray(0.4)
    np.testing.assert_allclose(linex(y, f), np.exp(0.8) - 0.8 - 1, rtol=1e-6)
    assert linex(y, y) == 0
    assert np.isfinite(linex(jnp.asarray(500.0), f))
    slope = jax.grad(linex, argnums=1)
    np.testing.assert_allclose(slope(y, f), 1 - np.exp(0.8), rtol=1e-5)
    assert np.isfinite(slope(jnp.asarray(500.0), f))


@pytest.mark.parametrize("step", [0.2, 0.9])
def test_bootstrap_with_the_exact_psi_is_unbiased(step):
    """Labels and targets at `r = t + step` through the exact psi: the same posterior and psi as from the energy."""
    exact = jnp.asarray(MODEL.psi, dtype=float)
    proposal, settings = reference_posterior(PROCESS.path), {"num_proposals": 64}
    objective = sum_objectives(
        {
            "psi": psi_objective(PROCESS, table_psi, proposal, PSI, step_fn=lambda t, n: step, **settings),
            "generator": snis_objective(
                PROCESS, None, proposal, PSI, psi_apply_fn=table_psi, step_fn=lambda t, n: step, **settings
            ),
        }
    )
    batches, info = examples_of(objective, exact)
    assert set(info) == {
        "num_nonfinite",
        "psi_snis_ess",
        "psi_snis_largest_weight",
        "generator_snis_ess",
        "generator_snis_largest_weight",
    }
    # a batch of each is one example of the sum
    psi, generator = (jax.tree.map(lambda a: a[0], batches[name][0]) for name in ("psi", "generator"))
    labels, rows = np.exp(np.asarray(psi.target, np.float64)), by_state(psi)
    targets, rows_g = np.asarray(generator.target, np.float64), by_state(generator)
    for row in np.unique(rows):
        mine = labels[rows == row] / np.exp(MODEL.psi[row])
        error = mine.std() / np.sqrt(max(len(mine), 2))
        assert abs(mine.mean() - 1) < 5 * error + 1e-5
    row = np.flatnonzero((MODEL.xt == 2).all(1))[0]
    mine = targets[rows_g == row]
    error = mine.std(0) / np.sqrt(len(mine))
    assert np.all(np.abs(mine.mean(0) - MODEL.denoiser[row]) < 5 * error + 0.01)  # SNIS bias of order 1 / ESS


def test_energies_see_no_mask_when_bootstrapping():
    def energy(x):
        return jnp.where(jnp.any(x > 1), jnp.nan, MODEL.energy(x))

    objective = psi_objective(
        PROCESS,
        table_psi,
        reference_posterior(PROCESS.path),
        psi_from_energy(energy, PROCESS.path),
        num_proposals=8,
        step_fn=lambda t, n: 0.1,
    )
    examples, info = examples_of(objective, jnp.zeros(27), num=100)
    assert int(info["num_nonfinite"]) == 0
    assert np.all(np.isfinite(examples.target))


def test_unnormalised_weights_are_exact_for_one_proposal():
    """K = 1: the self-normalised target is the flat one; weights `w / exp(psi)` make its weighted mean exact."""
    exact = jnp.asarray(MODEL.psi, dtype=float)
    row = np.flatnonzero((MODEL.xt == 2).all(1))[0]
    means = {}
    for self_normalized in (True, False):
        objective = snis_objective(
            PROCESS,
            None,
            reference_posterior(PROCESS.path),
            PSI,
            num_proposals=1,
            psi_apply_fn=table_psi,
            self_normalized=self_normalized,
        )
        examples, _ = examples_of(objective, exact, num=40_000)
        chosen = by_state(examples) == row
        weight, target = np.asarray(examples.weight)[chosen], np.asarray(examples.target)[chosen]
        means[self_normalized] = (weight[:, None, None] * target).sum(0) / weight.sum()
        if not self_normalized:
            np.testing.assert_allclose(weight.mean(), 1, atol=0.05)
    np.testing.assert_allclose(means[True], 0.5, atol=0.02)
    np.testing.assert_allclose(means[False], MODEL.denoiser[row], atol=0.02)
    assert np.abs(means[True] - MODEL.denoiser[row]).max() > 0.05


def test_masked_target_from_psi_is_the_denoiser(x64):
    def target(x):
        return PROCESS.target_from_psi(x, T, MODEL.psi_fn)

    np.testing.assert_allclose(jax.vmap(target)(jnp.asarray(MODEL.xt)), MODEL.denoiser, atol=1e-12)


@pytest.mark.parametrize(("num_states", "sites"), [(2, 19), (3, 6), (20, 3)])
def test_masked_target_from_psi_has_every_site(num_states, sites):
    """However many are evaluated at a time, and however many are left over."""
    path = MaskedPath(sites=sites, num_states=num_states)
    table = jax.random.normal(jax.random.key(0), (sites, num_states + 1))
    shown = jax.random.randint(jax.random.key(1), (2, sites), 0, num_states)
    xt = jnp.where(jax.random.bernoulli(jax.random.key(2), 0.3, shown.shape), shown, path.mask)

    def target(x):
        return MaskedProcess(path).target_from_psi(x, 0.5, lambda y: jnp.sum(table[jnp.arange(sites), y]))

    want = np.where(
        (xt == path.mask)[..., None], jax.nn.softmax(table[:, :-1]), np.eye(num_states + 1)[xt, :-1]
    )
    np.testing.assert_allclose(jax.vmap(target)(xt), want, rtol=1e-5)


@pytest.mark.parametrize("kind", [FlowProcess, DiffusionProcess])
def test_gaussian_target_from_psi_is_the_residual(kind, x64):
    path = GaussianPath(Trigonometric(1.5), mean=0.1, scale=1.4, shape=(2,))
    mixture = Mixture([[-1.2, 0.3], [1.0, -0.5]], [0.7, 0.6], [0.4, 0.6], 1.3)
    process, x = kind(path), jnp.array([0.4, -0.9])
    for t in (0.1, 0.5, 0.9):
        alpha, sigma = path.coefficients(t)
        noised = mixture.noised(float(alpha), float(sigma))
        got = process.target_from_psi(x, t, lambda y: -noised.energy(y) - path.log_reference(y, t))  # noqa: B023
        np.testing.assert_allclose(got, mixture.residual(path)(x, t), atol=1e-9)
        score = path.score(got, x, t)
        np.testing.assert_allclose(score, jax.grad(lambda y: -noised.energy(y))(x), atol=1e-9)  # noqa: B023


def test_products_and_superpositions_pass_targets_on():
    path = GaussianPath(Trigonometric(1.5), shape=(2,))
    both = SuperpositionProcess((FlowProcess(path), DiffusionProcess(path)), (0.5, 0.5))
    process = ProductProcess((both, PROCESS))
    xt, x1 = (jnp.ones(2), jnp.array([2, 0, 2])), (jnp.zeros(2), jnp.array([1, 0, 1]))
    logits = jnp.log(jnp.array([[0.2, 0.8], [0.5, 0.5], [0.7, 0.3]]))
    real, symbols = process.conditional_target(xt, x1, 0.4, logits)
    np.testing.assert_allclose(real, FlowProcess(path).target(xt[0], x1[0], 0.4))
    np.testing.assert_allclose(symbols, [[0.2, 0.8], [1, 0], [0.7, 0.3]], rtol=1e-6)
    implied = process.target_from_psi(xt, 0.4, lambda x: jnp.sum(x[0] ** 2) + jnp.sum(x[1] == 1))
    assert jax.tree.map(jnp.shape, implied) == process.prediction_shape()
    e = np.exp(1)
    np.testing.assert_allclose(
        implied[1], [[1 / (1 + e), e / (1 + e)], [1, 0], [1 / (1 + e), e / (1 + e)]], rtol=1e-5
    )
    with pytest.raises(NotImplementedError, match="MixtureProcess"):
        MixtureProcess(MixturePath(sites=2)).target_from_psi(jnp.array([0, 1]), 0.4, lambda x: 0.0)


PATHS = {"masked": PROCESS, "mixture": MixtureProcess(MixturePath(sites=3, num_states=2))}


@pytest.mark.parametrize("name", PATHS)
def test_one_site_conditionals_keep_the_mean_and_lower_the_variance(name):
    """Of the SNIS target, and of the conditional target over data, at random states."""
    process, target = PATHS[name], from_energy(MODEL.energy, PROCESS.path.space)
    psi_fn = psi_from_energy(target.energy, process.path)
    xt = process.path.sample(jax.random.key(5), jnp.array([1, 0, 1]), 0.2)

    def estimate(key, smooth):
        sites = (lambda x: -target.site_energies(x)) if smooth else None
        result = snis(
            key,
            xt,
            0.2,
            process=process,
            proposal=reference_posterior(process.path),
            psi_fn=psi_fn,
            num_proposals=400,
            site_logits_fn=sites,
        )
        return result.target

    keys = jax.random.split(jax.random.key(0), 400)
    plain, smooth = (
        np.asarray(jax.jit(jax.vmap(lambda k, s=s: estimate(k, s)))(keys)) for s in (False, True)
    )
    error = np.sqrt((plain.var(0) + smooth.var(0)) / len(keys))
    assert np.all(np.abs(plain.mean(0) - smooth.mean(0)) < 5 * error + 1e-6)
    assert smooth.var(0).sum() < 0.8 * plain.var(0).sum()

    objectives = [
        weighted_objective(process, None),
        weighted_objective(process, None, site_energies_fn=target.site_energies),
    ]
    batch, other = (examples_of(o, seed=3)[0] for o in objectives)
    np.testing.assert_array_equal(batch.xt, other.xt)
    difference = np.asarray(batch.target - other.target, np.float64)
    assert np.all(np.abs(difference.mean(0)) < 5 * difference.std(0) / np.sqrt(NUM) + 1e-6)


def test_conditionals_are_tempered_with_psi():
    objective = weighted_objective(PROCESS, None, site_energies_fn=lambda x: jnp.asarray([[0.0, 3.0]] * 3))
    examples, _ = examples_of(objective, num=50, temper=0.5, t=0.0)
    np.testing.assert_allclose(examples.target[..., 0], 1 / (1 + np.exp(-1.5)), rtol=1e-5)


def test_generator_learns_from_psi():
    """A tabular generator fitted to the exact psi is the exact denoiser."""

    def apply_fn(params, x, t):
        return params["logits"][number(x, 3)]

    objective = from_psi_objective(PROCESS, apply_fn, lambda params, x, t: MODEL.psi_fn(x))
    x1 = MODEL.sample(0, NUM)
    t = jnp.linspace(0, 0.99, NUM)
    batch, _ = objective.examples(jax.random.key(0), context(), x1, t)
    params = {"logits": jnp.zeros((27, 3, 2))}
    optimizer = optax.adam(0.3)

    @jax.jit
    def update(carry, _):
        params, state = carry
        gradient = jax.grad(lambda p: jnp.mean(jax.vmap(lambda e: objective.loss(p, e))(batch)))(params)
        step, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, step), state), None

    (params, _), _ = jax.lax.scan(update, (params, optimizer.init(params)), None, length=150)
    masked = (MODEL.xt == 2)[..., None]
    got = np.asarray(jax.nn.softmax(params["logits"]))
    np.testing.assert_allclose(np.where(masked, got, 0), np.where(masked, MODEL.denoiser, 0), atol=5e-3)


def test_bad_input():
    proposal = reference_posterior(PROCESS.path)
    common = {"num_proposals": 4}
    with pytest.raises(ValueError, match="psi_apply_fn: needed"):
        snis_objective(PROCESS, None, proposal, PSI, step_fn=lambda t, n: 0.1, **common)
    with pytest.raises(ValueError, match="psi_apply_fn: needed"):
        snis_objective(PROCESS, None, proposal, PSI, self_normalized=False, **common)
    with pytest.raises(ValueError, match="site_energies_fn"):
        snis_objective(
            PROCESS,
            None,
            proposal,
            PSI,
            psi_apply_fn=table_psi,
            step_fn=lambda t, n: 0.1,
            site_energies_fn=lambda x: x,
            **common,
        )
    with pytest.raises(ValueError, match="divergence"):
        psi_objective(PROCESS, table_psi, proposal, PSI, divergence="other", **common)
    with pytest.raises(ValueError, match="num_proposals"):
        psi_objective(PROCESS, table_psi, proposal, PSI, num_proposals=0)
    plain = snis_objective(PROCESS, None, proposal, PSI, **common)
    with pytest.raises(ValueError, match="weights: unknown objectives"):
        sum_objectives({"a": plain}, {"b": 1.0})
    with pytest.raises(ValueError, match="site_logits_fn"):
        snis(
            jax.random.key(0),
            jnp.array([2, 2, 2]),
            0.1,
            0.5,
            process=PROCESS,
            proposal=proposal,
            psi_fn=PSI,
            site_logits_fn=lambda x: x,
            **common,
        )
