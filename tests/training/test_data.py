"""Training from data: rows, times and couplings, and the same trainer and loop as for energies."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from scipy.optimize import linear_sum_assignment

from egmjax.paths import CondOT, GaussianPath, MaskedPath, MixturePath, ProductPath
from egmjax.processes import (
    DiffusionProcess,
    FlowProcess,
    MaskedProcess,
    MixtureProcess,
    ProductProcess,
    SuperpositionProcess,
)
from egmjax.states import Categorical, Real
from egmjax.training import (
    Checkpoints,
    Context,
    data_source,
    fit,
    independent_coupling,
    log_times,
    logit_normal_times,
    make_trainer,
    stratified_times,
    transport_coupling,
    weighted_objective,
)
from tests.training.cases import KINDS, assert_identical, make, parts

pytestmark = pytest.mark.slow  # compiles a lot

RNG = np.random.default_rng(0)
PLANE = GaussianPath(CondOT(), shape=(2,))


def data_of(kind, num=50):
    symbols = RNG.integers(0, 2, (num, 9 if kind == "masked" else 3)).astype(np.int32)
    points = RNG.standard_normal((num, 2)).astype(np.float32)
    return {"masked": symbols, "flow": points, "product": (points, symbols)}[kind]


SOME_SLOW = [pytest.param(k, marks=pytest.mark.slow) if k == "masked" else k for k in KINDS]


@pytest.mark.parametrize("kind", SOME_SLOW)
def test_a_step_from_data(kind, tmp_path):
    """Loss and no ESS; resumed from a checkpoint it ends with the same parameters, EMA included."""
    case = make(kind, objective="weighted", data=data_of(kind))
    state = case.init()
    assert jax.tree.leaves(state.buffer) == [], "data are not part of a checkpoint"
    whole = fit(case.trainer, case.init(), 3, metrics_file=tmp_path / "whole.jsonl")
    assert set(whole.history[0]) == {
        "iteration",
        "loss",
        "grad_norm",
        "num_nonfinite",
        "seconds",
        "energy_evaluations",
    }
    assert all(np.isfinite(row["loss"]) for row in whole.history)
    if kind == "flow":
        store = Checkpoints(tmp_path / "run", {"a": 1})
        fit(case.trainer, case.init(), 2, checkpoints=store, checkpoint_every=1)
        resumed = fit(case.trainer, store.restore(case.init()), 3, checkpoints=store)
        assert_identical(resumed.state, whole.state)


def test_rows_are_drawn_alike_and_spread():
    rows = np.arange(1000, dtype=np.float32)[:, None]
    source = data_source(rows, Real((1,)))
    draw = jax.jit(lambda key: source.draw(key, (), 300, jnp.ones(())))
    for seed in range(3):
        drawn = np.asarray(draw(jax.random.key(seed)))[:, 0]
        assert np.max(np.bincount(drawn.astype(int))) <= 2, "stretches share at most the row at their border"
        assert np.max(np.diff(np.sort(drawn))) < 2 * 1000 / 300 + 1, "spread over the data"
    few = data_source(rows[:7], Real((1,)))
    keys = jax.random.split(jax.random.key(1), 500)
    many = np.asarray(jax.jit(jax.vmap(lambda k: few.draw(k, (), 4, 1.0)))(keys)).ravel()
    assert stats.chisquare(np.bincount(many.astype(int), minlength=7)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("x", "space", "word"),
    [
        (np.zeros((1, 2)), Real((2,)), "x: needs at least two rows"),
        (np.zeros((0, 2)), Real((2,)), "x: needs at least two rows"),
        (np.zeros((5, 3)), Real((2,)), "x: expected one state"),
        (np.zeros((5, 2), int), Real((2,)), "x: expected one state"),
        (
            np.where(np.arange(10).reshape(5, 2) == 7, np.nan, 0.0),
            Real((2,)),
            "x: 1 rows are not finite.*row 3",
        ),
        (np.full((5, 2), 3), Categorical(2, 3), r"x: expected symbols 0\.\.2, got 3\.\.3"),
        (np.full((5, 2), -1), Categorical(2, 3), "x: expected symbols"),
        ((np.zeros((5, 2)), np.zeros((4, 1), int)), (Real((2,)), Categorical(1, 2)), "x: expected states"),
    ],
)
def test_bad_data(x, space, word):
    with pytest.raises(ValueError, match=word):
        data_source(x, space)


@pytest.mark.parametrize(
    ("time_fn", "law"),
    [
        (stratified_times(last_time=0.5), stats.uniform(0, 0.5).cdf),
        (
            logit_normal_times(0.5, 0.8, last_time=1.0),
            lambda t: stats.norm(0.5, 0.8).cdf(np.log(t / (1 - t))),
        ),
        (log_times(last_time=0.99), lambda t: np.log1p(-t) / np.log1p(-0.99)),
    ],
)
def test_times(time_fn, law):
    """One in each stratum of the law, in random order."""
    t = np.asarray(time_fn(jax.random.key(0), 64), np.float64)
    strata = np.floor(law(t) * 64 * (1 - 1e-6))
    assert len(np.unique(strata)) >= 63  # rounding to float32 may carry one over a boundary
    assert np.abs(stats.spearmanr(t, np.arange(64)).statistic) < 0.5
    assert t.min() >= 0
    assert t.max() < 1


@pytest.mark.parametrize(
    ("make_times", "word"),
    [
        (lambda: stratified_times(last_time=0.0), "last_time"),
        (lambda: log_times(last_time=1.0), "last_time"),
        (lambda: logit_normal_times(std=-1.0), "std"),
    ],
)
def test_bad_times(make_times, word):
    with pytest.raises(ValueError, match=word):
        make_times()


def test_transport_is_the_best_assignment():
    path = ProductPath((PLANE, MixturePath(sites=3, num_states=3)))
    x1 = (RNG.standard_normal((20, 2)).astype(np.float32), RNG.integers(0, 3, (20, 3)).astype(np.int32))
    key = jax.random.key(2)
    x0 = jax.jit(transport_coupling(path))(key, x1)
    free = independent_coupling(path)(key, x1)

    def cost(a, b):
        points = ((np.asarray(a[0])[:, None] - b[0][None]) ** 2).sum(-1)
        return points + (np.asarray(a[1])[:, None] != b[1][None]).sum(-1)

    row, column = linear_sum_assignment(cost(free, x1))
    least = cost(free, x1)[row, column].sum()
    np.testing.assert_allclose(np.trace(cost(x0, x1)), least, rtol=1e-5)
    assert np.trace(cost(free, x1)) > 1.3 * least, "the identity would be seen"
    for a, b in zip(x0, free):  # the same prior draws, in another order; compiled or not rounds differently
        np.testing.assert_allclose(np.sort(np.asarray(a), axis=0), np.sort(np.asarray(b), axis=0), rtol=1e-6)


def test_interpolation_of_independent_ends_is_the_path():
    """Two moments of `x_t` on a path with a mean, a scale, and `alpha_0 > 0`; five standard errors."""
    path = GaussianPath(CondOT(scale=2.0), mean=0.7, scale=1.5, shape=(1,))
    x1, num = jnp.asarray([1.3]), 20_000
    keys = jax.random.split(jax.random.key(0), num)
    x0 = jax.vmap(path.sample_prior)(jax.random.split(jax.random.key(1), num))
    xt = np.asarray(jax.vmap(lambda k, x: path.interpolate(k, x, x1, 0.3))(keys, x0))
    mean, variance = 0.3 * 1.3, (0.7 * 2.0) ** 2
    assert abs(xt.mean() - mean) < 5 * np.sqrt(variance / num)
    assert abs(xt.var() - variance) < 5 * variance * np.sqrt(2 / num)
    end = path.interpolate(keys[0], x0[0], x1, 1.0)
    np.testing.assert_allclose(end, x1)


MASKS = MaskedProcess(MaskedPath(sites=2, num_states=2))
UNIFORM = MixtureProcess(MixturePath(sites=2, num_states=2))
FLOW, DIFFUSION = FlowProcess(PLANE), DiffusionProcess(PLANE)


@pytest.mark.parametrize(
    ("process", "follows"),
    [
        (FLOW, True),
        (MASKS, True),
        (ProductProcess((FLOW, MASKS)), True),
        (DIFFUSION, False),
        (UNIFORM, False),
        (SuperpositionProcess((FLOW, DIFFUSION), (0.5, 0.5)), False),
        (ProductProcess((FLOW, UNIFORM)), False),
    ],
    ids=lambda p: type(p).__name__,
)
def test_who_follows_a_coupling(process, follows):
    coupling = transport_coupling(process.path)
    if follows:
        weighted_objective(process, None, coupling=coupling)
        return
    with pytest.raises(ValueError, match=f"coupling: a {type(process).__name__}"):
        weighted_objective(process, None, coupling=coupling)


def test_coupled_flow_carries_the_prior_to_the_data():
    """The best linear field of coupled examples, in closed form, moves N(0, 1) to N(0, 9) exactly.

    In one dimension transport pairs quantiles, `x_1 = 3 x_0`, so `x_t = (1 - t + 3 t) x_0` and the endpoint is a
    function of `x_t`: residuals of the regression vanish, which they do not for independent ends.
    """
    path = GaussianPath(CondOT(), scale=3.0, shape=(1,))
    process = FlowProcess(path)
    num, t = 512, 0.4
    x1 = 3.0 * jax.random.normal(jax.random.key(0), (num, 1))
    left = {}
    context = Context(None, jnp.ones(()), jnp.int32(0))
    for name, coupling in (("transport", transport_coupling(path)), ("independent", None)):
        objective = weighted_objective(process, None, coupling=coupling)
        batch, _ = jax.jit(lambda k, x, o=objective: o.examples(k, context, x, jnp.full((num,), t)))(
            jax.random.key(1), x1
        )
        belief = jax.vmap(path.endpoint_belief)(batch.xt, batch.t)
        endpoint = np.asarray(belief.mean + belief.scale[:, None] * batch.target)[:, 0]
        np.testing.assert_allclose(endpoint, x1[:, 0], rtol=1e-4, atol=1e-4)
        xt = np.asarray(batch.xt)[:, 0]
        slope = xt @ endpoint / (xt @ xt)
        left[name] = np.var(endpoint - slope * xt) / 9
        exact = 3 / (1 - t + 3 * t) if coupling else 0.4 * 9 / (0.4**2 * 9 + 0.6**2)
        assert abs(slope - exact) < 0.15
    assert left["transport"] < 0.05
    assert left["independent"] > 0.15


def test_transport_inside_a_compiled_iteration():
    process, _, network = parts("flow")
    objective = weighted_objective(process, network.apply, coupling=transport_coupling(process.path))
    source = data_source(data_of("flow", 300), process.path.space)
    trainer = make_trainer(source, objective, optax.adam(1e-3), batch_size=256, updates_per_iteration=4)
    params = network.init(jax.random.key(0), jnp.zeros(2), jnp.zeros(()))
    state, metrics = jax.jit(trainer.step)(trainer.init(jax.random.key(1), params))
    assert np.isfinite(metrics["loss"])
    assert int(state.num_updates) == 4
