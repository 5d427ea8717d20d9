"""The train step: one for every process, pure, compiled once, and robust against energies that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.sharding import constrain, state_mesh
from egmjax.training import geometric_temper, linear_temper, stratified_times
from tests.training.cases import (
    KINDS,
    as_data,
    assert_finite,
    assert_identical,
    ess_and_log_z,
    make,
    parts,
    roll_out,
    shared,
    target_of,
)

METRICS = {"loss", "grad_norm", "ess_fraction", "log_z", "elbo", "num_nonfinite", "temper"}
SNIS_METRICS = {"snis_ess", "snis_largest_weight"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_every_process(kind):
    """Metrics, counters, no second trace, donation that harms nobody, and the same again from the same seed."""
    calls = []
    energy = target_of(kind).energy

    def counted(x):
        calls.append(1)
        return energy(x)

    case = make(kind, energy_fn=counted)
    params = jax.jit(case.init)(3).params
    state = case.trainer.init(jax.random.key(5), params)
    copy = jax.tree.map(jnp.copy, state)
    calls.clear()
    step = jax.jit(case.trainer.step, donate_argnums=0)
    first, metrics = step(state)
    assert calls
    traced = len(calls)

    wanted = METRICS | (SNIS_METRICS if kind != "masked" else set())
    assert set(metrics) == wanted
    for name, value in metrics.items():
        assert value.shape == (), name
        assert np.isfinite(value), name
    assert int(metrics["num_nonfinite"]) == 0
    assert 0 < float(metrics["ess_fraction"]) <= 1 + 1e-6
    assert float(metrics["elbo"]) <= float(metrics["log_z"]) + 1e-5
    assert float(metrics["grad_norm"]) > 0
    assert int(first.iteration) == 1
    assert int(first.num_updates) == 2
    assert jax.tree.structure(first) == jax.tree.structure(copy)
    assert not np.array_equal(as_data(first.key), as_data(copy.key))

    # the parameters that were handed in still hold their values: the state has storage of its own
    assert_finite(params)
    assert_identical(params, copy.params)
    moved = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first.params, params)))]
    assert any(moved)

    again, metrics_again = step(copy)
    assert_identical(again, first)
    assert_identical(metrics_again, metrics)
    second, _ = step(again)
    assert len(calls) == traced, "a second step traced again"
    assert int(second.iteration) == 2
    assert int(second.num_updates) == 4
    assert_finite((second.params, second.ema_params))
    # both roll-outs are in the buffer, which is full now
    assert np.all(np.isfinite(second.buffer.log_weight))
    x_first, x_second = (as_data(jax.tree.leaves(s.buffer.x)[0]) for s in (first, second))
    np.testing.assert_array_equal(x_first[:32], x_second[:32])
    assert not np.array_equal(x_second[:32], x_second[32:])


def test_another_seed_is_another_run():
    case, step = shared("masked")
    a, b = (step(case.init(seed))[0] for seed in (0, 1))
    assert not np.array_equal(as_data(a.key), as_data(b.key))
    assert not np.array_equal(a.buffer.x, b.buffer.x)


def test_double_precision_keeps_every_type(x64):
    case = make("masked", objective="snis")
    state = case.init()
    new, metrics = jax.jit(case.trainer.step)(state)
    assert jax.tree.map(lambda a: a.dtype, new) == jax.tree.map(lambda a: a.dtype, state)
    assert all(np.isfinite(v) for v in metrics.values())


def test_buffered_weights_are_those_of_the_rollouts():
    """`psi + log_weight` in the buffer give the step's own ESS, log Z and ELBO."""
    case, step = shared("masked")
    state, metrics = step(case.init())
    log_w = np.asarray(state.buffer.psi + state.buffer.log_weight, np.float64)[:32]
    ess, log_z, _ = ess_and_log_z(log_w)
    np.testing.assert_allclose(metrics["ess_fraction"], ess, rtol=1e-4)
    np.testing.assert_allclose(metrics["log_z"], log_z, rtol=1e-4)
    np.testing.assert_allclose(metrics["elbo"], log_w.mean(), rtol=1e-4)
    psi = jax.vmap(lambda x: case.psi_fn(x, 1.0))(state.buffer.x[:32])
    np.testing.assert_allclose(state.buffer.psi[:32], psi, rtol=1e-5, atol=1e-5)


