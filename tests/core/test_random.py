"""Random words and symbols against jax's own generator and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax._random import random_words
from egmjax.processes._masked import log_symbol_prob, sample_symbols

INF = np.inf


@pytest.mark.parametrize("shape", [(6,), (3, 8), (2, 1, 10)])
def test_words_are_the_two_halves_of_the_blocks_of_jax(shape):
    """`jax.random.bits` is their exclusive or."""
    keys = jax.random.split(jax.random.key(3), 4)
    words = jax.vmap(lambda k: random_words(k, shape))(keys)
    half = shape[-1] // 2
    with jax.threefry_partitionable(True):
        want = jax.vmap(lambda k: jax.random.bits(k, (*shape[:-1], half), jnp.uint32))(keys)
    assert words.dtype == jnp.uint32
    assert words.shape == (4, *shape)
    np.testing.assert_array_equal(words[..., :half] ^ words[..., half:], want)
    assert len(np.unique(words)) == words.size


def test_words_of_odd_shapes_and_other_keys():
    key = jax.random.key(0)
    np.testing.assert_array_equal(random_words(key, (3, 5)), random_words(key, (3, 6))[:, :5])
    for other in (jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")):
        np.testing.assert_array_equal(random_words(other, (3, 5)), jax.random.bits(other, (3, 5), jnp.uint32))


@pytest.mark.parametrize("num_states", [2, 3])
def test_symbols_have_their_probabilities(num_states):
    logits = np.array(
        [[0.0, 0.0, -1.0], [2.0, -1.0, 0.5], [-6.0, 0.0, 1.0], [-INF, 0.0, 3.0], [1.0, -INF, -INF]]
    )
    logits = jnp.asarray(logits[:, :num_states], jnp.float32)
    num = 200_000
    keys = jax.random.split(jax.random.key(0), num)
    drawn = np.asarray(jax.vmap(lambda k: sample_symbols(k, logits))(keys))
    probs = np.asarray(jax.nn.softmax(logits), np.float64)
    for s in range(num_states):
        found, error = np.mean(drawn == s, axis=0), np.sqrt(probs[:, s] * (1 - probs[:, s]) / num)
        assert np.all(np.abs(found - probs[:, s]) <= 4.5 * error + 1e-7)


@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_no_symbol_is_drawn_more_often_than_a_word_can_tell(monkeypatch, word):
    """With `u = 0` a symbol of probability 1e-20 would come once in eight million draws."""
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.full(shape, word, dtype))
    drawn = sample_symbols(jax.random.key(0), jnp.array([[0.0, -46.0], [-46.0, 0.0]]))
    np.testing.assert_array_equal(drawn, [0, 1])


@pytest.mark.parametrize("gap", [0.0, 1e-4, -3.0, 30.0, -200.0, INF, -INF])
def test_log_probability_of_two_symbols(gap):
    logits = jnp.array([0.7, 0.7 + gap])
    want = -np.logaddexp(0.0, [gap, -gap])
    for x in (0, 1):
        np.testing.assert_allclose(log_symbol_prob(logits, jnp.int32(x)), want[x], rtol=3e-6, atol=3e-7)
    if np.isfinite(gap):
        slope = jax.grad(lambda each: log_symbol_prob(each, jnp.int32(1)))(logits)
        np.testing.assert_allclose(slope, jnp.array([-1.0, 1.0]) * jax.nn.sigmoid(-gap), atol=1e-6)
