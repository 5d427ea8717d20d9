"""Energies learned from samples by losses on levels of noise, held against the exact marginals of the law.

    python -m benchmarks.train two-modes --dim 2 --method diffclf --out runs/ebm

Trains one time-dependent energy and compares it with the exact noised law at every level. The masses of modes
are those of the model, `w_k E_{p_k}[q / p]` with exact draws of each mode `k`, never a histogram of samples.
Samples are roll-outs of the reverse diffusion that the energy's score makes, with weights to the energy of the
lowest level. Of digits there is no exact density, so masses are by reweighted draws of a flow fitted to them
(`digits_report`), and `lowest_level_kl` and `lowest_level_ess` are null.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from egmjax import ebm
from egmjax.networks import InnerProduct, ResidualMLP
from egmjax.paths import GaussianPath, VarianceExploding
from egmjax.processes import DiffusionProcess, FlowProcess
from egmjax.proposals import Density, defensive_mixture
from egmjax.sharding import check_divides
from egmjax.simulators import smc_sampler
from egmjax.targets import MixtureTarget
from egmjax.training import (
    Objective,
    Trainer,
    data_source,
    make_trainer,
    stratified_times,
    sum_objectives,
)

from . import likelihood_report
from .commands import device_mesh
from .digits_report import evaluate_digits
from .energy_report import CHUNK, write_model
from .energy_runs import (
    FROZEN,
    EnergyRunOptions,
    FittedFlowOptions,
    check_energy_run,
    clipped_adam,
    fitted_flow,
    make_flow,
    run_energy,
    updates_per_iteration,
)
from .laws import Law, LawOptions, draw_data, make_law
from .likelihood_report import ess_fraction, log_mean_exp
from .skewed_digits import SkewedDigits

SUMMARY = (
    "model_mass_tv",
    "model_mass_kl",
    "lowest_level_kl",
    "lowest_level_ess",
    "mean_ess",
    "fisher",
    "ess_fraction",
    "sample_ess",
)


@dataclass(kw_only=True)
class EnergyOptions(LawOptions, FittedFlowOptions, EnergyRunOptions):
    """Options of the run. The flow is for digits alone: draws to be weighted, as nothing else is known of them."""

    method: Literal["dsm", "tsm", "diffclf", "move-nce"] = "diffclf"
    """Score matching alone, or with time scores, classification of levels, or contrast of moves."""
    pick: Literal["random", "local", "mixed"] = "random"
    """Levels compared: any, neighbouring pairs, or half of each (diffclf only)."""
    num_picked: int = 4
    """Levels compared with each other (diffclf with random ones; else 2)."""
    max_gap: int = 4
    """How far apart neighbouring pairs may be, in levels."""
    weight: float = 1.0
    """Weight of the loss beside score matching; time scores and moves are divided by nothing else."""
    num_levels: int = 64
    """Noise levels, equally spaced in log-SNR."""
    noise_min: float = 0.01
    """Least noise, in units of the data's scale."""
    noise_max: float = 10.0
    """Largest noise, in units of the data's scale."""
    num_updates: int = 6_000
    """Gradient steps."""
    noised_batch: int = 512
    """Noised states in a gradient step; data points are as many over the number of levels compared."""
    learning_rate: float = 1e-3
    """Adam's initial rate; decays along a cosine to 0.1 percent."""
    ema_decay: float = 0.999
    """Of the averaged parameters, which are those evaluated."""
    depth: int = 3
    """Residual blocks of the network."""
    modulated: bool = True
    """Let the level scale and shift the features inside every block."""
    offset: bool = True
    """Give the energy a second, direct output, which carries weights of modes."""
    num_frequencies: int = 0
    """Fourier features of the network, for laws with details much smaller than their extent."""
    num_eval: int = 20_000
    """Exact samples for each mode, and at the lowest level; a fifth of them at every other. Of digits, draws of the
    flow."""
    num_steps: int = 100
    """Steps of the reverse diffusion, equally spaced in log-SNR."""


