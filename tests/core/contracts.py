"""What every pure function of the core is held to, whatever it computes."""

import jax
import jax.numpy as jnp
import numpy as np

RTOL = {"float32": 2e-4, "float64": 1e-9}


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def assert_close(a, b, precision, what):
    assert jax.tree.structure(a) == jax.tree.structure(b), what
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.shape == y.shape, what
        assert x.dtype == y.dtype, what
        tolerance = RTOL[precision]
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=what)


def check_float_types(tree, precision):
    """Floats have the default type of the moment and integers are int32, in both precisions."""
    for leaf in jax.tree.leaves(tree):
        want = precision if jnp.issubdtype(leaf.dtype, jnp.floating) else "int32"
        assert str(leaf.dtype) == want, (leaf.dtype, leaf.shape)


def check_function(fn, obj, batches, precision):
    """`fn(obj, *args)`: jit == eager, vmap == loop, one trace for one shape however the leaves change.

    `batches` are argument tuples. Returns the eager value at the first.
    """
    eager = fn(obj, *batches[0])
    traces = []

    def counted(obj, *args):
        traces.append(1)
        return fn(obj, *args)

    jitted = jax.jit(counted)
    looped = [jitted(obj, *args) for args in batches]
    assert_close(looped[0], eager, precision, "jit == eager")
    batched = jax.jit(jax.vmap(lambda *args: fn(obj, *args)))(*stack(batches))
    assert_close(batched, stack(looped), precision, "vmap == loop")
    jitted(perturb(obj, 1.01), *batches[0])
    assert len(traces) == 1, "changed leaves retraced"
    return eager


def perturb(obj, factor):
    """Float leaves times `factor`."""
    return jax.tree.map(lambda a: a * factor if jnp.issubdtype(jnp.result_type(a), jnp.floating) else a, obj)


def check_round_trip(obj):
    leaves, structure = jax.tree.flatten(obj)
    rebuilt = jax.tree.unflatten(structure, leaves)
    assert type(rebuilt) is type(obj)
    assert jax.tree.structure(rebuilt) == structure
    assert all(a is b for a, b in zip(jax.tree.leaves(rebuilt), leaves))
    mapped = jax.tree.map(lambda a: a, obj)
    assert jax.tree.structure(mapped) == structure


def check_gradients(fn, obj, *args):
    """Finite derivatives of a scalar with respect to every float leaf of the object and of the arguments."""
    tree = (obj, args)
    leaves, structure = jax.tree.flatten(tree)
    smooth = [i for i, a in enumerate(leaves) if jnp.issubdtype(jnp.result_type(a), jnp.floating)]

    def of(values):
        merged = list(leaves)
        for i, value in zip(smooth, values):
            merged[i] = value
        obj, args = jax.tree.unflatten(structure, merged)
        return fn(obj, *args)

    value, grads = jax.jit(jax.value_and_grad(of))([jnp.asarray(leaves[i], dtype=float) for i in smooth])
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in grads)
