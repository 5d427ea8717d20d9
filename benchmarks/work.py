"""Work of a program, counted from its trace: nothing is compiled or run, and sizes need not fit this machine.

    Work = sum over equations of the trace, times the lengths of the scans around them

A product of matrices `[b, m, k] x [b, k, n]` has `2 b m k n` operations. All else that computes has one operation for
each number that comes out, or that goes in where that is more (sums). Functions such as `exp` count as one operation
and are counted apart too, since they cost many. Bytes are those that must pass through memory if chains of elementwise
operations are fused and nothing stays in cache between them: operands and results of products, gathers, scatters,
sorts, and what scans read, carry and stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import jax

FUNCTIONS = {
    "exp",
    "exp2",
    "log",
    "log1p",
    "expm1",
    "tanh",
    "logistic",
    "erf",
    "erfc",
    "erf_inv",
    "pow",
    "sqrt",
    "rsqrt",
}
FUNCTIONS |= {
    "cbrt",
    "lgamma",
    "digamma",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "atan2",
    "sinh",
    "cosh",
}
FUNCTIONS |= {"asinh", "acosh", "atanh"}
# they move or name numbers and compute none; fused into what reads them
FREE = {
    "broadcast_in_dim",
    "reshape",
    "squeeze",
    "expand_dims",
    "transpose",
    "convert_element_type",
    "slice",
    "rev",
}
FREE |= {"bitcast_convert_type", "copy", "copy_p", "stop_gradient", "iota", "pad", "split"}
FREE |= {"random_seed", "random_wrap", "random_unwrap", "random_split", "random_fold_in"}
IN_MEMORY = {"sort", "concatenate", "cumsum", "cumprod", "cummax", "cumlogsumexp", "top_k"}


@dataclass(frozen=True)
class Work:
    """Operations of matrix products, others, functions among these; random bits; bytes; loops of unknown length."""

    products: float = 0.0
    others: float = 0.0
    functions: float = 0.0
    random_bits: float = 0.0
    bytes: float = 0.0
    open_loops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    def __mul__(self, factor: float) -> Work:
        return Work(*(factor * getattr(self, f.name) for f in fields(Work)))

    def at_least_nothing(self) -> Work:
        """Negative parts, of rounded differences, as zero."""
        return Work(*(max(0.0, getattr(self, f.name)) for f in fields(Work)))


def count(function: Callable[..., Any], *arguments: Any) -> Work:
    """The work of `function(*arguments)`, which may be arrays or `jax.ShapeDtypeStruct`.

    A loop whose length the trace does not tell (`while`) counts once, and is reported in `open_loops`; of a `cond` the
    branch with most operations counts. Costs a trace.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Any) -> Work:
    return sum((_equation(eqn) for eqn in jaxpr.eqns), Work())


def _equation(eqn: Any) -> Work:
    name = eqn.primitive.name
    out, into = _numbers(eqn.outvars), _numbers(eqn.invars)
    if name == "scan":
        ends = Work(bytes=_bytes(eqn.invars) + _bytes(eqn.outvars))
        return _count(eqn.params["jaxpr"].jaxpr) * eqn.params["length"] + ends
    if name == "cond":
        branches = [_count(branch.jaxpr) for branch in eqn.params["branches"]]
        return max(branches, key=lambda work: work.products + work.others)
    if name == "while":
        parts = (eqn.params["body_jaxpr"].jaxpr, eqn.params["cond_jaxpr"].jaxpr)
        return sum(map(_count, parts), Work(open_loops=1))
    inner = [_open(value) for value in eqn.params.values()]
    if found := [jaxpr for jaxpr in inner if jaxpr is not None]:
        return _count(found[0])
    touched = _bytes(eqn.invars) + _bytes(eqn.outvars)
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return Work(products=2 * out * math.prod(shape[i] for i in contracted), bytes=touched)
    if name == "conv_general_dilated":
        # every output is a sum over the kernel of its output channel
        numbers = eqn.params["dimension_numbers"]
        kernel = eqn.invars[1].aval.shape
        return Work(products=2 * out * math.prod(kernel) / kernel[numbers.rhs_spec[0]], bytes=touched)
    if name in ("random_bits", "threefry2x32"):
        width = eqn.params.get("bit_width", 32)
        return Work(random_bits=width * out)
    if name in ("dynamic_slice", "gather"):
        return Work(bytes=2 * _bytes(eqn.outvars))  # what is read, not what it is read from
    if name == "dynamic_update_slice" or name.startswith("scatter"):
        return Work(bytes=2 * _bytes(eqn.invars[1:]))
    if name in IN_MEMORY:
        return Work(others=into * (math.log2(max(into, 2)) if name == "sort" else 1), bytes=touched)
    if name in FREE:
        return Work()
    return Work(
        others=max(out, into if name.startswith(("reduce", "arg")) else 0),
        functions=out * (name in FUNCTIONS),
    )


def _open(value: Any) -> Any:
    """The jaxpr that a parameter of an equation holds, if it holds one."""
    jaxpr = getattr(value, "jaxpr", value)
    return jaxpr if hasattr(jaxpr, "eqns") else None


def _numbers(variables: Iterable[Any]) -> float:
    return float(sum(math.prod(getattr(v.aval, "shape", ())) for v in variables))


def _bytes(variables: Iterable[Any]) -> float:
    return float(
        sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables if hasattr(v.aval, "shape"))
    )
