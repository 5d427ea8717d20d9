"""Training objectives: from states of a source to regression examples and their losses.

    weighted   x_1 drawn in proportion to w = exp(-E) / q, target the conditional one given x_1
               rows of data have equal weights: conditional generator matching (CGM)
    snis       x_t ~ p_{t|1}(. | x_1), target the self-normalised estimate of K proposals      (EGM, Woo et al.)
               with a learned psi also at r < 1: bootstrapping
    multispin  the same for masked sites of two symbols, with 32 proposals in each word
    psi        regression of the noised log-density psi(x_t, t) on importance-sampled estimates of it
    from_psi   target computed from a learned psi, without sampling
    sum        several of these at once

`weighted` is generator matching under the target itself: no bias from a finite K at each state, one roll-out
serves every `t`, and one energy evaluation a sample. It learns from its own weights, so it wants them tempered
while they are poor. `snis` explores with the proposal and needs K evaluations a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from ..estimators import PsiFn, SNISEstimate, multispin_snis, snis
from ..estimators._multispin import words_of_chunk
from ..losses import linex, squared_error
from ..paths import Path
from ..processes import MaskedProcess, Process
from ..proposals import Proposal
from ..sharding import constrain
from ._couplings import Coupling

ApplyFn = Callable[[Any, Any, jax.Array], Any]  # (params, xt, t) -> raw prediction, one state
PsiApplyFn = Callable[[Any, Any, Any], jax.Array]  # (params, x, t) -> learned psi, a scalar, one state
# unnormalised weights are capped at exp(3): a state whose psi is badly known must not dominate
MAX_LOG_RATIO = 3.0


class Examples(NamedTuple):
    """A batch for regression: `xt`, `t [batch]`, `target`, `weight [batch]` (zero where there is no target)."""

    xt: Any
    t: jax.Array
    target: Any
    weight: jax.Array


class Context(NamedTuple):
    """What an iteration fixes: averaged `params` (no gradient), `temper` in `[0, 1]` scaling `psi`, `iteration`."""

    params: Any
    temper: jax.Array
    iteration: jax.Array


class Objective(NamedTuple):
    """`examples(key, context, x1, t) -> (batch, info)` and `loss(params, example) -> scalar` for one of the batch.

    `weighted` says how the buffer is to be drawn from; `num_energies` counts evaluations for each example.
    """

    examples: Callable[[jax.Array, Context, Any, jax.Array], tuple[Any, dict[str, jax.Array]]]
    loss: Callable[[Any, Any], jax.Array]
    weighted: bool
    num_energies: int


def weighted_objective(
    process: Process,
    apply_fn: ApplyFn,
    *,
    site_energies_fn: Callable[[Any], jax.Array] | None = None,
    coupling: Coupling | None = None,
    weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
) -> Objective:
    """Regression on conditional targets of samples drawn in proportion to their importance weights, or of data.

    From a `data_source` it is conditional generator matching, `E D(F(x_t | x_1), F_theta(x_t, t))`, whose gradient is
    that of the intractable loss against the marginal generator (Generator Matching, Proposition 2).

    `site_energies_fn(x1) -> [sites, S]` (e.g. `Target.site_energies`) replaces one-hot symbols by the law of each
    site given the others: the same mean, less variance. `weight_fn(t)` weights the divergence.

    `coupling(key, x1) -> x0`, e.g. `transport_coupling(path)`, joins each state to a prior state of its own:
    `x_t = path.interpolate(x0, x1)`, on a Gaussian path `sigma_t x_0 + alpha_t x_1`. Targets stay what they are;
    `x_t` given `x_1` is no longer the path's `p_{t|1}`. Determinants of a flow, so its weights, remain exact. What
    rests on `p_{t|1}` does not: reference posteriors as proposals, SNIS, a learned `psi`, noise added afterwards.
    Raises `ValueError` for a coupling of a process that does not follow it.
    """
    path = process.path
    if coupling is not None and not process.follows_couplings:
        raise ValueError(
            f"coupling: a {type(process).__name__} needs x_0 and x_1 independent; flows and masked jumps do not"
        )

    def noised(key: jax.Array, x1: Any, t: jax.Array) -> Any:
        if coupling is None:
            return jax.vmap(path.sample)(jax.random.split(key, t.shape[0]), x1, t)
        key_couple, key_path = jax.random.split(key)
        keys = jax.random.split(key_path, t.shape[0])
        return jax.vmap(path.interpolate)(keys, coupling(key_couple, x1), x1, t)

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Examples, dict]:
        xt = noised(key, x1, t)
        if site_energies_fn is None:
            target = jax.vmap(process.target)(xt, x1, t)
        else:
            with jax.default_matmul_precision("highest"):
                logits = -context.temper * jax.vmap(site_energies_fn)(x1)
            target = jax.vmap(process.conditional_target)(xt, x1, t, logits)
        return Examples(xt, t, target, jnp.ones_like(t)), {}

    return Objective(examples, _divergence(process, apply_fn, weight_fn), weighted=True, num_energies=0)


def snis_objective(
    process: Process,
    apply_fn: ApplyFn,
    proposal: Proposal | Callable[[Any], Proposal],
    psi_fn: PsiFn,
    *,
    num_proposals: int,
    chunk_size: int | None = None,
    psi_apply_fn: PsiApplyFn | None = None,
    step_fn: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    self_normalized: bool = True,
    site_energies_fn: Callable[[Any], jax.Array] | None = None,
    weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
    mesh: Mesh | None = None,
) -> Objective:
    """Regression on importance-sampled estimates of the generator; see `estimators.snis`.

    `proposal` may be a function of the parameters, for proposals made of the model. `step_fn(t, iteration)` bootstraps:
    `r = min(t + step, 1)`, with `psi_apply_fn` for `psi` at `r < 1` and the energy at `r = 1`. `self_normalized=False`
    multiplies the loss by `sum_k w_k / (K exp(psi(x_t, t)))` with the learned `psi`: the minimiser is then exact for
    every K, if that psi were; without it the estimate has a bias of order 1 / ESS. States at which no proposal had
    a finite energy get weight zero. Raises `ValueError` where a learned psi is needed and missing, for
    `num_proposals < 1`, for `site_energies_fn` together with `step_fn`, or for `step_fn` with a process whose target
    exists at `r = 1` only.
    """
    if psi_apply_fn is None and (step_fn is not None or not self_normalized):
        raise ValueError("psi_apply_fn: needed for bootstrapping and for unnormalised weights")
    if step_fn is not None and site_energies_fn is not None:
        raise ValueError("site_energies_fn: one-site conditionals are known at r=1 only, not with step_fn")
    estimates = _estimates(
        process, proposal, psi_fn, num_proposals, chunk_size, psi_apply_fn, step_fn, site_energies_fn, mesh
    )

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Examples, dict]:
        xt, result = estimates(key, context, x1, t)
        weight = (result.info.ess > 0).astype(t.dtype)
        if not self_normalized:
            assert psi_apply_fn is not None
            learned = jax.vmap(lambda x, ti: psi_apply_fn(context.params, x, ti))(xt, t)
            ratio = jnp.minimum(result.log_normalizer - learned, MAX_LOG_RATIO)
            weight = weight * jnp.exp(ratio)
        return Examples(xt, t, result.target, weight), _weight_info(result, num_proposals)

    loss = _divergence(process, apply_fn, weight_fn)
    return Objective(examples, loss, weighted=False, num_energies=num_proposals)


def multispin_objective(
    process: MaskedProcess,
    apply_fn: ApplyFn,
    energy_fn: Callable[[jax.Array], jax.Array],
    *,
    num_proposals: int,
    chunk_size: int | None = None,
    weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
    mesh: Mesh | None = None,
) -> Objective:
    """`snis_objective` of two-valued sites with uniform completions as proposals, several times faster.

    The same law of the examples. `energy_fn(words [sites, n]) -> [32, n]`, e.g. `Target.multispin_energy`; see
    `estimators.multispin_snis`, which also names the errors.
    """
    path = process.path
    words_of_chunk(chunk_size)  # raises before anything is traced

    def examples(key: jax.Array, context: Context, x1: jax.Array, t: jax.Array) -> tuple[Examples, dict]:
        key_path, key_snis = jax.random.split(key)
        xt = jax.vmap(path.sample)(jax.random.split(key_path, t.shape[0]), x1, t)

        def estimate(key_i: jax.Array, x: jax.Array, ti: jax.Array) -> SNISEstimate:
            return multispin_snis(
                key_i,
                x,
                ti,
                path=path,
                energy_fn=lambda words: context.temper * energy_fn(words),
                num_proposals=num_proposals,
                chunk_size=chunk_size,
                mesh=mesh,
            )

        result = _over_states(estimate, mesh)(jax.random.split(key_snis, t.shape[0]), xt, t)
        weight = (result.info.ess > 0).astype(t.dtype)
        return Examples(xt, t, result.target, weight), _weight_info(result, num_proposals)

    loss = _divergence(process, apply_fn, weight_fn)
    return Objective(examples, loss, weighted=False, num_energies=num_proposals)


def psi_objective(
    process: Process,
    psi_apply_fn: PsiApplyFn,
    proposal: Proposal | Callable[[Any], Proposal],
    psi_fn: PsiFn,
    *,
    num_proposals: int,
    chunk_size: int | None = None,
    step_fn: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    divergence: Literal["linex", "squared"] = "linex",
    weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
    mesh: Mesh | None = None,
) -> Objective:
    """Regression of `psi_apply_fn(params, xt, t)` on `y = log (1/K) sum_k w_k`, the estimate of `psi(xt, t)`.

    "linex", `exp(y - f) - (y - f) - 1`, has its minimum where `exp(f) = E exp(y)`: unbiased for every K. "squared" fits
    `E[y]`, which is low by Jensen's inequality, most where ESS is small. `step_fn` bootstraps the label with the
    averaged parameters, as in `snis_objective`. Raises `ValueError` for `num_proposals < 1` or another divergence.
    """
    if divergence not in ("linex", "squared"):
        raise ValueError(f'divergence: expected "linex" or "squared", got {divergence!r}')
    distance = linex if divergence == "linex" else squared_error
    estimates = _estimates(
        process, proposal, psi_fn, num_proposals, chunk_size, psi_apply_fn, step_fn, mesh=mesh
    )

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Examples, dict]:
        xt, result = estimates(key, context, x1, t)
        usable = result.info.ess > 0
        label = jnp.where(usable, result.log_normalizer, 0.0)
        return Examples(xt, t, label, usable.astype(t.dtype)), _weight_info(result, num_proposals)

    def loss(params: Any, example: Examples) -> jax.Array:
        value = psi_apply_fn(params, example.xt, example.t)
        return example.weight * weight_fn(example.t) * distance(example.target, value)

    return Objective(examples, loss, weighted=False, num_energies=num_proposals)


def from_psi_objective(
    process: Process,
    apply_fn: ApplyFn,
    psi_apply_fn: PsiApplyFn,
    *,
    weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
) -> Objective:
    """Regression on `process.target_from_psi`: the generator that a learned `psi` implies, with no sampling noise."""
    path = process.path

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Examples, dict]:
        xt = jax.vmap(path.sample)(jax.random.split(key, t.shape[0]), x1, t)

        def implied(x: Any, ti: jax.Array) -> Any:
            return process.target_from_psi(x, ti, lambda y: psi_apply_fn(context.params, y, ti))

        return Examples(xt, t, jax.vmap(implied)(xt, t), jnp.ones_like(t)), {}

    return Objective(examples, _divergence(process, apply_fn, weight_fn), weighted=False, num_energies=0)


def sum_objectives(
    objectives: Mapping[str, Objective],
    weights: Mapping[str, float | Callable[[jax.Array], jax.Array]] | None = None,
) -> Objective:
    """`sum_n weight_n loss_n` on the same states, each weight a number, or a function of the iteration.

    States are drawn by weight if any objective needs it; the others may learn anywhere, and then learn there. Examples
    may be of any kind and number, single states or groups: a whole batch of each is one example of the sum. Every
    loss is computed, also those of weight zero; to have objectives take turns `fit` one trainer after another. Metrics
    carry the name of their objective. Raises `ValueError` for weights of unknown names.
    """
    weights = dict(weights or {})
    unknown = set(weights) - set(objectives)
    if unknown or not objectives:
        raise ValueError(
            f"weights: unknown objectives {sorted(unknown)}, expected some of {sorted(objectives)}"
        )

    def share(name: str, iteration: jax.Array) -> jax.Array:
        weight = weights.get(name, 1.0)
        return jnp.asarray(weight(iteration) if callable(weight) else weight, dtype=float)

    def examples(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Any, dict]:
        batches: dict[str, Any] = {}
        info: dict[str, jax.Array] = {}
        for (name, objective), key_n in zip(objectives.items(), jax.random.split(key, len(objectives))):
            batch, more = objective.examples(key_n, context, x1, t)
            batches[name] = jax.tree.map(lambda a: a[None], (batch, share(name, context.iteration)))
            bad = more.pop("num_nonfinite", 0)
            info["num_nonfinite"] = info.get("num_nonfinite", jnp.zeros((), jnp.int32)) + bad
            info |= {f"{name}_{label}": value for label, value in more.items()}
        return batches, info

    def loss(params: Any, example: Any) -> jax.Array:
        def mean(name: str, batch: Any) -> jax.Array:
            return jnp.mean(jax.vmap(lambda e: objectives[name].loss(params, e))(batch))

        parts = [weight * mean(name, batch) for name, (batch, weight) in example.items()]
        return sum(parts, start=jnp.zeros(()))

    weighted = any(o.weighted for o in objectives.values())
    return Objective(examples, loss, weighted, sum(o.num_energies for o in objectives.values()))


def _divergence(process: Process, apply_fn: ApplyFn, weight_fn: Callable) -> Callable[[Any, Any], jax.Array]:
    def loss(params: Any, example: Examples) -> jax.Array:
        prediction = apply_fn(params, example.xt, example.t)
        divergence = process.divergence(example.target, prediction, example.xt, example.t)
        return example.weight * weight_fn(example.t) * divergence

    return loss


def _estimates(
    process: Process,
    proposal: Proposal | Callable[[Any], Proposal],
    psi_fn: PsiFn,
    num_proposals: int,
    chunk_size: int | None,
    psi_apply_fn: PsiApplyFn | None,
    step_fn: Callable[[jax.Array, jax.Array], jax.Array] | None,
    site_energies_fn: Callable[[Any], jax.Array] | None = None,
    mesh: Mesh | None = None,
) -> Callable[[jax.Array, Context, Any, jax.Array], tuple[Any, SNISEstimate]]:
    """`(key, context, x1, t) -> (xt, estimate)`: a batch noised to its times, and `snis` at each of its states."""
    path = process.path
    if step_fn is not None and not process.can_bootstrap:
        raise ValueError("step_fn: the target of this process exists at r=1 only, it cannot be bootstrapped")
    if num_proposals < 1:
        raise ValueError(f"num_proposals: at least 1, got {num_proposals}")

    def estimates(key: jax.Array, context: Context, x1: Any, t: jax.Array) -> tuple[Any, SNISEstimate]:
        key_path, key_snis = jax.random.split(key)
        xt = jax.vmap(path.sample)(jax.random.split(key_path, t.shape[0]), x1, t)
        where = proposal if isinstance(proposal, Proposal) else proposal(context.params)
        psi = _psi_at_any_time(path, psi_fn, psi_apply_fn if step_fn else None, context)
        site_logits_fn = None
        if site_energies_fn is not None:
            site_logits_fn = lambda x: -context.temper * site_energies_fn(x)  # noqa: E731

        def estimate(key_i: jax.Array, x: Any, ti: jax.Array) -> SNISEstimate:
            return snis(
                key_i,
                x,
                ti,
                1.0 if step_fn is None else jnp.minimum(ti + step_fn(ti, context.iteration), 1.0),
                process=process,
                proposal=where,
                psi_fn=psi,
                num_proposals=num_proposals,
                chunk_size=chunk_size,
                site_logits_fn=site_logits_fn,
                mesh=mesh,
            )

        return xt, _over_states(estimate, mesh)(jax.random.split(key_snis, t.shape[0]), xt, t)

    return estimates


def _over_states(estimate: Callable[..., SNISEstimate], mesh: Mesh | None) -> Callable[..., SNISEstimate]:
    """`estimate` of a batch: states over their axis while proposals have the other one, over all devices after."""

    def batched(*arguments: Any) -> SNISEstimate:
        by_states = None if mesh is None else PartitionSpec("states")
        return constrain(jax.vmap(estimate)(*constrain(arguments, mesh, by_states)), mesh)

    return batched


def _psi_at_any_time(path: Path, psi_fn: PsiFn, psi_apply_fn: PsiApplyFn | None, context: Context) -> PsiFn:
    """The tempered `psi` of the energy at `r = 1`, the learned one before, where there is one."""

    def exact(x: Any, r: Any) -> jax.Array:
        return context.temper * psi_fn(x, 1.0)

    if psi_apply_fn is None:
        return exact

    def either(x: Any, r: Any) -> jax.Array:
        # both are computed; the energy is not to see a mask
        return jnp.where(r >= 1, exact(path.as_data(x), r), psi_apply_fn(context.params, x, r))

    return either


def _weight_info(result: SNISEstimate, num_proposals: int) -> dict[str, jax.Array]:
    return {
        "snis_ess": jnp.mean(result.info.ess) / num_proposals,
        "snis_largest_weight": jnp.mean(result.info.largest_weight),
        "num_nonfinite": jnp.sum(result.info.num_nonfinite),
    }
