"""What a model fitted by maximum likelihood is worth: its masses and log Z, held against the exact ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from egmjax import ebm
from egmjax.proposals import Density, defensive_mixture
from egmjax.targets import GaussianMixture
from egmjax.training import Trainer

from .energy_runs import chain_tv, upper_log_z
from .skewed_digits import SkewedDigits


class Setup(NamedTuple):
    """The parts of a run. `log_density(params, x)` is the model; `proposal(params)` the flow, `None` without one.

    `init(seed)` is the state of a run before anything is fitted, `start(seed)` the one it starts from, its flow fitted
    to data where the options say so (`fitted`). `reweighted(params)` is what to draw from for the model's masses.
    """

    law: GaussianMixture | SkewedDigits
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

    `kl` is KL(true, model) per exact draws; `log_z_lower` rests on draws of the proposal of the chains alone,
    `log_z_upper` on moves of the chains under the parameters evaluated.
    """
    mixture, base = setup.law, setup.base
    assert isinstance(mixture, GaussianMixture)
    (dim,) = mixture.space.shape
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 4), 4)
    true = mixture.component_weights
    num_cells = len(true)

    def model(x: jax.Array) -> jax.Array:
        return setup.log_density(params, x)

    parts = [exact_density(mixture), exact_density(widened(mixture, 1.5)), ebm.flow_density(base, ())]
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
    log_ratio = jax.lax.map(lambda y: -mixture.energy(y) - model(y), x, batch_size=4096)
    kl = float(np.mean(np.asarray(log_ratio, np.float64))) + best.log_z
    report = {
        "model_mass_tv": 0.5 * float(np.abs(best.mass - true).sum()),
        "model_mass_kl": float(np.sum(true * (np.log(true) - np.log(np.maximum(best.mass, 1e-300))))),
        "kl": kl,
        "log_z": best.log_z,
        "model_mass": best.mass.tolist(),
        "true_mass": true.tolist(),
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


def exact_density(mixture: GaussianMixture) -> Density:
    """The mixture as a proposal; its log Z must be zero."""

    def sample(key: jax.Array, xt: Any = None, t: Any = 0.0, r: Any = 1.0) -> jax.Array:
        return mixture.sample(key, 1)[0]

    def log_prob(xr: jax.Array, xt: Any = None, t: Any = 0.0, r: Any = 1.0) -> jax.Array:
        return -mixture.energy(xr)

    return Density(sample, log_prob)


def widened(mixture: GaussianMixture, factor: float) -> GaussianMixture:
    """The same weights with `factor` times the scales."""
    dim = np.shape(mixture.means)[1]
    return replace(
        mixture,
        scales=factor * np.asarray(mixture.scales),
        log_weights=np.asarray(mixture.log_weights) - dim * math.log(factor),
    )
