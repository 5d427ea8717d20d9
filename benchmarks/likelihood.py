"""Energies fitted to samples by maximum likelihood, with negatives from chains that do or do not mix.

    python -m benchmarks.train four-modes --dim 2 --method balanced-mle --out runs/mle

The energy tilts the Gaussian of the data's moments, or a flow fitted to data first (`--base flow --warm-updates
N`). Its negatives are chains moved by a flow that is fitted to them (`balanced-mle`), by Langevin moves alone
(`pcd`, the same as `pcd-mala`, or `pcd-ula`), or by a few of these from data (`cd`); `flow` is a flow alone,
fitted to data. Masses of modes are those of the model, by quadrature in the plane and by importance sampling
beyond, from a mixture that covers the modes, or for digits from the flow; never a histogram of chains, which is
printed beside them. Samples are draws of flow and base, where a flow follows the energy, or of the base, with
their weights.

A model of this kind has one level, the data's own, so `lowest_level_kl` is KL(true, model) and `lowest_level_ess`
the ESS of its density at exact draws; both are null for digits, whose density nobody knows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from egmjax import ebm
from egmjax.networks import ResidualMLP
from egmjax.proposals import Density, defensive_mixture

from .digits_report import evaluate_digits
from .energy_report import write_model
from .energy_runs import (
    BALANCED,
    FROZEN,
    FittedFlowOptions,
    NegativesOptions,
    check_energy_run,
    fitted_flow,
    flow_trainer,
    goes_on,
    likelihood_parts,
    make_flow,
    run_energy,
)
from .laws import Law, LawOptions, draw_data, make_law
from .likelihood_report import Setup, evaluate, weighted_draws
from .skewed_digits import SkewedDigits

SHOWN = ("loss", "loss_sampler", "acceptance_global", "acceptance_local", "ess", "log_z", "log_z_upper")
SUMMARY = (
    *(
        "model_mass_tv",
        "model_mass_kl",
        "lowest_level_kl",
        "lowest_level_ess",
        "chain_tv",
        "log_z",
        "log_z_lower",
        "log_z_upper",
    ),
    *("model_mass_tv_held_out", "held_out_mass_tv", "mass_noise", "proposal_mass_tv", "fitted_mass_tv"),
    *("chain_mass_tv", "nll", "fitted_nll", "nll_train", "ess", "largest_weight", "pareto_k", "sample_ess"),
)


@dataclass(kw_only=True)
class LikelihoodOptions(LawOptions, FittedFlowOptions, NegativesOptions):
    """Options of the run."""

    target: Annotated[str, tyro.conf.Suppress] = "four-modes"
    method: Literal["balanced-mle", "pcd", "pcd-mala", "pcd-ula", "cd", "flow"] = "balanced-mle"
    """Where negatives come from; pcd is pcd-mala, flow is no energy at all."""
    num_local: int = 5
    """Langevin moves an update."""
    step_size: float = 0.01
    """Of Langevin moves at first, in squared units of the data's least scale; ULA keeps it."""
    num_candidates: int = 8
    """Of i-SIR, the present state included."""
    base: Literal["gaussian", "flow"] = "gaussian"
    """What the energy tilts: the Gaussian of the data's moments, or the flow that was fitted first."""
    num_eval: int = 50_000
    """Draws of the importance sampling."""
    num_annealed: int = 0
    """Langevin moves of each draw on the way from flow to model (annealed importance sampling); of digits alone."""


def check(options: LikelihoodOptions) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    check_energy_run(options, counts=("num_samples", "flow_layers", "flow_width"), positive=("step_size",))
    if options.dim < 2:
        raise ValueError(f"dim: at least 2, got {options.dim}")
    for name in ("warm_updates", "num_annealed"):
        if getattr(options, name) < 0:
            raise ValueError(f"{name}: not negative, got {getattr(options, name)}")
    if options.num_annealed > 0 and options.target != "digits-skewed":
        raise ValueError("num_annealed: for digits alone, the masses of the others need no moves")
    if options.num_annealed > 0 and options.method == "flow":
        raise ValueError("num_annealed: a flow alone needs no moves")
    if options.base == "flow" and options.warm_updates == 0 and options.method != "flow":
        raise ValueError("base: a flow that was fitted first needs warm_updates above 0")