def test_moving_average_with_bias_correction():
    """One update an iteration: `ema += (1 - d) (params - ema)`, `d = min(decay, (1 + n) / (10 + n))`."""
    case = make("masked", updates=1, ema_decay=0.2, learning_rate=0.1)
    step = jax.jit(case.trainer.step)
    state = case.init()
    ema = jax.tree.map(np.asarray, state.ema_params)
    for n in range(5):
        state, _ = step(state)
        decay = min(0.2, (1 + n) / (10 + n))
        ema = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * np.asarray(p), ema, state.params)
        for a, b in zip(jax.tree.leaves(ema), jax.tree.leaves(state.ema_params)):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert 2 / 11 < 0.2 < 3 / 12  # both branches of the minimum were seen


def test_linear_temper():
    ramp = linear_temper(0.2, 10)
    values = [float(ramp(jnp.int32(n))) for n in (0, 5, 10, 11, 10_000)]
    np.testing.assert_allclose(values, [0.2, 0.6, 1.0, 1.0, 1.0], rtol=1e-6)
    assert float(linear_temper(0.2, 0)(jnp.int32(0))) == 1.0
    assert float(linear_temper(1.0, 10)(jnp.int32(3))) == 1.0
    for start in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="start"):
            linear_temper(start, 10)


def test_geometric_temper():
    ramp = geometric_temper(1e-4, 8)
    values = [float(ramp(jnp.int32(n))) for n in (0, 2, 4, 8, 9, 10_000)]
    np.testing.assert_allclose(values, [1e-4, 1e-3, 1e-2, 1.0, 1.0, 1.0], rtol=1e-5)
    assert float(geometric_temper(0.2, 0)(jnp.int32(0))) == 1.0
    for start in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="start"):
            geometric_temper(start, 10)


def test_temper_and_weight_reach_the_loss():
    case, step = shared("masked")
    heavy = make("masked", weight_fn=lambda t: 3.0 * jnp.ones_like(t))
    state = case.init()
    plain, weighted = step(state)[1], jax.jit(heavy.trainer.step)(state)[1]
    assert float(plain["temper"]) == 0.5
    assert float(step(step(state)[0])[1]["temper"]) == 0.625
    np.testing.assert_allclose(plain["log_z"], weighted["log_z"], rtol=1e-5)
    # clipping and Adam move the parameters alike whatever the weight, so only the loss is scaled
    np.testing.assert_allclose(weighted["loss"], 3 * plain["loss"], rtol=2e-2)


def test_times_are_stratified_up_to_the_last():
    """Every stratum of `[0, last_time)` is hit once in a batch."""
    seen = []

    def weight_fn(t):
        jax.debug.callback(lambda t: seen.append(np.asarray(t)), t)
        return jnp.ones_like(t)

    case = make(
        "masked", weight_fn=weight_fn, updates=1, batch_size=16, time_fn=stratified_times(last_time=0.5)
    )
    state = case.init()
    jax.block_until_ready(jax.jit(case.trainer.step)(state))
    jax.effects_barrier()
    times = np.sort(np.concatenate([np.ravel(t) for t in seen]))
    times = np.unique(times)
    assert len(times) == 16
    np.testing.assert_array_equal(np.floor(times / 0.5 * 16), np.arange(16))


@pytest.mark.parametrize("name", ["num_rollouts", "batch_size", "updates"])
@pytest.mark.parametrize("value", [0, -3])
def test_counts_must_be_positive(name, value):
    with pytest.raises(ValueError, match=name):
        make("masked", **{name: value})


@pytest.mark.parametrize(
    ("objective", "bad"),
    [
        ("weighted", np.nan),
        ("snis", np.inf),
        pytest.param("weighted", -np.inf, marks=pytest.mark.slow),
        pytest.param("snis", np.nan, marks=pytest.mark.slow),
    ],
)
def test_energies_that_are_not_finite_are_counted_and_do_no_harm(objective, bad):
    ising = target_of("masked")

    def energy(x):  # one state in eight
        return jnp.where(jnp.sum(x[:3]) == 3, bad, ising.energy(x))

    case = make("masked", energy_fn=energy, objective=objective)
    step = jax.jit(case.trainer.step)
    state = case.init()
    for _ in range(6):
        state, metrics = step(state)
        assert int(metrics["num_nonfinite"]) > 0
        assert np.isfinite(metrics["loss"])
        assert np.isfinite(metrics["log_z"])
        assert 0 < float(metrics["ess_fraction"]) <= 1
        assert not np.isnan(metrics["elbo"])
        assert_finite((state.params, state.ema_params, state.opt_state))
    moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (state.params, case.init().params)))]
    assert any(moved)


