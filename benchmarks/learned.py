"""Energies learned from data, as targets of `python -m benchmarks.train learned --run DIR`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from egmjax._pytree import frozen_pytree, static
from egmjax.targets import FromEnergy, enumerate_states

from . import discrete_likelihood, ebm, likelihood, mixed_likelihood
from .commands import read_json
from .energy_runs import EnergyRunOptions, checkpoints_of
from .laws import true_masses

KINDS: dict[str, tuple[Any, type[EnergyRunOptions]]] = {
    kind.__name__: (module, kind)
    for module, kind in (
        (ebm, ebm.EnergyOptions),
        (likelihood, likelihood.LikelihoodOptions),
        (discrete_likelihood, discrete_likelihood.DiscreteLikelihoodOptions),
        (mixed_likelihood, mixed_likelihood.MixedLikelihoodOptions),
    )
}


@frozen_pytree
class LearnedEnergy(FromEnergy):
    """An energy learned from data. Its modes are those of the law that the data came from, with that law's weights.

    What is known of that law is not known of the model: `log_z` and `mode_weights` are left to the sampler, and the
    distance of its samples from `data_weights` is the error of both.
    """

    index_fn: Callable[[Any], jax.Array] = static()
    masses: tuple[float, ...] = static()

    @property
    def data_weights(self) -> np.ndarray:
        """Probabilities `[num_modes]` of the modes under the law of the data."""
        return np.asarray(self.masses)

    def mode_index(self, x: Any) -> jax.Array:
        """As for the law of the data."""
        return self.index_fn(x)


def load_energy(folder: Path) -> LearnedEnergy:
    """The model in the folder of a run that learned one, with averaged parameters; noised ones at their lowest level.

    Raises `ValueError` where there is no such run, or its checkpoint is missing or damaged.
    """
    values = read_json(folder)
    name = values.pop("options", None)
    if name not in KINDS:
        raise ValueError(f"run: {folder} is not the folder of a run that learned an energy")
    module, kind = KINDS[name]
    try:
        options = kind(out=folder, **values)
    except TypeError as error:
        raise ValueError(f"run: {folder}/config.json is not a configuration of this version") from error
    setup = module.build(options)
    params = checkpoints_of(options).restore(setup.init(options.seed)).ema_params
    if module is discrete_likelihood:
        law = setup.law
        states = jnp.asarray(enumerate_states(law.space.sites, law.space.num_states))
        index = np.asarray(jax.vmap(law.mode_index)(states))
        masses = np.bincount(index, np.exp(law.log_prob), law.num_modes)
        return _target(lambda x: -setup.log_density(params, x), law.space, law.mode_index, masses)
    law = setup.law
    masses = law.component_weights if module is mixed_likelihood else true_masses(law)
    if module is ebm:
        log_q, level = setup.log_q(params), jnp.asarray(setup.levels[-1], dtype=float)
        return _target(lambda x: -log_q(x, level), law.space, law.mode_index, masses)
    return _target(lambda x: -setup.log_density(params, x), law.space, law.mode_index, masses)


def _target(energy_fn: Any, space: Any, index_fn: Any, masses: np.ndarray) -> LearnedEnergy:
    weights = masses / masses.sum()
    return LearnedEnergy(energy_fn, space, index_fn=index_fn, masses=tuple(map(float, weights)))