def build(options: LikelihoodOptions) -> Setup:
    """Composes the run; nothing is standardised, Gaussian base and flow have the data's moments."""
    key_data, _, _, _ = jax.random.split(jax.random.key(options.seed), 4)
    law = make_law(options)
    data = draw_data(law, key_data, options.num_data, options.seed)
    mean, scale = ebm.moments(data)
    gaussian = ebm.gaussian_flow(mean, scale)
    space: Any = law.space
    flow = make_flow(options, mean, scale)
    if options.method == "flow":
        return _flow_alone(options, law, data, gaussian, flow)

    network = ResidualMLP(space, (), width=options.width, depth=options.depth, use_time=False)
    zero = jnp.zeros(())
    balanced, warm = options.method == BALANCED, options.warm_updates > 0
    base = flow if options.base == "flow" else gaussian

    def base_params(params: Any) -> Any:
        return params[FROZEN] if options.base == "flow" else ()

    def energy(params: Any, z: jax.Array) -> jax.Array:
        return network.apply(params, z, zero)  # type: ignore[return-value]

    def tilted(params: Any) -> ebm.TiltedEnergy:
        return ebm.tilted_energy(energy, base, base_params(params), units=(mean, scale))

    def log_density(params: Any, x: jax.Array) -> jax.Array:
        return tilted(params).log_density(params["energy"], x)

    def reweighted(params: Any) -> Density:
        """The flow that knows most of the model, and the base."""
        wide, share = ebm.flow_density(base, base_params(params)), options.defensive
        known = params.get("sampler", None if base is flow else params.get(FROZEN))
        if known is None:
            return wide
        return defensive_mixture((ebm.flow_density(flow, known), wide), (1.0 - share, share))

    negatives, trainer = likelihood_parts(
        options,
        space,
        data,
        ebm.tilted_energy(energy, base, units=(mean, scale)).energy,
        log_density,
        lambda params, key: base.sample(base_params(params), key),
        reweighted if balanced else None,
        ebm.flow_loss(flow),
        restart=options.method == "cd",
        local="ula" if options.method == "pcd-ula" else "mala",
        step_size=options.step_size * float(scale.min()) ** 2,
    )

    def init(seed: int, fit_first: bool = False) -> Any:
        _, key_energy, key_flow, key_train = jax.random.split(jax.random.key(seed), 4)
        params = {"energy": network.init(key_energy, jnp.zeros(space.shape), zero)}
        if balanced or warm:
            known = flow.init(key_flow)
            if fit_first and warm:
                key_fit = jax.random.fold_in(key_train, 1)
                known = fitted_flow(options, data, space, flow, known, key_fit, options.batch_size)
            params |= ({"sampler": known} if balanced else {}) | ({FROZEN: known} if warm else {})
        return trainer.init(key_train, params)

    return Setup(
        law=law,
        base=gaussian,
        trainer=trainer,
        init=init,
        start=lambda seed: init(seed, fit_first=True),
        log_density=log_density,
        proposal=reweighted if balanced else None,
        reweighted=reweighted,
        negatives=negatives,
        fitted=flow if warm else None,
    )


def _flow_alone(
    options: LikelihoodOptions,
    law: Law,
    data: np.ndarray,
    base: ebm.NormalizingFlow,
    flow: ebm.NormalizingFlow,
) -> Setup:
    trainer, _ = flow_trainer(options, data, law.space, flow, options.num_updates, options.batch_size)

    def init(seed: int) -> Any:
        _, key_flow, _, key_train = jax.random.split(jax.random.key(seed), 4)
        return trainer.init(key_train, flow.init(key_flow))

    def density(params: Any) -> Density:
        return ebm.flow_density(flow, params)

    return Setup(law, base, trainer, init, init, flow.log_prob, density, density, None, None)


def run(options: LikelihoodOptions, setup: Setup) -> dict[str, Any]:
    """Trains, evaluates, writes the folder `options.out`, prints a summary and returns the report."""

    def found(state: Any) -> dict[str, Any]:
        params, chains = state.ema_params, state.buffer if setup.negatives is not None else None
        draws: dict[str, Any] = {"num_eval": options.num_eval, "seed": options.seed}
        if isinstance(setup.law, SkewedDigits):
            draws |= {"num_annealed": options.num_annealed, "out": options.out}
            return evaluate_digits(setup, params, chains, **draws)
        report = evaluate(setup, params, chains, **draws)
        key_data, key_draws = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), 5))
        x, log_weight = weighted_draws(setup, params, key_draws, options.num_samples)
        data = draw_data(setup.law, key_data, options.num_samples, options.seed)
        title = f"{options.target}, {options.method}"
        model = functools.partial(setup.log_density, params)
        return report | write_model(
            options.out, title, setup.law, setup.law, data, x, log_weight, model, report
        )

    state = (setup.init if goes_on(options) else setup.start)(options.seed)
    return run_energy(options, setup.trainer, state, found, shown=SHOWN, summary=SUMMARY)