@pytest.mark.parametrize("objective", ["weighted", pytest.param("snis", marks=pytest.mark.slow)])
def test_an_energy_that_is_never_finite_leaves_finite_parameters(objective):
    case = make("masked", energy_fn=lambda x: jnp.full((), jnp.nan), objective=objective)
    state, metrics = jax.jit(case.trainer.step)(case.init())
    assert int(metrics["num_nonfinite"]) >= 32
    assert float(metrics["ess_fraction"]) == 0
    assert_finite((state.params, state.ema_params))


def train(case, iterations, seed=0):
    step = jax.jit(case.trainer.step, donate_argnums=0)
    state = case.init(seed)
    for _ in range(iterations):
        state, metrics = step(state)
    return state, metrics


def test_ising_end_to_end():
    """The 3 x 3 torus at beta .2 from its energy alone: ESS and log Z against enumeration."""
    case = make(
        "masked",
        num_rollouts=128,
        batch_size=128,
        updates=4,
        capacity=512,
        learning_rate=1e-2,
        temper_fn=linear_temper(0.3, 20),
    )
    states = np.indices((2,) * 9).reshape(9, -1).T
    energies = np.asarray(
        jax.vmap(target_of("masked").energy)(jnp.asarray(states, dtype=jnp.int32)), np.float64
    )
    exact = np.log(np.exp(-energies).sum())

    untrained = case.init()
    ess_before, log_z, stderr = ess_and_log_z(
        roll_out(case, untrained.ema_params, jax.random.key(7), 4000)[1]
    )
    assert abs(log_z - exact) < 4 * stderr, "weights are right whatever the network says"
    state, _ = train(case, 80)
    x, log_weight = roll_out(case, state.ema_params, jax.random.key(8), 4000)
    ess, log_z, stderr = ess_and_log_z(log_weight)
    assert ess > 0.8
    assert ess_before < 0.5
    assert abs(log_z - exact) < 4 * stderr
    up = np.asarray(x).mean()  # the network is odd: both signs alike, up to the correlation of nine spins
    assert abs(up - 0.5) < 4 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize("kind", ["flow", pytest.param("product", marks=pytest.mark.slow)])
def test_continuous_and_mixed_targets_end_to_end(kind):
    """A mild two-dimensional target: training raises the ESS well above that of the reference, log Z stays right."""
    if kind == "flow":  # two modes on a line, and a narrow direction

        def energy(x):
            return (
                -jnp.logaddexp(-0.5 * (x[0] - 1.5) ** 2 / 0.25, -0.5 * (x[0] + 1.5) ** 2 / 0.25)
                + 2 * x[1] ** 2
            )

        exact = np.log(2 * np.sqrt(2 * np.pi * 0.25) * np.sqrt(np.pi / 2))
    else:  # three spins, each of which pulls the plane its own way

        def energy(x):
            v, h = x
            spins = 2.0 * h.astype(float) - 1.0
            centre = jnp.stack([spins[0] + 0.5 * spins[1], spins[2]])
            return jnp.sum((v - centre) ** 2) / (2 * 0.5) - 0.5 * spins[0] * spins[2]

        exact = np.log(2 * np.pi * 0.5) + np.log(2 * 2 * (np.exp(0.5) + np.exp(-0.5)))
    case = make(
        kind,
        energy_fn=energy,
        num_rollouts=128,
        batch_size=128,
        updates=8,
        capacity=512,
        num_proposals=64,
        learning_rate=1e-2,
        temper_fn=linear_temper(0.3, 10),
        build=lambda kind: parts(kind, width=32, num_steps=12, scale=2.0),
    )
    untrained = case.init()
    before = ess_and_log_z(roll_out(case, untrained.ema_params, jax.random.key(7), 2000)[1])
    state, metrics = train(case, 40)
    _, log_weight = roll_out(case, state.ema_params, jax.random.key(8), 2000)
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    ess, log_z, stderr = ess_and_log_z(log_weight)
    assert int(metrics["num_nonfinite"]) == 0
    assert ess > 0.6, ess
    assert ess > 2 * before[0]
    assert abs(before[1] - exact) < 4 * before[2]
    assert abs(log_z - exact) < 4 * stderr


def test_a_mesh_of_one_device_changes_nothing():
    mesh = state_mesh(jax.devices()[:1])
    assert mesh.axis_names == ("states", "proposals")
    tree = {"x": jnp.arange(6.0), "key": jax.random.split(jax.random.key(0), 4)}
    assert constrain(tree, None) is tree
    assert_identical(jax.jit(lambda t: constrain(t, mesh))(tree), tree)
    (case, step), meshed = shared("masked"), make("masked", mesh=mesh)
    a, b = jax.jit(meshed.trainer.step)(case.init())[0], step(case.init())[0]
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params)):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
