"""Objectives on paths against enumeration: gradients of KL divergences, exact samplers, what they leave out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.estimators import psi_from_energy
from egmjax.networks import ResidualMLP
from egmjax.paths import MaskedPath, Ordered
from egmjax.processes import MaskedProcess
from egmjax.simulators import first_hitting_sampler, ordered_sampler
from egmjax.training import (
    Context,
    likelihood_objective,
    log_variance_objective,
    sum_objectives,
    weighted_objective,
)
from tests.core.exact import Table

MODEL = Table(2, 3, seed=2, spread=1.0)
PROCESS = MaskedProcess(MaskedPath(Ordered.from_rank([1, 2, 0]), sites=3))
SAMPLER = ordered_sampler(PROCESS)
PSI = psi_from_energy(MODEL.energy, PROCESS.path)
NET = ResidualMLP(PROCESS.path.space, (3, 2), width=6, depth=1, use_time=False)
STATES = jnp.asarray(MODEL.x1)


def parameters(scale):
    params = NET.init(jax.random.key(0), STATES[0], jnp.zeros(()))
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(
        structure, [scale * jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate(leaves)]
    )


def log_q(params, x):
    return -SAMPLER.log_weight(jax.random.key(0), lambda y, t: NET.apply(params, y, t), x)


def batch(objective, x1, temper=1.0, iteration=0):
    context = Context(None, jnp.asarray(temper), jnp.int32(iteration))
    return objective.examples(jax.random.key(1), context, x1, jnp.zeros(len(x1)))


def loss(objective, examples):
    return lambda params: jnp.mean(jax.vmap(lambda e: objective.loss(params, e))(examples))


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temper", [1.0, 0.4])
def test_log_variance_on_policy_is_the_reverse_divergence(temper):
    """At a uniform model every state once is a batch on policy: n / (n - 1) times the gradient of KL(q, p^temper)."""
    objective = log_variance_objective(SAMPLER, NET.apply, PSI)
    assert not objective.weighted
    params = parameters(0.0)
    examples, info = batch(objective, STATES, temper)
    assert int(info["num_nonfinite"]) == 0

    def divergence(params):
        log_probs = jax.vmap(lambda x: log_q(params, x))(STATES)
        energies = jax.vmap(MODEL.energy)(STATES)
        return jnp.sum(jnp.exp(log_probs) * (log_probs + temper * energies))

    found = jax.jit(jax.grad(loss(objective, examples)))(params)
    want = jax.tree.map(lambda g: 8 / 7 * g, jax.jit(jax.grad(divergence))(params))
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(want)) > 0.05
    assert_same(found, want)
    # groups of four: the mean of the variances within them
    grouped = log_variance_objective(SAMPLER, NET.apply, PSI, num_groups=2)
    examples, _ = batch(grouped, STATES, temper)
    energies = temper * np.asarray(jax.vmap(MODEL.energy)(STATES), np.float64).reshape(2, 4)
    assert loss(grouped, examples)(params) == pytest.approx(
        0.5 * energies.var(axis=1, ddof=1).mean(), rel=1e-4
    )


@pytest.mark.parametrize("make", [ordered_sampler, first_hitting_sampler])
def test_exact_samplers_have_no_variance(make):
    """In a fixed order, and along random paths; a wrong network has some."""
    ordered = make is ordered_sampler
    path = PROCESS.path if ordered else MaskedPath(sites=3)
    objective = log_variance_objective(
        make(MaskedProcess(path)), lambda p, x, t: p * MODEL.predict(x, t), PSI
    )
    x1 = jnp.tile(STATES, (4, 1))
    examples, _ = batch(objective, x1)
    value = jax.jit(loss(objective, examples))
    assert value(jnp.ones(())) < 1e-8
    assert value(jnp.asarray(0.5)) > 1e-3


def test_energies_that_are_not_finite_leave_their_path_out():
    bad = lambda x, r: jnp.where(x[0] == 1, jnp.nan, PSI(x, r))  # noqa: E731
    params = parameters(0.3)
    objective = log_variance_objective(SAMPLER, NET.apply, bad)
    examples, info = batch(objective, STATES)
    assert int(info["num_nonfinite"]) == 4
    alone = log_variance_objective(SAMPLER, NET.apply, PSI)
    kept, _ = batch(alone, STATES[STATES[:, 0] == 0])
    both = [
        jax.jit(jax.value_and_grad(loss(o, e)))(params) for o, e in ((objective, examples), (alone, kept))
    ]
    assert both[0][0] == pytest.approx(float(both[1][0]), rel=1e-5)
    assert_same(both[0][1], both[1][1])


def test_likelihood_is_the_forward_divergence():
    objective = likelihood_objective(SAMPLER, NET.apply)
    assert objective.weighted
    params = parameters(0.3)
    examples, _ = batch(objective, STATES)
    losses = jax.vmap(lambda e: objective.loss(params, e))(examples)
    np.testing.assert_allclose(losses, -jax.vmap(lambda x: log_q(params, x))(STATES), rtol=1e-5)


def test_a_mixture_has_the_weighted_sum_of_gradients():
    """Of single states and of groups, at weights that change with the iteration; from states drawn by weight."""
    kinds = {
        "regression": weighted_objective(PROCESS, NET.apply),
        "likelihood": likelihood_objective(SAMPLER, NET.apply),
        "variance": log_variance_objective(SAMPLER, NET.apply, PSI, num_groups=2),
    }
    weights = {"likelihood": 0.25, "variance": lambda n: 0.1 * n}  # and one of 1
    mixture = sum_objectives(kinds, weights)
    assert mixture.weighted
    assert not sum_objectives({"variance": kinds["variance"]}).weighted
    assert mixture.num_energies == 1
    params = parameters(0.3)
    gradient = jax.jit(lambda e: jax.grad(loss(mixture, e))(params))
    found = {}
    for iteration in (0, 7):
        examples, info = batch(mixture, STATES, iteration=iteration)
        assert int(info["num_nonfinite"]) == 0
        found[iteration] = gradient(examples)
        parts = {
            name: jax.grad(loss(kinds[name], jax.tree.map(lambda a: a[0], examples[name][0])))(params)
            for name in kinds
        }
        shares = {"regression": 1.0, "likelihood": 0.25, "variance": 0.1 * iteration}
        scaled = [jax.tree.map(lambda a, s=share: s * a, parts[name]) for name, share in shares.items()]
        assert_same(found[iteration], jax.tree.map(lambda *a: sum(a), *scaled))
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), found[0], found[7])
    assert max(jax.tree.leaves(moved)) > 1e-2


def test_bad_input():
    with pytest.raises(ValueError, match="num_groups"):
        log_variance_objective(SAMPLER, NET.apply, PSI, num_groups=0)
    for num_groups in (3, 8):
        with pytest.raises(ValueError, match="num_groups"):
            batch(log_variance_objective(SAMPLER, NET.apply, PSI, num_groups=num_groups), STATES)
