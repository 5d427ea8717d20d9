"""Matrix products in the trace of a function, and the function with the rounding of an accelerator."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

PRODUCTS = ("dot_general", "conv_general_dilated")


def is_highest(eqn: Any) -> bool:
    """Whether a product has asked for float32 arithmetic: of both operands."""
    precision = eqn.params["precision"]
    both = precision if isinstance(precision, tuple) else (precision, precision)
    return all(p == jax.lax.Precision.HIGHEST for p in both)


def products(fn: Any, *args: Any) -> list[Any]:
    """All matrix products of `fn(*args)`, loops and branches included."""
    return list(_products(jax.make_jaxpr(fn)(*args).jaxpr))


def _products(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in PRODUCTS:
            yield eqn
        for inner in _inner(eqn):
            yield from _products(getattr(inner, "jaxpr", inner))


def _inner(eqn: Any) -> list[Any]:
    found = jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr)
    return [leaf for leaf in found if _is_jaxpr(leaf)]


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, (core.Jaxpr, core.ClosedJaxpr))


def as_on_an_accelerator(fn: Any) -> Any:
    """`fn` with the operands of every float32 product rounded to bfloat16, unless the product asks for more.

    What a TPU does by default, on any machine.
    """

    def rounded(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
        out = _run(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), out)

    return rounded


def _run(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))
    for eqn in jaxpr.eqns:
        inputs = [v.val if isinstance(v, core.Literal) else values[v] for v in eqn.invars]
        outputs = _apply(eqn, inputs)
        values.update(zip(eqn.outvars, outputs))
    return [v.val if isinstance(v, core.Literal) else values[v] for v in jaxpr.outvars]


def _apply(eqn: Any, inputs: list[Any]) -> list[Any]:
    name = eqn.primitive.name
    if name in PRODUCTS and not is_highest(eqn):
        inputs = [jax.lax.reduce_precision(a, 8, 7) if a.dtype == jnp.float32 else a for a in inputs]
    if name in ("scan", "while", "cond"):
        params = {key: _rounded(value) for key, value in eqn.params.items()}
        return eqn.primitive.bind(*inputs, **params)
    # solves go by factors, scatters name what they combine with: neither has a function of its inputs inside
    if (inner := _inner(eqn)) and name != "custom_linear_solve" and not name.startswith("scatter"):
        body = inner[0]  # of calls, custom derivatives and rematerialisation
        return _run(getattr(body, "jaxpr", body), getattr(body, "consts", ()), inputs)
    out = eqn.primitive.bind(*inputs, **eqn.params)
    return out if eqn.primitive.multiple_results else [out]


def _rounded(value: Any) -> Any:
    """A parameter of a loop or a branch, with rounding inside."""
    if isinstance(value, core.ClosedJaxpr):
        return jax.make_jaxpr(lambda *args: _run(value.jaxpr, value.consts, args))(*value.in_avals)
    if isinstance(value, tuple) and value and all(isinstance(v, core.ClosedJaxpr) for v in value):
        return tuple(_rounded(v) for v in value)
    return value
