"""Every path, process, generator, proposal and sampler of the registry keeps the contract of its family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.generators import action, scale
from egmjax.states import check_state
from tests.core.contracts import check_float_types, check_function, check_gradients, check_round_trip
from tests.core.registry import GENERATORS, PATHS, PROCESSES, PROPOSALS, SAMPLERS, endpoint, garbage, run_snis


def draws(path, count, r=0.8):
    """`count` tuples `(key, x_t, x_s, x_r, t, s)` of one chain `t < s < r`."""
    x1, out = endpoint(path.space), []
    for i, key in enumerate(jax.random.split(jax.random.key(3), count)):
        fresh = jax.random.fold_in(key, 1)  # or a new value might be an old one, up to rounding
        t, s = jnp.asarray(0.2 + 0.1 * i), jnp.asarray(0.55)
        if not path.is_markov:
            xt = path.sample(key, x1, t)
            out.append((fresh, xt, path.bridge(key, xt, x1, t, s), x1, t, s))
            continue
        xr = path.sample(key, x1, r)
        xs = path.sample(key, xr, s, r)
        out.append((fresh, path.sample(key, xs, t, s), xs, xr, t, s))
    return out


def reflected(path, xr, xt, t, r):
    """Where the path has a reflection; it is its own inverse."""
    try:
        return path.reflect(path.reflect(path.reflect(xr, xt, t, r), xt, t, r), xt, t, r)
    except ValueError as error:
        if str(error).startswith(("prior: ", "num_states: ", "path: a given", "path: a general")):
            return xr
        raise


def latest(path, process=None):
    """A conditioning time: that of the data where the path, or the process, knows no other."""
    is_any = path.is_markov and (process is None or process.can_bootstrap)
    return jnp.asarray(0.8) if is_any else 1.0


def all_of_path(path, key, xt, xs, xr, t, s):
    r = latest(path)
    return {
        "prior": path.sample_prior(key),
        "prior_log_prob": path.prior_log_prob(path.sample_prior(key)),
        "sample": path.sample(key, xr, t, r),
        "log_prob": path.log_prob(xt, xr, t, r),
        "log_reference": path.log_reference(xt, t),
        "propose": path.propose(key, xt, t, r),
        "propose_end": path.propose(key, xt, t),
        "propose_many": jax.tree.map(lambda a: a[2], path.propose_many(key, xt, t, 1.0, 3)),
        "reflect": reflected(path, xr, xt, t, r),
        "propose_log_prob": path.propose_log_prob(xr, xt, t, r),
        "bridge": path.bridge(key, xt, xr, t, s, r),
        "bridge_log_prob": path.bridge_log_prob(xs, xt, xr, t, s, r),
    }


@pytest.mark.parametrize("name", PATHS)
def test_path(name):
    path = PATHS[name]()
    value = check_function(all_of_path, path, draws(path, 2), "float32")
    assert isinstance(path.is_markov, bool)
    for field in ("prior", "sample", "propose", "propose_end", "propose_many", "reflect", "bridge"):
        check_state(path.space, value[field], name=field)
    for field in ("prior_log_prob", "log_prob", "log_reference", "propose_log_prob", "bridge_log_prob"):
        assert value[field].shape == ()
    r, (_, xt, _, xr, t, _) = latest(path), draws(path, 1)[0]
    once = reflected(path, xr, xt, t, r)  # three times is once, twice is never
    log_probs = [path.propose_log_prob(x, xt, t, r) for x in (xr, once)]
    np.testing.assert_allclose(*log_probs, rtol=1e-4, err_msg="a reflection keeps the law of propose")
    check_round_trip(path)


@pytest.mark.parametrize("name", PATHS)
def test_path_has_finite_gradients(name):
    path = PATHS[name]()
    key, xt, xs, xr, t, s = draws(path, 1)[0]

    def total(path, xt, xs, xr, t, s):
        value = all_of_path(path, key, xt, xs, xr, t, s)
        return sum(v for k, v in value.items() if "log" in k)

    check_gradients(total, path, xt, xs, xr, t, s)


@pytest.mark.parametrize("name", PATHS)
def test_path_float_types(name, precision):
    path = PATHS[name]()
    check_float_types(jax.eval_shape(lambda *a: all_of_path(path, *a), *draws(path, 1)[0]), precision)


def all_of_process(process, key, xt, xs, xr, t, s):
    predict_fn = garbage(process)
    prediction = predict_fn(xt, t)
    target = process.target(xt, xr, t, latest(process.path, process))
    state, increment = process.step(key, xt, predict_fn, t, s)
    x1 = process.sample_endpoint(key, prediction, xt, t)
    return {
        "endpoint": x1,
        "endpoint_log_prob": process.endpoint_log_prob(x1, prediction, xt, t),
        "prediction": prediction,
        "target": target,
        "divergence": process.divergence(target, prediction, xt, t),
        "generator": process.generator(prediction, xt, t),
        "state": state,
        "step": increment,
        "increment": process.increment(key, xt, state, predict_fn, t, s),
        "backward": process.backward(key, state, predict_fn, t, s),
    }


@pytest.mark.parametrize("name", PROCESSES)
def test_process(name):
    process = PROCESSES[name]()
    value = check_function(all_of_process, process, draws(process.path, 2), "float32")
    shapes = jax.tree.map(jnp.shape, value["prediction"])
    assert shapes == process.prediction_shape()
    assert jax.tree.map(jnp.shape, value["target"]) == shapes
    assert value["divergence"].shape == ()
    check_state(process.path.space, value["state"])
    check_state(process.path.space, value["backward"])
    check_state(process.path.space, value["endpoint"])
    assert np.isfinite(value["endpoint_log_prob"])
    assert isinstance(process.is_reversal, bool)
    # the step reports the increment of its own move, cached prediction or not
    np.testing.assert_allclose(value["increment"], value["step"], rtol=1e-4, atol=1e-5)
    key, xt, _, _, t, s = draws(process.path, 1)[0]
    cached = process.step(key, xt, garbage(process), t, s, value["prediction"])[1]
    np.testing.assert_allclose(cached, value["step"], rtol=1e-4, atol=1e-5)
    check_round_trip(process)


@pytest.mark.parametrize("name", PROCESSES)
def test_process_float_types(name, precision):
    process = PROCESSES[name]()
    args = draws(process.path, 1)[0]
    check_float_types(jax.eval_shape(lambda *a: all_of_process(process, *a), *args), precision)


@pytest.mark.parametrize("name", PROCESSES)
def test_divergence_has_finite_gradients(name):
    process = PROCESSES[name]()
    _, xt, _, xr, t, _ = draws(process.path, 1)[0]

    def loss(process, prediction, xt, xr, t):
        return process.divergence(process.target(xt, xr, t, latest(process.path, process)), prediction, xt, t)

    check_gradients(loss, process, garbage(process)(xt, t), xt, xr, t)


@pytest.mark.parametrize("name", GENERATORS)
def test_generator(name):
    generator, x = GENERATORS[name]()

    def fn(state):
        parts = [jnp.sum(jnp.sin(leaf.astype(float))) for leaf in jax.tree.leaves(state)]
        return parts[0] * parts[-1]

    value = check_function(lambda g, x: action(g, fn, x), generator, [(x,), (x,)], "float32")
    assert value.shape == ()
    check_round_trip(generator)
    np.testing.assert_allclose(action(scale(generator, -2.5), fn, x), -2.5 * value, rtol=1e-5)


@pytest.mark.parametrize("name", PROPOSALS)
def test_proposal_and_estimate(name):
    build, process_name = PROPOSALS[name]
    process = PROCESSES[process_name]()

    def both(process, key, xt, t):
        proposal = build(process)
        xr, log_ratio = proposal.propose(key, xt, t, 1.0, 5)
        return xr, log_ratio, run_snis(key, xt, t, 1.0, process, proposal)

    batches = [(key, xt, t) for key, xt, _, _, t, _ in draws(process.path, 2)]
    xr, log_ratio, estimate = check_function(both, process, batches, "float32")
    check_state(process.path.space, jax.tree.map(lambda a: a[4], xr))
    assert log_ratio.shape == (5,)
    assert 1 <= estimate.info.ess <= 7.0001
    assert 1 / 7 <= estimate.info.largest_weight <= 1.00001
    assert estimate.info.num_nonfinite == 0
    assert jax.tree.map(jnp.shape, estimate.target) == process.prediction_shape()
    check_float_types(estimate, "float32")


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler(name):
    process, sampler = SAMPLERS[name]()
    predict_fn = garbage(process)

    def both(_, key):
        rollout = sampler.sample(key, predict_fn)
        return rollout.x, rollout.log_weight, sampler.log_weight(key, predict_fn, rollout.x)

    batches = [(key,) for key in jax.random.split(jax.random.key(0), 2)]
    x, log_weight, backward = check_function(both, None, batches, "float32")
    check_state(process.path.space, x)
    assert log_weight.shape == backward.shape == ()
    assert sampler.num_steps >= 1
    for leaf in jax.tree.leaves(x):
        if leaf.dtype == jnp.int32:
            assert np.all(np.asarray(leaf) < 3), "a mask is left at t=1"


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_float_types(name, precision):
    process, sampler = SAMPLERS[name]()
    key = jax.random.key(0)
    rollout = jax.eval_shape(lambda k: sampler.sample(k, garbage(process)), key)
    check_float_types(rollout, precision)
    x1 = endpoint(process.path.space)
    check_float_types(jax.eval_shape(lambda k: sampler.log_weight(k, garbage(process), x1), key), precision)
