"""One train step for every process, proposal, estimator, network and optimiser.

An iteration rolls out the present model, adds the samples and their exact log-weights to a replay buffer, and
makes `updates_per_iteration` gradient steps on examples drawn from it. The whole iteration is one compiled
function of the state; nothing in it depends on which modality, process or objective it serves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..estimators import PsiFn
from ..mcmc import RefreshFn
from ..processes import Process
from ..simulators import Rollout, Sampler
from ._buffer import BufferState, ReplayBuffer
from ._objectives import ApplyFn, Context, Objective
from ._sharding import constrain


class TrainState(NamedTuple):
    """Everything an iteration reads and writes; a pytree of arrays, and all that a checkpoint holds."""

    params: Any
    ema_params: Any
    opt_state: optax.OptState
    buffer: BufferState
    key: jax.Array
    iteration: jax.Array
    num_updates: jax.Array


class Trainer(NamedTuple):
    """`init(key, params) -> TrainState` and `step(state) -> (state, metrics)`, both pure."""

    init: Callable[[jax.Array, Any], TrainState]
    step: Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]]


def make_trainer(
    process: Process,
    sampler: Sampler,
    objective: Objective,
    buffer: ReplayBuffer,
    psi_fn: PsiFn,
    apply_fn: ApplyFn,
    optimizer: optax.GradientTransformation,
    *,
    num_rollouts: int = 512,
    batch_size: int = 512,
    updates_per_iteration: int = 8,
    ema_decay: float = 0.99,
    temper_fn: Callable[[jax.Array], jax.Array] = lambda iteration: jnp.ones(()),
    last_time: float = 0.999,
    refresh: RefreshFn | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Trainer:
    """Composes a trainer.

    An iteration makes `num_rollouts` samples and `updates_per_iteration` gradient steps of `batch_size` states.
    `temper_fn(iteration)` scales `psi` in the buffer's weights and in the objective. Times are stratified over
    `[0, last_time)`: close to 1 the hazard of a masked site, 1 / (1 - t), is all noise. Roll-outs and objectives use
    the exponential moving average of the parameters (bias-corrected: decay `min(ema_decay, (1+n)/(10+n))`). With a
    `mesh`, roll-outs and batches are sharded over its first axis and parameters replicated. Metrics are scalars:
    `loss`, `grad_norm`; `ess_fraction`, `log_z` and `elbo` of the fresh roll-outs under the untempered target;
    `num_nonfinite`, `temper`, and the objective's own. `refresh(key, x, log_density_fn)`, e.g. `mcmc.refreshing_moves`,
    moves buffered states by kernels of the tempered target before they are learned from: they may find what
    the model has not, and the run then learns from MCMC too. Raises `ValueError` for a count below one.
    """
    for name, value in (
        ("num_rollouts", num_rollouts),
        ("batch_size", batch_size),
        ("updates_per_iteration", updates_per_iteration),
    ):
        if value < 1:
            raise ValueError(f"{name}: at least 1, got {value}")

    def init(key: jax.Array, params: Any) -> TrainState:
        example = process.path.sample_prior(jax.random.key(0))
        state = TrainState(
            params, params, optimizer.init(params), buffer.init(example), key, jnp.int32(0), jnp.int32(0)
        )
        return jax.tree.map(jnp.copy, state)  # every leaf its own storage, since the state is donated

    def roll_out(key: jax.Array, params: Any) -> tuple[Rollout, jax.Array]:
        keys = constrain(jax.random.split(key, num_rollouts), mesh)
        rollouts = jax.vmap(lambda k: sampler.sample(k, lambda x, t: apply_fn(params, x, t)))(keys)
        with jax.default_matmul_precision("highest"):
            psi = jax.vmap(lambda x: psi_fn(x, 1.0))(rollouts.x)
        return rollouts, psi

    def log_density(x: Any, temper: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return temper * psi_fn(x, 1.0) + process.path.log_reference(x, 1.0)

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        return jnp.mean(jax.vmap(lambda example: objective.loss(params, example))(batch))

    def step(state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        key, key_rollout, key_updates = jax.random.split(state.key, 3)
        temper = temper_fn(state.iteration)
        rollouts, psi = roll_out(key_rollout, state.ema_params)
        stored = buffer.add(state.buffer, rollouts, psi)

        def update(carry: tuple, key_n: jax.Array) -> tuple:
            params, ema, opt_state, count = carry
            key_draw, key_time, key_examples = jax.random.split(key_n, 3)
            x1 = constrain(buffer.draw(key_draw, stored, batch_size, temper), mesh)
            if refresh is not None:
                keys = jax.random.split(jax.random.fold_in(key_draw, 1), batch_size)
                x1 = jax.vmap(lambda k, x: refresh(k, x, lambda y: log_density(y, temper)))(keys, x1)
            strata = jax.random.permutation(jax.random.fold_in(key_time, 1), batch_size)
            t = (strata + jax.random.uniform(key_time, (batch_size,))) * (last_time / batch_size)
            context = Context(ema, temper, state.iteration)
            batch, info = objective.examples(key_examples, context, x1, t)
            loss, gradient = jax.value_and_grad(loss_fn)(params, jax.lax.stop_gradient(batch))
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
            decay = jnp.minimum(ema_decay, (1.0 + count) / (10.0 + count))
            ema = jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema, params)
            info = {"loss": loss, "grad_norm": optax.tree.norm(gradient), **info}
            return (params, ema, opt_state, count + 1), info

        carry = (state.params, state.ema_params, state.opt_state, state.num_updates)
        keys = jax.random.split(key_updates, updates_per_iteration)
        rows: dict[str, jax.Array]
        (params, ema, opt_state, count), rows = jax.lax.scan(update, carry, keys)
        bad = rows.pop("num_nonfinite", jnp.zeros((), jnp.int32))
        metrics = {name: jnp.mean(values) for name, values in rows.items()}
        log_w = psi + rollouts.log_weight
        finite = jnp.isfinite(log_w)
        metrics["num_nonfinite"] = jnp.sum(bad, dtype=jnp.int32) + jnp.sum(~finite, dtype=jnp.int32)
        metrics |= _weight_metrics(jnp.where(finite, log_w, -jnp.inf))
        metrics["temper"] = temper
        new = TrainState(params, ema, opt_state, stored, key, state.iteration + 1, count)
        return new, metrics

    return Trainer(init, step)


def linear_temper(start: float, num_iterations: int) -> Callable[[jax.Array], jax.Array]:
    """A ramp of `temper` from `start` to 1 over `num_iterations`; constant 1 where that is zero."""
    if not 0 <= start <= 1:
        raise ValueError(f"start: a fraction in [0, 1], got {start}")

    def temper(iteration: jax.Array) -> jax.Array:
        if num_iterations == 0:
            return jnp.ones(())
        return jnp.minimum(1.0, start + (1.0 - start) * iteration / num_iterations)

    return temper


def _weight_metrics(log_w: jax.Array) -> dict[str, jax.Array]:
    num = log_w.shape[0]
    log_sum = jax.nn.logsumexp(log_w)
    log_squares = jax.nn.logsumexp(2.0 * log_w)
    return {
        "ess_fraction": jnp.where(jnp.isfinite(log_sum), jnp.exp(2.0 * log_sum - log_squares) / num, 0.0),
        "log_z": log_sum - jnp.log(num),
        "elbo": jnp.mean(log_w),
    }
