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
    """`fn(obj, *args)`: jit of vmap == eager at either place of a batch, one trace however the leaves change.

    `batches` are two argument tuples. Returns the eager value at the first, which is computed once: loops are compiled
    anew at each eager call.
    """
    eager = fn(obj, *batches[0])
    batched = jax.jit(jax.vmap(lambda *args: fn(obj, *args)))
    forth, back = batched(*stack(batches)), batched(*stack(batches[::-1]))
    assert_close(jax.tree.map(lambda a: a[0], forth), eager, precision, "jit of vmap == eager")
    assert_close(
        jax.tree.map(lambda a: a[::-1], back), forth, precision, "a state does not see its neighbours"
    )
    traces = []

    def counted(obj, *args):
        traces.append(1)
        return fn(obj, *args)

    traced = jax.jit(counted)  # never compiled: of one state that takes as long as of a batch
    for args in batches:
        traced.trace(obj, *args)
    traced.trace(perturb(obj, 1.01), *batches[0])
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
