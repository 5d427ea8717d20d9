"""Flows as ordinary differential equations: samples and log-probabilities, approximate, differentiable.

    dz / dphi = w(phi) eta(x_t, t),      d log p / dphi = - div(w eta),      log p_0(z) = log N(z; 0, I)

in the standard units `z` and the angle of the path, where nothing is steep at `t = 1` whatever the schedule. `phi` is
the angle of a coordinate of typical scale; with a scale for each coordinate `w = r / (cos^2 phi + r^2 sin^2 phi)` turns
the others, `r` their scale over the typical one. The clock `t(phi)` is found by bisection, the network being called at
`t` as always.

The log-probability is that of the flow in continuous time, up to the error of the solver and, with random
probes, their noise. It is reported as approximate and is never a certificate: the weights of `grid_sampler`
are those of the discrete map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from .._precision import highest
from ..paths import GaussianPath
from ..processes import FlowProcess, PredictFn
from ._samplers import check_grid

BISECTIONS = 40  # past the resolution of float32; a scalar each, nothing next to a network call
Field = Callable[[jax.Array, Any], Any]  # (phi, state) -> d state / d phi


class ODERollout(NamedTuple):
    """The state at the other end, the `approximate` log-probability of the data point, and the network calls made.

    A call with its divergence counts as one. Where the adaptive solver ran out of steps both values are `nan`.
    """

    x: jax.Array
    approximate_log_prob: jax.Array
    num_calls: jax.Array


class FlowODE(NamedTuple):
    """Two pure functions: from the prior to data, and back from a data point.

    `sample(key, predict_fn) -> ODERollout(x_1, log p_1(x_1))`, `log_prob(key, predict_fn, x_1) ->
    ODERollout(x_0, log p_1(x_1))`. `key` also draws the probes of the divergence, held fixed along a trajectory.
    """

    sample: Callable[[jax.Array, PredictFn], ODERollout]
    log_prob: Callable[[jax.Array, PredictFn, jax.Array], ODERollout]


def flow_ode(
    process: FlowProcess,
    times: Any = None,
    *,
    divergence: Literal["exact", "hutchinson"] = "exact",
    num_probes: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 1024,
) -> FlowODE:
    """Solves the flow of `process`, adaptively unless `times` are given.

    Args:
        process: A flow; its `stepper` is that of a fixed grid.
        times: Increasing times from 0 to 1 for a fixed grid; `None` solves adaptively by Dormand-Prince 5(4), from
            diffrax.
        divergence: "exact" by `dim` forward derivatives a call; "hutchinson" by `num_probes` of them, `mean e.J e`
            over Rademacher signs `e`, unbiased for the log-probability and not for its exponential.
        num_probes: Probes of the Hutchinson estimate.
        rtol, atol: Tolerances of the adaptive solver, for states and log-probability alike.
        max_steps: Where the adaptive solver gives up; its memory under reverse differentiation grows with the root.

    Gradients flow through the solver into whatever `predict_fn` closes over and into `x_1`, not through the
    schedule of the path. Raises `ValueError` for a process that is not a flow, bad times, an unknown divergence or
    a count below one; `ImportError` where diffrax is missing and no times are given.
    """
    if not isinstance(process, FlowProcess):
        raise ValueError(f"process: expected a FlowProcess, got {type(process).__name__}")
    if divergence not in ("exact", "hutchinson"):
        raise ValueError(f'divergence: expected "exact" or "hutchinson", got {divergence!r}')
    for name, value in (("num_probes", num_probes), ("max_steps", max_steps)):
        if value < 1:
            raise ValueError(f"{name}: at least 1, got {value}")
    path = process.path
    grid = None if times is None else check_grid(times)

    def solve(field: Field, start: Any, forward: bool) -> tuple[Any, jax.Array]:
        if grid is None:
            ends = _clock(path, 0.0), _clock(path, 1.0)
            return _adaptive(field, start, *(ends if forward else ends[::-1]), rtol, atol, max_steps)
        angles = jax.vmap(lambda t: _clock(path, t))(jnp.asarray(grid, dtype=float))
        return _fixed(field, start, angles if forward else angles[::-1], process.stepper)

    def field_of(key: jax.Array, predict_fn: PredictFn) -> Field:
        size = math.prod(path.shape)
        if divergence == "exact":
            probes, share = jnp.eye(size, dtype=float), 1.0
        else:
            probes, share = jax.random.rademacher(key, (num_probes, size), dtype=float), 1.0 / num_probes
        probes = probes.reshape(-1, *path.shape)

        def field(phi: jax.Array, state: tuple) -> tuple:
            t = _time(path, phi)
            turn = _turns(path, phi)

            @highest
            def slope(z: jax.Array) -> jax.Array:
                x = path.unstandardize(z, t)
                return turn * process.residual(predict_fn(x, t), x, t)

            velocity, linear = jax.linearize(slope, state[0])
            return velocity, -share * jnp.sum(probes * jax.vmap(linear)(probes))

        return field

    def density(z: jax.Array, gain: jax.Array) -> jax.Array:
        """`log p_1`: normal at the start, the change along the way, and the units at the end."""
        _, std = path.reference_moments(1.0)
        units = jnp.sum(jnp.log(jnp.broadcast_to(std, path.shape)))
        return gain - 0.5 * jnp.sum(z**2) - 0.5 * z.size * math.log(2.0 * math.pi) - units

    def sample(key: jax.Array, predict_fn: PredictFn) -> ODERollout:
        key_prior, key_probe = jax.random.split(key)
        z0 = path.standardize(path.sample_prior(key_prior), 0.0)
        (z1, gain), calls = solve(field_of(key_probe, predict_fn), (z0, jnp.zeros(())), True)
        return ODERollout(path.unstandardize(z1, 1.0), density(z0, gain), calls)

    def log_prob(key: jax.Array, predict_fn: PredictFn, x1: jax.Array) -> ODERollout:
        start = path.standardize(x1, 1.0), jnp.zeros(())
        (z0, gain), calls = solve(field_of(key, predict_fn), start, False)
        return ODERollout(path.unstandardize(z0, 0.0), density(z0, -gain), calls)

    return FlowODE(sample, log_prob)


def _typical_scale(path: GaussianPath) -> jax.Array:
    return jnp.exp(jnp.mean(jnp.log(jnp.asarray(path.scale, dtype=float))))


def _clock(path: GaussianPath, t: Any) -> jax.Array:
    """`phi = arctan(alpha scale / sigma)`, a scalar, exactly `pi / 2` at `t = 1`."""
    alpha, sigma = path.coefficients(t)
    return jnp.arctan2(alpha * _typical_scale(path), sigma)


def _time(path: GaussianPath, phi: jax.Array) -> jax.Array:
    """The time at which the clock shows `phi`, by bisection of `alpha scale cos(phi) - sigma sin(phi)`."""
    scale, cos, sin = _typical_scale(path), jnp.cos(phi), jnp.sin(phi)

    def halve(_: int, bracket: tuple) -> tuple:
        low, high = bracket
        middle = 0.5 * (low + high)
        alpha, sigma = path.coefficients(middle)
        early = alpha * scale * cos < sigma * sin
        return jnp.where(early, middle, low), jnp.where(early, high, middle)

    # the upper end of the bracket is exactly 1 at the end, where a network may divide by what is left
    _, high = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros(()), jnp.ones(())))
    return jax.lax.stop_gradient(high)


def _turns(path: GaussianPath, phi: jax.Array) -> jax.Array:
    """`d theta / d phi` of each coordinate."""
    ratio = jnp.asarray(path.scale, dtype=float) / _typical_scale(path)
    return ratio / (jnp.cos(phi) ** 2 + (ratio * jnp.sin(phi)) ** 2)


def _fixed(field: Field, start: Any, angles: jax.Array, stepper: str) -> tuple[Any, jax.Array]:
    def step(state: Any, ends: tuple) -> tuple:
        now, later = ends
        turn, slope = later - now, field(now, state)
        end = jax.tree.map(lambda y, f: y + turn * f, state, slope)
        if stepper == "euler":
            return end, None
        mean = jax.tree.map(lambda f, g: 0.5 * (f + g), slope, field(later, end))
        return jax.tree.map(lambda y, f: y + turn * f, state, mean), None

    final, _ = jax.lax.scan(step, start, (angles[:-1], angles[1:]))
    return final, jnp.int32((len(angles) - 1) * (1 if stepper == "euler" else 2))


def _adaptive(
    field: Field, start: Any, first: jax.Array, last: jax.Array, rtol: float, atol: float, max_steps: int
) -> tuple[Any, jax.Array]:
    import diffrax  # optional: only adaptive solutions need it

    with jax.numpy_rank_promotion("allow"):  # the solver's own arithmetic
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda phi, state, _: field(jnp.asarray(phi), state)),
            diffrax.Dopri5(),
            first,
            last,
            None,
            start,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=max_steps,
            throw=False,
        )
    done = solution.result == diffrax.RESULTS.successful
    final = jax.tree.map(lambda y: jnp.where(done, y[0], jnp.nan), solution.ys)
    # first same as last: six new stages a step, and two calls to begin with
    calls: Any = 6 * solution.stats["num_steps"] + 2
    return final, calls.astype(jnp.int32)
