"""One train step for every source of states, process, proposal, estimator, network and optimiser.

An iteration renews its source (the present model is rolled out into a replay buffer; data stay what they are) and makes
`updates_per_iteration` gradient steps on examples drawn from it. The whole iteration is one compiled
function of the state; nothing in it depends on which modality, process or objective it serves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..sharding import SpecFn, check_divides, constrain, replicated, value_and_grad_by_device
from ._objectives import Context, Objective
from ._sources import Source
from ._times import TimeFn, stratified_times

UNIFORM = stratified_times()


class TrainState(NamedTuple):
    """Everything an iteration reads and writes; a pytree of arrays, and all that a checkpoint holds.

    `buffer` is what the source keeps: a `BufferState` of roll-outs, nothing for data.
    """

    params: Any
    ema_params: Any
    opt_state: optax.OptState
    buffer: Any
    key: jax.Array
    iteration: jax.Array
    num_updates: jax.Array


class Trainer(NamedTuple):
    """`init(key, params) -> TrainState` and `step(state) -> (state, metrics)`, both pure."""

    init: Callable[[jax.Array, Any], TrainState]
    step: Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]]


def make_trainer(
    source: Source,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int = 512,
    updates_per_iteration: int = 8,
    ema_decay: float = 0.99,
    temper_fn: Callable[[jax.Array], jax.Array] = lambda iteration: jnp.ones(()),
    time_fn: TimeFn = UNIFORM,
    mesh: Mesh | None = None,
    param_spec_fn: SpecFn = replicated,
) -> Trainer:
    """Composes a trainer.

    An iteration renews `source` once and makes `updates_per_iteration` gradient steps of `batch_size` states drawn from
    it. `temper_fn(iteration)` scales `psi` in the buffer's weights and in the objective; data know no `psi`.
    `time_fn(key, num)` draws the times. Roll-outs and objectives use the exponential moving average of the parameters
    (bias-corrected: decay `min(ema_decay, (1+n)/(10+n))`). Metrics are scalars: `loss`, `grad_norm`, `num_nonfinite`,
    and what source and objective have to say.

    With a `mesh` (`sharding.state_mesh`; give it to source and objective too) batches are split over all devices, what
    the source keeps over the `states` axis, and parameters, with their averages and the optimiser's state, by
    `param_spec_fn(path, shape)`. All batches of an iteration are drawn before its updates, which then exchange
    gradients and scalars alone.

    Raises `ValueError` for a count below one, or a `batch_size` that cannot be split evenly.
    """
    for name, value in (("batch_size", batch_size), ("updates_per_iteration", updates_per_iteration)):
        if value < 1:
            raise ValueError(f"{name}: at least 1, got {value}")
    check_divides(mesh, "batch_size", batch_size)

    def init(key: jax.Array, params: Any) -> TrainState:
        state = TrainState(
            params, params, optimizer.init(params), source.init(), key, jnp.int32(0), jnp.int32(0)
        )
        state = jax.tree.map(jnp.copy, state)  # every leaf its own storage, since the state is donated
        return state if mesh is None else jax.jit(lay_out_state)(state)

    def lay_out_state(state: TrainState) -> TrainState:
        return lay_out(state, optimizer, mesh, param_spec_fn)

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        return jnp.mean(jax.vmap(lambda example: objective.loss(params, example))(batch))

    loss_and_gradient = value_and_grad_by_device(loss_fn, mesh)

    def step(state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        key, key_renew, key_updates = jax.random.split(state.key, 3)
        temper = temper_fn(state.iteration)
        stored, renewed = source.renew(key_renew, state.buffer, state.ema_params, temper)
        stored = jax.tree.map(lambda a: constrain(a, mesh, _spec_of_stored(a)), stored)

        def update(carry: tuple, drawn: tuple) -> tuple:
            params, ema, opt_state, count = carry
            x1, key_time, key_examples = drawn
            t = time_fn(key_time, batch_size)
            context = Context(ema, temper, state.iteration)
            batch, info = objective.examples(key_examples, context, x1, t)
            loss, gradient = loss_and_gradient(params, jax.lax.stop_gradient(batch))
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
            decay = jnp.minimum(ema_decay, (1.0 + count) / (10.0 + count))
            ema = jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema, params)
            info = {"loss": loss, "grad_norm": optax.tree.norm(gradient), **info}
            return (params, ema, opt_state, count + 1), info

        keys = jax.vmap(lambda k: jax.random.split(k, 3))(
            jax.random.split(key_updates, updates_per_iteration)
        )
        # drawn for all updates at once: a draw may need states of any device, an update then does not
        x1 = jax.vmap(lambda k: source.draw(k, stored, batch_size, temper))(keys[:, 0])
        x1 = constrain(x1, mesh, None if mesh is None else PartitionSpec(None, mesh.axis_names))
        carry = (state.params, state.ema_params, state.opt_state, state.num_updates)
        rows: dict[str, jax.Array]
        (params, ema, opt_state, count), rows = jax.lax.scan(update, carry, (x1, keys[:, 1], keys[:, 2]))
        none = jnp.zeros((), jnp.int32)
        bad = jnp.sum(rows.pop("num_nonfinite", none), dtype=jnp.int32)
        metrics = {name: jnp.mean(values) for name, values in rows.items()} | renewed
        metrics["num_nonfinite"] = bad + renewed.get("num_nonfinite", none)
        new = TrainState(params, ema, opt_state, stored, key, state.iteration + 1, count)
        return lay_out_state(new), constrain(metrics, mesh, PartitionSpec())

    return Trainer(init, step)


def _spec_of_stored(leaf: Any) -> PartitionSpec:
    """What a source keeps: arrays over the `states` axis, counters on every device."""
    return PartitionSpec("states") if leaf.ndim else PartitionSpec()


def lay_out(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None,
    param_spec_fn: SpecFn = replicated,
) -> TrainState:
    """The state in a compiled step, laid out: parameters, their averages and moments by `param_spec_fn(path, shape)`,
    what the source keeps (`buffer`) over the axis `states`, the rest on every device; unchanged without a mesh.
    """
    if mesh is None:
        return state

    def of_param(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, param_spec_fn(name, leaf.shape))

    everywhere = NamedSharding(mesh, PartitionSpec())
    params = jax.tree_util.tree_map_with_path(of_param, state.params)
    if param_spec_fn is replicated:
        # optax does not find the parameters in the state of every optimiser; here it need not
        opt_state = jax.tree.map(lambda _: everywhere, state.opt_state)
    else:
        opt_state = optax.tree_map_params(
            optimizer, lambda _, s: s, state.opt_state, params, transform_non_params=lambda _: everywhere
        )
    buffer = jax.tree.map(lambda a: NamedSharding(mesh, _spec_of_stored(a)), state.buffer)
    rest: Any = [everywhere] * 3
    layout = TrainState(params, params, opt_state, buffer, *rest)
    return jax.lax.with_sharding_constraint(state, layout)


def geometric_temper(start: float, num_iterations: int) -> Callable[[jax.Array], jax.Array]:
    """`start^(1 - n / num_iterations)` up to 1: equal factors an iteration; constant 1 where `num_iterations` is zero.

    For energies of orders of magnitude, whose modes part at a `temper` far below one. Raises `ValueError` for a `start`
    outside `(0, 1]`.
    """
    if not 0 < start <= 1:
        raise ValueError(f"start: a fraction above 0 and at most 1, got {start}")

    def temper(iteration: jax.Array) -> jax.Array:
        if num_iterations == 0:
            return jnp.ones(())
        return start ** jnp.maximum(0.0, 1.0 - iteration / num_iterations)

    return temper


def linear_temper(start: float, num_iterations: int) -> Callable[[jax.Array], jax.Array]:
    """A ramp of `temper` from `start` to 1 over `num_iterations`; constant 1 where that is zero."""
    if not 0 <= start <= 1:
        raise ValueError(f"start: a fraction in [0, 1], got {start}")

    def temper(iteration: jax.Array) -> jax.Array:
        if num_iterations == 0:
            return jnp.ones(())
        return jnp.minimum(1.0, start + (1.0 - start) * iteration / num_iterations)

    return temper
