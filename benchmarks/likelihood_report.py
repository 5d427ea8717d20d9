"""What a model fitted by maximum likelihood is worth: its masses and log Z, held against the exact ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from egmjax import ebm
from egmjax.proposals import Density, defensive_mixture
from egmjax.targets import MixtureTarget
from egmjax.training import Trainer

from .energy_report import chunked
from .energy_runs import chain_tv, upper_log_z
from .laws import Law, true_masses
from .rollout_likelihood import mass_figures


class Setup(NamedTuple):
    """The parts of a run. `log_density(params, x)` is the model; `proposal(params)` the flow, `None` without one.

    `init(seed)` is the state of a run before anything is fitted, `start(seed)` the one it starts from, its flow fitted
    to data where the options say so (`fitted`). `reweighted(params)` is what to draw from for the model's masses.
    """

    law: Law
    base: ebm.NormalizingFlow
    trainer: Trainer
    init: Callable[[int], Any]
    start: Callable[[int], Any]
    log_density: Callable[[Any, jax.Array], jax.Array]
    proposal: Callable[[Any], Density] | None
    reweighted: Callable[[Any], Density]
    negatives: ebm.Negatives | None
    fitted: ebm.NormalizingFlow | None


def evaluate(
    setup: Setup, params: Any, chains: Any = None, *, num_eval: int = 50_000, seed: int = 0
) -> dict[str, Any]:
    """The model's masses and log Z against the exact ones.

    `lowest_level_kl` is KL(true, model) and `lowest_level_ess` the ESS of the model over the law, both by exact
    draws; `log_z_lower` rests on draws of the proposal of the chains alone, `log_z_upper` on moves of the chains
    under the parameters evaluated.
    """
    mixture, base = setup.law, setup.base
    assert isinstance(mixture, MixtureTarget)
    dim = math.prod(mixture.space.shape)  # type: ignore[union-attr]
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 4), 4)
    true = true_masses(mixture)
    num_cells = len(true)

    def model(x: jax.Array) -> jax.Array:
        return setup.log_density(params, x)

    parts = [exact_density(mixture), exact_density(widened(mixture)), ebm.flow_density(base, ())]
    parts += [setup.proposal(params)] if setup.proposal is not None else []
    cover = defensive_mixture(parts, [1.0 / len(parts)] * len(parts))
    sampled = ebm.sampled_masses(keys[0], model, cover, mixture.mode_index, num_cells, num_eval)
    best = sampled
    if dim == 2:  # the base bounds the tails
        mean, scale = ebm.moments(np.asarray(mixture.sample(keys[1], 10_000)))
        best = ebm.quadrature_masses(
            model, mixture.mode_index, num_cells, mean - 7 * scale, mean + 7 * scale, 600
        )
    x = mixture.sample(keys[1], num_eval)
    log_ratio = np.asarray(chunked(lambda y: model(y) + mixture.energy(y))(x), np.float64)
    report = {
        **mass_figures(best.mass, true),
        "lowest_level_kl": best.log_z - float(log_ratio.mean()),
        "lowest_level_ess": float(ess_fraction(log_ratio)),
        "log_z": best.log_z,
        "sampled": {name: np.asarray(value).tolist() for name, value in sampled._asdict().items()},
    }
    if chains is not None:
        report["chain_tv"] = chain_tv(mixture.mode_index, chains.position, true)
    if setup.proposal is not None and setup.negatives is not None:
        density = setup.proposal(params)
        alone = ebm.sampled_masses(keys[2], model, density, mixture.mode_index, num_cells, num_eval)
        report |= {"log_z_lower": alone.log_z, "flow_ess": alone.ess_fraction, "pareto_k": alone.pareto_k}
        report["log_z_upper"] = upper_log_z(keys[3], setup.negatives, chains, params)
    return report


def weighted_draws(setup: Setup, params: Any, key: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """`num` draws of `setup.reweighted`, `[num, d]`, and their log-weights to the model, relative to its Z."""
    density = setup.reweighted(params)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = density.sample(key, None, 0.0, 1.0)
        return x, setup.log_density(params, x) - density.log_prob(x, None, 0.0, 1.0)

    return chunked(one)(jax.random.split(key, num))


def exact_density(mixture: MixtureTarget) -> Density:
    """The mixture as a proposal; its log Z must be zero."""

    def sample(key: jax.Array, xt: Any = None, t: Any = 0.0, r: Any = 1.0) -> jax.Array:
        return mixture.sample(key, 1)[0]

    def log_prob(xr: jax.Array, xt: Any = None, t: Any = 0.0, r: Any = 1.0) -> jax.Array:
        return -mixture.energy(xr)

    return Density(sample, log_prob)


def widened(mixture: Any, factor: float = 1.5) -> MixtureTarget:
    """With so much noise that the widest component is `factor` times as wide."""
    return mixture.noised(1.0, math.sqrt(factor**2 - 1.0) * float(np.max(mixture.scales)))


def log_mean_exp(log_ratio: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    return np.logaddexp.reduce(log_ratio, axis=-1) - math.log(log_ratio.shape[-1])


def ess_fraction(log_ratio: np.ndarray) -> np.ndarray:
    """`(sum w)^2 / (n sum w^2)` of `w = q / p` at draws of `p`."""
    return np.exp(2 * log_mean_exp(log_ratio) - log_mean_exp(2 * log_ratio))
