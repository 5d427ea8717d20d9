"""Arithmetic of generators: `scale`, `superpose`, and the action `L f` on a test function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._generators import KINDS, Diffusion, Flow, Generator, Jump, RealJump, Superposition


def scale(generator: Generator, factor: jax.typing.ArrayLike) -> Generator:
    """`factor * L`: every coefficient times a scalar; products and superpositions part by part."""

    def times(part: Any) -> Any:
        if isinstance(part, RealJump):  # where it lands is no coefficient
            return part._replace(intensities=part.intensities * factor)
        return part * factor

    return jax.tree.map(times, generator, is_leaf=lambda part: isinstance(part, RealJump))


def superpose(generators: Sequence[Generator], weights: Sequence[jax.typing.ArrayLike]) -> Generator:
    """`sum_i weights_i L_i` for generators that act on the same state.

    Like kinds add their coefficients; a flow joins a diffusion as drift; unlike kinds that cannot be merged
    become a `Superposition`. Products (tuples) are superposed component by component. If every `L_i` solves
    the forward equation of the same marginals and the weights are non-negative and sum to one, so does the
    result (Generator Matching, Proposition 3). Raises `ValueError` for unequal lengths or unlike products.
    """
    if len(generators) != len(weights) or not generators:
        raise ValueError(
            f"weights: expected one for each of {len(generators)} generators, got {len(weights)}"
        )
    products = [not isinstance(g, KINDS) for g in generators]
    if all(products):
        sizes = {len(g) for g in generators}  # type: ignore[arg-type]
        if len(sizes) > 1:
            raise ValueError(f"generators: products of unlike numbers of components {sorted(sizes)}")
        return tuple(superpose(parts, weights) for parts in zip(*generators))  # type: ignore[arg-type]
    if any(products):
        raise ValueError("generators: a product cannot be superposed with a generator of one component")

    flow: Any = None
    diffusion: Any = None
    jump: Any = None
    real_jump: Any = None
    for g in _flatten([scale(g, w) for g, w in zip(generators, weights)]):
        match g:
            case Flow():
                flow = g if flow is None else Flow(flow.velocity + g.velocity)
            case Diffusion():
                diffusion = g if diffusion is None else _add_diffusions(diffusion, g)
            case Jump():
                jump = g if jump is None else _add_jumps(jump, g)
            case RealJump():
                real_jump = g if real_jump is None else _join_nodes(real_jump, g)
    if flow is not None and diffusion is not None:
        flow, diffusion = None, Diffusion(diffusion.drift + flow.velocity, diffusion.covariance)
    parts = tuple(p for p in (flow, diffusion, jump, real_jump) if p is not None)
    return parts[0] if len(parts) == 1 else Superposition(parts)


def action(generator: Generator, fn: Callable[[Any], jax.Array], x: Any) -> jax.Array:
    """`(L f)(x)`, a scalar, for a scalar test function `fn` of one state.

    Cost: a flow one `jvp`; a diffusion a gradient and, for a matrix covariance, `dim` Hessian products; a
    jump `sites * symbols` evaluations of `fn`, one on R^d `dim * nodes`. For a product, the sum over components
    with the others held fixed.
    """
    match generator:
        case Flow(velocity):
            return jax.jvp(fn, (x,), (velocity.astype(x.dtype),))[1]
        case Diffusion(drift, covariance):
            return jax.jvp(fn, (x,), (drift.astype(x.dtype),))[1] + 0.5 * _trace_hessian(fn, x, covariance)
        case Jump(intensities):
            return _jump_action(intensities, fn, x)
        case RealJump(intensities, locations):
            return _real_jump_action(intensities, locations, fn, x)
        case Superposition(parts):
            return sum((action(part, fn, x) for part in parts), start=jnp.zeros(()))
    total = jnp.zeros(())
    for i, part in enumerate(generator):

        def of_component(xi: Any, i: int = i) -> jax.Array:
            return fn((*x[:i], xi, *x[i + 1 :]))

        total += action(part, of_component, x[i])
    return total


def _flatten(generators: Sequence[Generator]) -> list[Generator]:
    flat: list[Generator] = []
    for g in generators:
        flat.extend(_flatten(g.parts) if isinstance(g, Superposition) else [g])
    return flat


def _add_diffusions(a: Diffusion, b: Diffusion) -> Diffusion:
    rank = max(jnp.ndim(a.covariance), jnp.ndim(b.covariance))
    dim = a.drift.shape[-1]
    return Diffusion(a.drift + b.drift, _raise_covariance(a, rank, dim) + _raise_covariance(b, rank, dim))


def _add_jumps(a: Jump, b: Jump) -> Jump:
    """One may know symbols that the other does not, such as the mask."""
    width = max(a.intensities.shape[-1], b.intensities.shape[-1])
    wide = [jnp.pad(g.intensities, ((0, 0), (0, width - g.intensities.shape[-1]))) for g in (a, b)]
    return Jump(wide[0] + wide[1])


def _join_nodes(a: RealJump, b: RealJump) -> RealJump:
    return RealJump(*(jnp.concatenate(pair, axis=-1) for pair in zip(a, b)))


def _raise_covariance(g: Diffusion, rank: int, dim: int) -> jax.Array:
    c = jnp.asarray(g.covariance)
    if rank >= 1 and c.ndim == 0:
        c = jnp.full((dim,), c)
    return jnp.diag(c) if rank == 2 and c.ndim == 1 else c


def _trace_hessian(fn: Callable, x: jax.Array, covariance: jax.Array) -> jax.Array:
    covariance = jnp.asarray(covariance)
    basis = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    columns = jax.vmap(lambda v: jax.jvp(jax.grad(fn), (x,), (v,))[1].reshape(-1))(basis)
    if covariance.ndim == 2:
        return jnp.sum(covariance * columns)
    return jnp.sum(covariance.reshape(-1) * jnp.diag(columns))


def _jump_action(intensities: jax.Array, fn: Callable, x: jax.Array) -> jax.Array:
    sites, symbols = intensities.shape
    here = fn(x)

    def change(i: jax.Array, y: jax.Array) -> jax.Array:
        return fn(x.at[i].set(y.astype(x.dtype))) - here

    every = jax.vmap(jax.vmap(change, in_axes=(None, 0)), in_axes=(0, None))
    return jnp.sum(intensities * every(jnp.arange(sites), jnp.arange(symbols)))


def _real_jump_action(intensities: jax.Array, locations: jax.Array, fn: Callable, x: jax.Array) -> jax.Array:
    here, flat = fn(x), x.reshape(-1)

    def change(i: jax.Array, y: jax.Array) -> jax.Array:
        return fn(flat.at[i].set(y.astype(x.dtype)).reshape(x.shape)) - here

    every = jax.vmap(jax.vmap(change, in_axes=(None, 0)), in_axes=(0, 0))
    changes = every(jnp.arange(x.size), locations.reshape(x.size, -1))
    return jnp.sum(intensities.reshape(changes.shape) * changes)
