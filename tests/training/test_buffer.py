"""The replay buffer: first in, first out; draws in proportion to the weights, and never what has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.simulators import Rollout
from egmjax.training import replay_buffer


def example():
    return jnp.zeros((2,)), jnp.zeros((3,), dtype=jnp.int32)


def rollouts(labels, log_weight=None):
    """States that carry their label, so that draws can be told apart."""
    labels = np.asarray(labels, dtype=np.int32)
    x = np.stack([labels, -labels], axis=-1).astype(float), np.repeat(labels[:, None], 3, axis=1)
    return Rollout(*jax.tree.map(jnp.asarray, (x, floats(labels, log_weight))))


def floats(labels, values):
    """Zeros unless given; by numpy, which has nothing to compile."""
    return np.zeros(len(labels)) if values is None else np.asarray(values, dtype=float)


def filled(buffer, labels, log_weight=None, psi=None):
    psi = jnp.asarray(floats(labels, psi))
    return jax.jit(buffer.add)(buffer.init(example()), rollouts(labels, log_weight), psi)


def draw(buffer, state, num, temper=1.0, seed=0):
    compiled = jax.jit(buffer.draw, static_argnums=2)  # one program for all the seeds of a test
    x, symbols = jax.tree.map(np.asarray, compiled(jax.random.key(seed), state, num, jnp.asarray(temper)))
    labels = symbols[:, 0]
    np.testing.assert_array_equal(x[:, 0], labels)  # leaves stay together
    np.testing.assert_array_equal(x[:, 1], -labels)
    return labels


def key_with_uniform_near_one(num):
    """A key whose uniform draw, added to `num - 1` in float32, rounds up to `num`."""
    keys = jax.random.split(jax.random.key(0), 2**18)
    u = jax.vmap(jax.random.uniform)(keys)
    key = keys[int(jnp.argmax(u))]
    assert float(jnp.float32(num - 1) + jax.random.uniform(key)) == num
    return key


def test_first_in_first_out_with_wraparound():
    buffer = replay_buffer(5, weighted=True)
    add = jax.jit(buffer.add)
    state, kept = buffer.init(example()), []
    for block in ([1, 2], [3, 4], [5, 6], [7], [8, 9, 10], [11, 12, 13, 14, 15]):
        psi = jnp.asarray(block, dtype=float)
        state = add(state, rollouts(block, 0.5 * psi), psi)
        kept = (kept + block)[-5:]
        present = state.log_weight > -jnp.inf
        np.testing.assert_array_equal(sorted(np.asarray(state.x[1][present, 0])), kept)
        np.testing.assert_array_equal(state.psi[present], state.x[0][present, 0])
        np.testing.assert_array_equal(state.log_weight[present], 0.5 * state.psi[present])
        assert state.psi[(state.position - 1) % 5] == block[-1]
    assert state.x[0].dtype == jnp.float32
    assert state.x[1].dtype == jnp.int32


def test_a_block_as_large_as_the_buffer_replaces_all():
    buffer = replay_buffer(3, weighted=False)
    state = buffer.add(filled(buffer, [1, 2]), rollouts([7, 8, 9]), jnp.zeros(3))
    assert set(draw(buffer, state, 30)) == {7, 8, 9}


@pytest.mark.parametrize("temper", [0.0, 0.4, 1.0])
def test_draws_follow_the_tempered_weights(temper):
    """Chi-square of single draws, which are independent, against `exp(temper psi + log_weight)`."""
    buffer = replay_buffer(8, weighted=True)
    log_weight, psi = np.linspace(-1, 1, 6), np.array([2.0, -1.0, 0.3, 0.0, 1.0, -2.0])
    state = filled(buffer, np.arange(1, 7), log_weight, psi)
    num = 4000
    keys = jax.random.split(jax.random.key(1), num)
    one = jax.jit(jax.vmap(lambda k: buffer.draw(k, state, 1, jnp.asarray(temper))[1][0, 0]))
    counts = np.bincount(np.asarray(one(keys)), minlength=9)
    assert counts[0] == counts[7] == counts[8] == 0
    probs = np.exp(temper * psi + log_weight)
    probs /= probs.sum()
    chi_square = ((counts[1:7] - num * probs) ** 2 / (num * probs)).sum()
    assert chi_square < 5 + 4 * np.sqrt(10)
    other = np.exp((temper + 0.3) * psi + log_weight)  # what a wrong exponent would be told by
    other /= other.sum()
    assert ((counts[1:7] - num * other) ** 2 / (num * other)).sum() > 5 + 4 * np.sqrt(10)


@pytest.mark.parametrize("num", [1, 7, 64, 1000])
@pytest.mark.parametrize("weighted", [True, False])
def test_counts_are_within_one_of_their_means(num, weighted):
    buffer = replay_buffer(32, weighted=weighted)
    rng = np.random.default_rng(num)
    log_weight, psi = rng.normal(size=20), rng.normal(size=20)
    state = filled(buffer, np.arange(1, 21), log_weight, psi)
    probs = np.exp(0.7 * psi + log_weight) if weighted else np.ones(20)
    probs /= probs.sum()
    for seed in range(20):
        counts = np.bincount(draw(buffer, state, num, 0.7, seed), minlength=21)
        assert counts[0] == 0
        assert np.abs(counts[1:] - num * probs).max() < 1 + 1e-4 * num


@pytest.mark.parametrize("weighted", [True, False])
def test_empty_slots_are_never_drawn(weighted):
    buffer = replay_buffer(1000, weighted=weighted)
    state = filled(buffer, [3, 4, 5])
    for seed in range(50):
        assert set(draw(buffer, state, 60, 0.5, seed)) == {3, 4, 5}


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("num", [512, 4096])
def test_rounding_at_the_last_point_does_not_reach_an_empty_slot(num, weighted):
    """`(num - 1 + u) / num` rounds to 1 in float32 about once in 2^25 / num draws."""
    buffer = replay_buffer(8, weighted=weighted)
    state = filled(buffer, [3, 4, 5])
    x = buffer.draw(key_with_uniform_near_one(num), state, num, jnp.asarray(1.0))[1]
    assert set(np.asarray(x[:, 0])) == {3, 4, 5}


def test_rounding_of_the_running_sum_does_not_reach_an_empty_slot():
    """Float32 sums of many unequal weights need not increase; empty slots lie behind them."""
    buffer = replay_buffer(5000, weighted=True)
    rng = np.random.default_rng(0)
    state = filled(buffer, np.arange(1, 3001), 3 * rng.normal(size=3000))
    some = jax.jit(lambda k: jnp.min(buffer.draw(k, state, 512, jnp.asarray(1.0))[1][:, 0]))
    assert all(some(k) > 0 for k in jax.random.split(jax.random.key(2), 200))


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("where", ["psi", "log_weight"])
def test_weights_that_are_not_finite_are_never_drawn(bad, where):
    buffer = replay_buffer(6, weighted=True)
    values = np.array([0.0, bad, 1.0, 2.0])
    state = filled(buffer, [1, 2, 3, 4], **{where: values})
    for seed in range(20):
        assert set(draw(buffer, state, 64, 0.5, seed)) == {1, 3, 4}


def test_samples_of_nan_weight_are_not_drawn_in_uniform_mode():
    """A flow whose determinant is not positive voids its weight, and its end point may be anything."""
    buffer = replay_buffer(6, weighted=False)
    state = filled(buffer, [1, 2, 3, 4], log_weight=[0.0, np.nan, 1.0, np.nan], psi=[0.0, 0.0, np.nan, 0.0])
    for seed in range(20):
        assert set(draw(buffer, state, 64, 0.5, seed)) == {1, 3}


def test_any_sample_serves_while_no_weight_is_usable():
    buffer = replay_buffer(6, weighted=True)
    state = filled(buffer, [1, 2, 3], psi=[np.nan, -np.inf, np.nan])
    assert set(draw(buffer, state, 60)) == {1, 2, 3}


def test_uniform_mode_ignores_weights():
    buffer = replay_buffer(4, weighted=False)
    state = filled(buffer, [1, 2, 3, 4], log_weight=[0.0, -50.0, 50.0, 1.0], psi=[9.0, 0.0, -9.0, 3.0])
    np.testing.assert_array_equal(np.bincount(draw(buffer, state, 40)), [0, 10, 10, 10, 10])


def test_draws_depend_on_the_key_alone():
    buffer = replay_buffer(50, weighted=True)
    state = filled(buffer, np.arange(50), np.random.default_rng(0).normal(size=50))
    np.testing.assert_array_equal(draw(buffer, state, 9, seed=1), draw(buffer, state, 9, seed=1))
    assert any(
        not np.array_equal(draw(buffer, state, 9, seed=1), draw(buffer, state, 9, seed=s)) for s in (2, 3)
    )


def test_double_precision(x64):
    buffer = replay_buffer(4, weighted=True)
    state = filled(buffer, [1, 2, 3])
    assert state.log_weight.dtype == state.psi.dtype == state.x[0].dtype == jnp.float64
    assert set(draw(buffer, state, 9)) == {1, 2, 3}


def test_capacity_errors():
    for capacity in (0, -1):
        with pytest.raises(ValueError, match="capacity"):
            replay_buffer(capacity, weighted=True)
    buffer = replay_buffer(3, weighted=True)
    with pytest.raises(ValueError, match="capacity 3"):
        buffer.add(buffer.init(example()), rollouts([1, 2, 3, 4]), jnp.zeros(4))


@pytest.mark.parametrize("wanted", [0.3, 0.7])
def test_uneven_weights_are_flattened_just_enough(wanted):
    """Draws follow `w^gamma`, `gamma` the largest exponent with the ESS asked for; even weights are left alone."""
    rng = np.random.default_rng(0)
    for spread in (6.0, 0.1):
        log_w = spread * rng.normal(size=40)
        buffer = replay_buffer(50, weighted=True, min_ess_fraction=wanted)
        state = filled(buffer, np.arange(1, 41), 0.25 * log_w, 0.75 * log_w)
        grid = np.linspace(1e-6, 1, 20_001)
        w = np.exp(np.outer(grid, log_w - log_w.max()))
        ess = w.sum(1) ** 2 / (w**2).sum(1) / 40
        gamma = grid[np.flatnonzero(ess >= wanted).max()]
        assert (gamma == 1) == (spread == 0.1)
        probs = np.exp(gamma * (log_w - log_w.max()))
        counts = np.bincount(draw(buffer, state, 100_000), minlength=41)[1:]
        np.testing.assert_allclose(counts / 1e5, probs / probs.sum(), atol=2e-4)
    with pytest.raises(ValueError, match="min_ess_fraction"):
        replay_buffer(5, weighted=True, min_ess_fraction=1.0)


# -- weights normalised within groups ----------------------------------------------------------------------


def parity(x):
    """Odd labels are group 1, even ones group 0."""
    return x[1][0] % 2


def test_groups_come_up_equally_often_and_keep_their_law():
    """Weights of one group a thousand times those of the other: half of the draws each, in proportion within."""
    buffer = replay_buffer(8, weighted=True, group_fn=parity, num_groups=2)
    log_weight = np.array([0.0, 7.0, 0.5, 7.5, -1.0, 6.0])
    psi = np.array([0.3, 0.0, 1.0, -1.0, 0.2, 2.0])
    state, num = filled(buffer, np.arange(1, 7), log_weight, psi), 4000
    weight = np.exp(0.5 * psi + log_weight)
    probs = np.concatenate([[0], weight])
    probs[1::2] *= 0.5 / probs[1::2].sum()
    probs[0::2] *= 0.5 / probs[0::2].sum()
    for seed in range(5):
        counts = np.bincount(draw(buffer, state, num, 0.5, seed), minlength=7)
        assert np.abs(counts - num * probs).max() < 1 + 1e-4 * num
    plain = filled(replay_buffer(8, weighted=True), np.arange(1, 7), log_weight, psi)
    counts = np.bincount(draw(replay_buffer(8, weighted=True), plain, num, 0.5), minlength=7)
    assert counts[1::2].sum() < 0.01 * num  # without groups one of them is hardly seen


def test_groups_without_a_usable_weight_are_left_out():
    buffer = replay_buffer(8, weighted=True, group_fn=parity, num_groups=5)
    state = filled(buffer, [1, 2, 3, 4], psi=[np.nan, 0.0, -np.inf, 1.0])
    for seed in range(10):
        assert set(draw(buffer, state, 50, 1.0, seed)) == {2, 4}
    state = filled(buffer, [1, 2, 3], psi=[np.nan, -np.inf, np.nan])
    assert set(draw(buffer, state, 60)) == {1, 2, 3}


def test_group_errors():
    with pytest.raises(ValueError, match="num_groups: at least 1"):
        replay_buffer(3, weighted=True, group_fn=parity, num_groups=0)
    with pytest.raises(ValueError, match="group_fn: there are no weights"):
        replay_buffer(3, weighted=False, group_fn=parity, num_groups=2)
