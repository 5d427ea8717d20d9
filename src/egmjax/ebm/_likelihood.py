"""Maximum likelihood of energies, balanced by a flow or another sampler that is fitted to the negative samples.

    p(x) = exp(-E(x)) base(x) / Z
    grad NLL     = E_data[grad E] - E_model[grad E]                              of the energy
    loss of flow = -(1 - a) mean_i log flow(X_i) - a mean_b log flow(x_b)        X_i chains, x_b data

(Grenioux, Moulines and Gabrie, 2023.) Flow and energy start at the same Gaussian, where all global moves are accepted,
and change together: the flow makes the chains mix between modes, so that negatives carry the model's masses. On symbols
the flow's place is taken by roll-outs of a masked jump model, with `log_ratio` of its `PathProposal` for `-log flow`.

An update moves the chains under the present parameters, then makes one gradient step for both. `training.make_trainer`
renews its source with averaged parameters once for many updates, which will not do for persistent chains; hence a step
of its own, with the same state, so that loop, metrics and checkpoints (`training.fit`) are shared. A flow alone is
`flow_objective` in `training.make_trainer`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from ..sharding import check_divides, constrain, value_and_grad_by_device
from ..training import Checkpoints, Context, Objective, Source, Trainer, TrainState, lay_out
from ._chains import DensityApplyFn, Negatives
from ._flows import NormalizingFlow

TERMS = ("energy", "penalty", "sampler")
SamplerLossFn = Callable[[Any, jax.Array, Any], jax.Array]  # (params, key, x) -> loss at one state


class TiltedEnergy(NamedTuple):
    """`energy(params, x) -> scalar`, relative to the base, and `log_density(params, x)`, unnormalised."""

    energy: DensityApplyFn
    log_density: DensityApplyFn


def tilted_energy(
    energy_fn: DensityApplyFn, base: NormalizingFlow, base_params: Any = (), *, units: Any = None
) -> TiltedEnergy:
    """`log p(x) = -E(params, x) + log base(x) - log Z`: integrable whatever a network of linear growth says, and the
    base itself where `E = 0`.

    `base` is a Gaussian or a trained flow, held fixed. `units = (mean, scale)`, each `[d]`: what `energy_fn` sees is
    `(x - mean) / scale`, of order one.
    """

    def energy(params: Any, x: jax.Array) -> jax.Array:
        if units is None:
            return energy_fn(params, x)
        mean, scale = (jnp.asarray(a, x.dtype) for a in units)
        return energy_fn(params, (x - mean) / scale)

    def log_density(params: Any, x: jax.Array) -> jax.Array:
        return base.log_prob(base_params, x) - energy(params, x)

    return TiltedEnergy(energy, log_density)


def likelihood_trainer(
    energy_fn: DensityApplyFn,
    source: Source,
    negatives: Negatives,
    optimizer: optax.GradientTransformation,
    *,
    sampler_loss_fn: SamplerLossFn | None = None,
    data_share: float = 0.0,
    energy_penalty: float = 0.0,
    batch_size: int = 256,
    updates_per_iteration: int = 50,
    ema_decay: float = 0.999,
    mesh: Mesh | None = None,
) -> Trainer:
    """A trainer of `params = {"energy": ..., "sampler": ...}` for `training.fit`; its state keeps chains as `buffer`.

    Args:
        energy_fn: `(params["energy"], x) -> E(x)`; the base has no parameters, so its density does not matter here.
        source: Of data, `training.data_source`.
        negatives: `chain_negatives` of the same model, as a function of the whole of `params`.
        optimizer: For all parameters.
        sampler_loss_fn: `(params["sampler"], key, x) -> scalar`, the loss at a state of what is fitted to the chains:
            `flow_loss(flow)`, `log_ratio(key, x)` of a `PathProposal`, or the divergence of a process. `None` for
            chains that know no sampler (`params` needs no `"sampler"` then).
        data_share: `a` above, in [0, 1]: data in the sampler's loss, which finds modes the chains have lost.
        energy_penalty: `c` of `c (mean E(data)^2 + mean E(chains)^2)`, which keeps energies of chains that do not mix
            from diverging and biases the model. Zero is maximum likelihood.
        batch_size: Data an update.
        updates_per_iteration: Updates in one compiled call.
        ema_decay: Of the averaged parameters, corrected for the start as in `training.make_trainer`.
        mesh: `sharding.state_mesh()`: data are split over all devices, chains over the axis `states`, and each
            device has a copy of the parameters; they exchange gradients and scalars. Losses are those of one device up
            to rounding, until that flips an acceptance.

    Raises:
        ValueError: A number out of its range; data or chains that cannot be split evenly.

    Metrics are means over the updates of a call: `loss_energy` (near zero and no measure of fit), `loss_penalty`,
    `loss_sampler`, `loss`, `grad_norm`, those of the chains, and `failed_update`, the first one with a
    loss or gradient that is not finite, or -1. Such an update is not made, so parameters stay the last good ones.
    `stop_on_divergence` makes it an error.
    """
    for name, value in (("batch_size", batch_size), ("updates_per_iteration", updates_per_iteration)):
        if value < 1:
            raise ValueError(f"{name}: at least 1, got {value}")
    if not 0 <= data_share <= 1:
        raise ValueError(f"data_share: between 0 and 1, got {data_share}")
    if not 0 <= energy_penalty < math.inf:
        raise ValueError(f"energy_penalty: not negative and finite, got {energy_penalty}")
    check_divides(mesh, "batch_size", batch_size)

    def lay_out_state(state: TrainState) -> TrainState:
        return lay_out(state, optimizer, mesh)

    def init(key: jax.Array, params: Any) -> TrainState:
        key, key_chains = jax.random.split(key)
        chains = negatives.init(key_chains, params)
        check_divides(mesh, "num_chains", len(jax.tree.leaves(chains.position)[0]))
        state = TrainState(params, params, optimizer.init(params), chains, key, jnp.int32(0), jnp.int32(0))
        state = jax.tree.map(jnp.copy, state)  # every leaf its own storage, since the state is donated
        return state if mesh is None else jax.jit(lay_out_state)(state)

    def loss_fn(params: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        (data, data_keys), (chains, chain_keys) = batch
        positive, negative = (jax.vmap(lambda x: energy_fn(params["energy"], x))(xs) for xs in (data, chains))
        terms = {"loss_energy": jnp.mean(positive) - jnp.mean(negative)}
        if energy_penalty > 0:
            squares = jnp.mean(positive**2) + jnp.mean(negative**2)
            terms["loss_penalty"] = energy_penalty * squares
        if sampler_loss_fn is not None:
            terms["loss_sampler"] = jnp.zeros(())
            for share, keys, xs in (
                (1.0 - data_share, chain_keys, chains),
                (data_share, data_keys, data),
            ):
                if share > 0:
                    losses = jax.vmap(lambda k, x: sampler_loss_fn(params["sampler"], k, x))(keys, xs)
                    terms["loss_sampler"] += share * jnp.mean(losses)
        return sum(terms.values()), terms  # type: ignore[return-value]

    loss_and_gradient = value_and_grad_by_device(loss_fn, mesh, has_aux=True)

    def update(carry: tuple, key: jax.Array) -> tuple[tuple, dict[str, jax.Array]]:
        params, ema, opt_state, chains, count = carry
        key_data, key_chains, key_loss = jax.random.split(key, 3)
        data = constrain(source.draw(key_data, source.init(), batch_size, jnp.ones(())), mesh)
        with jax.default_matmul_precision("highest"):
            chains, metrics = negatives.advance(key_chains, chains, params, data)
        position = jax.lax.stop_gradient(chains.position)
        keyed = tuple(
            (xs, jax.random.split(key_loss, len(jax.tree.leaves(xs)[0]))) for xs in (data, position)
        )
        (loss, terms), gradient = loss_and_gradient(params, keyed)
        norm = optax.tree.norm(gradient)
        fine = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, new_opt_state = optimizer.update(gradient, opt_state, params)
        decay = jnp.minimum(ema_decay, (1.0 + count) / (10.0 + count))
        new = optax.apply_updates(params, updates)
        new_ema = jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema, new)
        params, ema, opt_state = jax.tree.map(
            lambda a, b: jnp.where(fine, a, b), (new, new_ema, new_opt_state), (params, ema, opt_state)
        )
        rows = {"loss": loss, **terms, "grad_norm": norm, **metrics, "fine": fine}
        return (params, ema, opt_state, chains, count + 1), rows

    def step(state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        key, key_updates = jax.random.split(state.key)
        carry = (state.params, state.ema_params, state.opt_state, state.buffer, state.num_updates)
        carry, rows = jax.lax.scan(update, carry, jax.random.split(key_updates, updates_per_iteration))
        bad = ~rows.pop("fine")
        metrics = {name: jnp.mean(values) for name, values in rows.items()}
        metrics["failed_update"] = jnp.where(jnp.any(bad), state.num_updates + jnp.argmax(bad), -1)
        params, ema, opt_state, chains, count = carry
        new = TrainState(params, ema, opt_state, chains, key, state.iteration + 1, count)
        return lay_out_state(new), constrain(metrics, mesh, PartitionSpec())

    return Trainer(init, step)


def flow_loss(flow: NormalizingFlow) -> SamplerLossFn:
    """`-log flow(x)`, forward KL of a flow up to a constant; the key is not used."""
    return lambda params, key, x: -flow.log_prob(params, x)


def flow_objective(flow: NormalizingFlow) -> Objective:
    """`-log flow(x_1)` for `training.make_trainer`: maximum likelihood of a flow alone."""

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        return x1, {}

    def loss(params: Any, x1: jax.Array) -> jax.Array:
        return -flow.log_prob(params, x1)

    return Objective(examples, loss, False, 0)


def stop_on_divergence(checkpoints: Checkpoints | None = None) -> Callable[[dict[str, float]], None]:
    """An `on_metrics` of `training.fit` that ends a run that has diverged, and warns where chains have come to a halt.

    Raises `FloatingPointError` naming update, term and last good checkpoint at the first `failed_update`. Warns, once
    each, of `acceptance_global` below 1 percent and of an `ess` below 2, with the remedy.
    """
    told: set[str] = set()

    def warn(name: str, text: str) -> None:
        if name not in told:
            told.add(name)
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    def on_metrics(row: dict[str, float]) -> None:
        failed = row.get("failed_update", -1)
        if failed >= 0 or not math.isfinite(row.get("loss", 0.0)):
            bad = [term for term in TERMS if not math.isfinite(row.get(f"loss_{term}", 0.0))]
            bad += ["gradient" if math.isfinite(row.get("loss", 0.0)) else "loss"]
            when = (
                f"update {failed:.0f}" if failed >= 0 else f"iteration {row.get('iteration', math.nan):.0f}"
            )
            kept = None if checkpoints is None else checkpoints.latest()
            where = "there is no checkpoint" if kept is None else f"the last good checkpoint is {kept}"
            raise FloatingPointError(f"{bad[0]}: not finite at {when}; {where}; lower the learning rate")
        iteration = f"at iteration {row.get('iteration', math.nan):.0f}"
        if row.get("acceptance_global", 1.0) < 0.01:
            warn(
                "acceptance",
                f"acceptance_global: {row['acceptance_global']:.2g} {iteration}; the proposal has lost the model: more "
                "candidates (i-SIR), a wider defensive component, or a lower learning rate of the energy",
            )
        if row.get("ess", math.inf) < 2:
            warn(
                "ess",
                f"ess: {row['ess']:.2g} {iteration}; weights rest on one draw: more candidates, data in the flow's "
                "loss (data_share), or a lower learning rate of the energy",
            )

    return on_metrics