class Setup(NamedTuple):
    """The parts of a run; `log_q(params)` is `(x, t) -> log q(x, t)`."""

    law: Law
    path: GaussianPath
    levels: np.ndarray
    trainer: Trainer
    init: Callable[[int], Any]
    log_q: Callable[[Any], ebm.LogDensityFn]


def check(options: EnergyOptions) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    counts = ("dim", "noised_batch", "max_gap", "num_samples", "num_steps", "flow_layers", "flow_width")
    check_energy_run(options, counts=counts, positive=("weight",))
    if not 0 < options.noise_min < options.noise_max:
        raise ValueError(
            f"noise_min: above 0 and below noise_max, got {options.noise_min} and {options.noise_max}"
        )
    if options.num_frequencies < 0:
        raise ValueError(f"num_frequencies: not negative, got {options.num_frequencies}")
    if options.target == "digits-skewed" and options.warm_updates < 1:
        raise ValueError(
            f"warm_updates: masses of digits need a flow, at least 1, got {options.warm_updates}"
        )


def build(options: EnergyOptions) -> Setup:
    """Composes the run. The path's reference has the data's mean and scale, so nothing is standardised."""
    law = make_law(options)
    key_data, _, _ = jax.random.split(jax.random.key(options.seed), 3)
    data = draw_data(law, key_data, options.num_data, options.seed)
    scale = float(np.sqrt(data.var(axis=0).mean()))
    path = GaussianPath(
        VarianceExploding(options.noise_min * scale, options.noise_max * scale * 1.001),
        mean=jnp.asarray(data.mean(axis=0)),
        scale=scale,
        shape=(options.dim,),
    )
    levels = ebm.log_snr_levels(
        path, options.num_levels, options.noise_min * scale, options.noise_max * scale
    )
    network = InnerProduct(
        ResidualMLP(
            path.space,
            ((options.dim,), ()) if options.offset else (options.dim,),
            width=options.width,
            depth=options.depth,
            modulated=options.modulated,
            num_frequencies=options.num_frequencies,
        )
    )
    psi = ebm.preconditioned_psi(path, network.apply)

    def apply_psi(params: Any, x: jax.Array, t: Any) -> jax.Array:
        return psi(params["psi"], x, t)

    objective, num_compared = make_objective(options, path, levels, apply_psi)
    batch_size, mesh = max(2, options.noised_batch // num_compared), device_mesh()
    check_divides(mesh, f"noised_batch / {num_compared}, the levels compared", batch_size)
    trainer = make_trainer(
        data_source(data, path.space),
        objective,
        clipped_adam(options, last=1e-3),
        batch_size=batch_size,
        updates_per_iteration=updates_per_iteration(options),
        ema_decay=options.ema_decay,
        time_fn=stratified_times(lambda u: levels[0] + u * (levels[-1] - levels[0]), last_time=1.0),
        mesh=mesh,
    )

    def init(seed: int) -> Any:
        _, key_network, key_train = jax.random.split(jax.random.key(seed), 3)
        params = network.init(key_network, jnp.zeros(options.dim), jnp.zeros(()))
        return trainer.init(key_train, {"psi": params, "normalizers": jnp.zeros(options.num_levels)})

    def log_q(params: Any) -> ebm.LogDensityFn:
        return ebm.log_density(path, lambda x, t: apply_psi(params, x, t))

    return Setup(law, path, levels, trainer, init, log_q)


def make_objective(
    options: EnergyOptions, path: GaussianPath, levels: np.ndarray, apply_psi: Any
) -> tuple[Objective, int]:
    """The loss, and how many noised states it makes of a data point."""
    process = FlowProcess(path)
    matching = ebm.score_matching_objective(
        process, apply_psi, weight_fn=lambda t: jnp.full_like(t, 1 / options.dim)
    )
    if options.method == "dsm":
        return matching, 1
    if options.method == "tsm":
        both = {"score": matching, "time": ebm.time_score_objective(path, apply_psi)}
        return sum_objectives(both, {"time": options.weight}), 2
    if options.method == "move-nce":
        both = {"score": matching, "moves": ebm.move_contrastive_objective(path, apply_psi)}
        return sum_objectives(both, {"moves": options.weight}), 4
    num = options.num_levels
    picks = {
        "random": lambda: ebm.random_levels(num, options.num_picked),
        "local": lambda: ebm.local_pairs(num, options.max_gap),
        "mixed": lambda: ebm.mixed_pick((ebm.random_levels(num), ebm.local_pairs(num, options.max_gap)), 0.5),
    }
    objective = ebm.classification_objective(
        path,
        apply_psi,
        levels,
        picks[options.pick](),
        normalizers_fn=lambda params: params["normalizers"],
        matching=process,
        classification_weight=options.weight,
    )
    return objective, options.num_picked if options.pick == "random" else 2


def run(options: EnergyOptions, setup: Setup) -> dict[str, Any]:
    """Trains, evaluates, writes the folder `options.out`, prints a summary and returns the report."""

    def found(state: Any) -> dict[str, Any]:
        log_q = setup.log_q(state.ema_params)
        x, log_weight = roll_outs(options, setup, log_q)
        if isinstance(setup.law, SkewedDigits):
            return evaluate_digits_at_level(options, setup, log_q, (x, log_weight))
        report = evaluate(options, setup, log_q)
        key = jax.random.fold_in(jax.random.key(options.seed), 5)
        truth = ebm.noised_mixture(setup.law, setup.path, setup.levels[-1])
        data = np.asarray(truth.sample(key, options.num_samples))
        title, last = f"{options.target}, {options.method}", jnp.asarray(setup.levels[-1], dtype=float)
        return report | write_model(
            options.out, title, setup.law, truth, data, x, log_weight, lambda y: log_q(y, last), report
        )

    return run_energy(
        options, setup.trainer, setup.init(options.seed), found, shown=("loss",), summary=SUMMARY
    )


def evaluate(options: EnergyOptions, setup: Setup, log_q: ebm.LogDensityFn) -> dict[str, Any]:
    """The model against the exact marginals: mode masses and KL at the lowest level, ESS and Fisher at every one."""
    mixture, path, levels = setup.law, setup.path, setup.levels
    assert isinstance(mixture, MixtureTarget)
    key = jax.random.fold_in(jax.random.key(options.seed), 3)

    def log_ratio(x: jax.Array, t: jax.Array) -> jax.Array:
        return log_q(x, t) + ebm.noised_mixture(mixture, path, t).energy(x)

    last = jnp.asarray(levels[-1], dtype=float)

    @jax.jit
    def mode_ratios(key: jax.Array, index: jax.Array) -> jax.Array:
        x = ebm.noised_mixture(mixture, path, last).component(index).sample(key, options.num_eval)
        return jax.vmap(log_ratio, (0, None))(x, last)

    num_each = max(2, options.num_eval // 5)

    @jax.jit
    def level_summary(key: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        noised = ebm.noised_mixture(mixture, path, t)
        x = noised.sample(key, num_each)
        ratio = jax.vmap(log_ratio, (0, None))(x, t)
        wrong = jax.vmap(jax.grad(log_ratio), (0, None))(x[: num_each // 4], t)
        _, sigma = path.coefficients(t)
        return ratio, sigma**2 * jnp.mean(wrong**2)

    true = mixture.component_weights
    keys = jax.random.split(key, len(true) + len(levels))
    ratios = np.stack(
        [np.asarray(mode_ratios(*args), np.float64) for args in zip(keys, np.arange(len(true)))]
    )
    log_mass = np.log(true) + log_mean_exp(ratios)
    mass = np.exp(log_mass - log_mass.max())
    mass /= mass.sum()
    log_total = np.logaddexp.reduce(log_mass)
    at_levels = [level_summary(k, jnp.asarray(t)) for k, t in zip(keys[len(true) :], levels)]
    ess = [float(ess_fraction(np.asarray(r, np.float64))) for r, _ in at_levels]
    return {
        "model_mass_tv": 0.5 * float(np.abs(mass - true).sum()),
        "model_mass_kl": float(np.sum(true * (np.log(true) - log_mass + log_total))),
        "lowest_level_kl": float(log_total - true @ ratios.mean(axis=1)),
        "lowest_level_ess": float(
            np.exp(2 * log_total - np.logaddexp.reduce(np.log(true) + log_mean_exp(2 * ratios)))
        ),
        "mean_ess": float(np.mean(ess)),
        "least_ess": float(np.min(ess)),
        "fisher": float(np.mean([float(f) for _, f in at_levels])),
        "model_mass": mass.tolist(),
        "true_mass": true.tolist(),
        "ess": ess,
        "levels": levels.tolist(),
        "noise": [float(path.coefficients(t)[1]) for t in levels],
    }


def roll_outs(options: EnergyOptions, setup: Setup, log_q: ebm.LogDensityFn) -> tuple[np.ndarray, np.ndarray]:
    """`num_samples` draws of the reverse diffusion, down to the lowest level, and their log-weights to its energy.

    Exact weights whatever the score is worth: those of the whole path, with the noising as backward chain.
    """
    path, (first, last) = setup.path, (setup.levels[0], setup.levels[-1])
    process, psi_fn = DiffusionProcess(path), ebm.relative_to(path, log_q)
    noise = [float(sigma / alpha) for alpha, sigma in (path.coefficients(t) for t in (first, last))]
    times = np.append(0.0, ebm.log_snr_levels(path, options.num_steps + 1, noise[1], noise[0])[1:])
    sampler = smc_sampler(process, times, num_particles=min(CHUNK, options.num_samples), threshold=0.0)

    @jax.jit
    def chunk(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        particles = sampler.sample(key, ebm.predict_from_psi(process, psi_fn), psi_fn)
        return particles.x, particles.log_weight

    key = jax.random.fold_in(jax.random.key(options.seed), 4)
    num_chunks = -(-options.num_samples // sampler.num_particles)
    parts = [jax.device_get(chunk(jax.random.fold_in(key, i))) for i in range(num_chunks)]
    x, log_weight = (np.concatenate(a)[: options.num_samples] for a in zip(*parts))
    return x, log_weight


def evaluate_digits_at_level(
    options: EnergyOptions, setup: Setup, log_q: ebm.LogDensityFn, rollouts: tuple[Any, Any]
) -> dict[str, Any]:
    """The report on digits with the noise of the lowest level, by draws of a flow fitted to these."""
    assert isinstance(setup.law, SkewedDigits)
    last = jnp.asarray(setup.levels[-1], dtype=float)
    law = setup.law.noised(float(setup.path.coefficients(last)[1]))  # variance exploding: alpha is 1
    key_data, key_flow, key_fit = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), 5), 3)
    data = draw_data(law, key_data, options.num_data, options.seed)
    mean, scale = ebm.moments(data)
    gaussian, flow = ebm.gaussian_flow(mean, scale), make_flow(options, mean, scale)
    known = fitted_flow(
        options, data, law.space, flow, flow.init(key_flow), key_fit, min(256, options.noised_batch)
    )

    def proposal(params: Any) -> Density:
        densities = (ebm.flow_density(flow, params[FROZEN]), ebm.flow_density(gaussian, ()))
        return defensive_mixture(densities, (0.9, 0.1))

    digits = likelihood_report.Setup(
        law=law,
        base=gaussian,
        trainer=setup.trainer,
        init=setup.init,
        start=setup.init,
        log_density=lambda params, x: log_q(x, last),
        proposal=None,
        reweighted=proposal,
        negatives=None,
        fitted=flow,
    )
    return evaluate_digits(
        digits,
        {FROZEN: known},
        num_eval=options.num_eval,
        seed=options.seed,
        rollouts=rollouts,
        out=options.out,
    )
