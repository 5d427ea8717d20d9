"""Generators as their coefficients.

    Flow        L f(x) = grad f(x) . u
    Diffusion   L f(x) = grad f(x) . b + 1/2 tr(C hess f(x))
    Jump        L f(x) = sum_i sum_y Q[i, y] (f(x[i <- y]) - f(x))
    RealJump    L f(x) = sum_i sum_n Q[i, n] (f(x[i <- y[i, n]]) - f(x))

`L f = <K f, F>` is linear in the coefficients `F`, so averages over a posterior, superpositions and guidance
are arithmetic on these values (Holderrieth et al., Generator Matching, section 4). A product of components
has a tuple of generators, one for each component of the state.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax


class Flow(NamedTuple):
    """Deterministic motion: `velocity`, the shape of the state."""

    velocity: jax.Array


class Diffusion(NamedTuple):
    """`drift [dim]` and `covariance` per unit time: a scalar, a diagonal `[dim]`, or a matrix `[dim, dim]`."""

    drift: jax.Array
    covariance: jax.Array


class Jump(NamedTuple):
    """`intensities [sites, symbols]`: the rate of setting site `i` to symbol `y`, one site an event.

    Intensity masses (rate times landing law) are stored because only they are linear. An entry at the
    present symbol has no effect. `rate` and `law` are views.
    """

    intensities: jax.Array

    @property
    def rate(self) -> jax.Array:
        """Rates `[sites]`, including the mass that lands on the present symbol."""
        return self.intensities.sum(-1)

    @property
    def law(self) -> jax.Array:
        """Landing laws `[sites, symbols]`; zero where the rate is zero."""
        rate = self.rate[..., None]
        return self.intensities / jax.numpy.where(rate > 0, rate, 1.0)


class RealJump(NamedTuple):
    """Jumps on R^d, one coordinate an event: `intensities` and `locations`, both `[*shape, nodes]`.

    A discrete measure of landing points for each coordinate, e.g. the nodes and weights of a quadrature. It is linear
    in the intensities; measures add by joining their nodes.
    """

    intensities: jax.Array
    locations: jax.Array

    @property
    def rate(self) -> jax.Array:
        """Rates, the shape of the state."""
        return self.intensities.sum(-1)


class Superposition(NamedTuple):
    """The sum of generators of unlike kinds that act on the same state."""

    parts: tuple[Any, ...]


Generator: TypeAlias = Flow | Diffusion | Jump | RealJump | Superposition | tuple["Generator", ...]
KINDS = (Flow, Diffusion, Jump, RealJump, Superposition)
