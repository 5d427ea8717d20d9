"""Energies of symbols fitted by maximum likelihood, with negatives from chains that do or do not mix.

    python -m benchmarks.discrete_likelihood --target patterns --method balanced-mle --out runs/rbm

Two-valued sites on a `length x length` lattice, few enough to enumerate. `lattice`: the Ising torus below its critical
temperature in a field that gives its signs the masses .8 and .2, learned by `PairEnergy`, all fields and bonds free.
`patterns`: four patterns of weights .1, .2, .3, .4, each site flipped with probability `--noise`, learned by a
restricted Boltzmann machine, its hidden units summed out. Negatives are chains moved by a masked jump model, revealed
in random order and fitted to them (`balanced-mle`), by Gibbs sweeps alone (`pcd`), or by one of these from data (`cd`).
Masses, log Z and KL divergences of the *model* are sums over all states. Writes `report.json` and `metrics.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.optimize import brentq
from scipy.special import logsumexp

from egmjax import ebm
from egmjax.networks import PairEnergy, ResidualMLP, RestrictedBoltzmann
from egmjax.paths import Linear, MaskedPath, Ordered
from egmjax.processes import MaskedProcess
from egmjax.proposals import Density
from egmjax.simulators import first_hitting_sampler
from egmjax.states import Categorical
from egmjax.targets import Ising, enumerate_states, enumerated_log_prob

from .commands import one_sentence, use_compilation_cache
from .energy_runs import NegativesOptions, check_energy_run, prepare_energy_run
from .rollout_likelihood import Setup, compose, mass_figures, run_model, sampler_figures

WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])  # of the patterns
HEAVY = 0.8  # of the lattice's positive sign
SUMMARY = ("model_mass_tv", "kl", "tv", "chain_tv", "sampler_ess", "log_z", "log_z_lower", "log_z_upper")


@dataclass(kw_only=True)
class DiscreteLikelihoodOptions(NegativesOptions):
    """Options of the run; the network is that of the masked model."""

    target: Literal["lattice", "patterns"] = "lattice"
    """What the data are drawn from."""
    length: int = 4
    """Side of the lattice, 3 or 4."""
    beta: float = 0.8
    """Inverse temperature of the lattice, times its coupling."""
    noise: float = 0.05
    """Probability that a site of a pattern is flipped, in (0, .5)."""
    method: Literal["balanced-mle", "pcd", "cd"] = "balanced-mle"
    """Where negatives come from."""
    num_updates: int = 1_000
    """Gradient steps."""
    order: Literal["random", "raster"] = "random"
    """In which sites are revealed; with a fixed order the sampler's density is known."""
    num_hidden: int = 32
    """Hidden units of the Boltzmann machine."""
    depth: int = 1
    """Residual blocks of the network."""
    learning_rate: float = 0.01
    """Adam's initial rate; decays along a cosine to 1 percent."""


class Law(NamedTuple):
    """What data are drawn from: `log_prob` of all states in the order of `enumerate_states`, and the modes."""

    space: Categorical
    log_prob: np.ndarray
    mode_index: Callable[[jax.Array], jax.Array]
    num_modes: int


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; bad input ends it with one sentence and exit code 2."""
    options = tyro.cli(
        DiscreteLikelihoodOptions, args=arguments, prog="python -m benchmarks.discrete_likelihood"
    )
    with one_sentence():
        check(options)
        setup = build(options)
        prepare_energy_run(options)
    return run_model(options, setup, evaluate, summary=SUMMARY)


def check(options: DiscreteLikelihoodOptions) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    check_energy_run(options, counts=("num_hidden",), positive=("beta",))
    if options.length not in (3, 4):
        raise ValueError(f"length: 3 or 4, as all states are enumerated, got {options.length}")
    if not 0 < options.noise < 0.5:
        raise ValueError(f"noise: between 0 and .5, got {options.noise}")


def lattice_law(length: int, beta: float) -> Law:
    """Ising with the field for which positive states have `HEAVY` of the mass of those with a sign."""

    def torus(field: float) -> Ising:
        return Ising(length, beta=beta, field=field)

    def excess(field: float) -> float:
        negative, positive, _ = torus(field).mode_weights  # type: ignore[misc]
        return float(positive / (positive + negative)) - HEAVY

    target = torus(brentq(excess, 0.0, 2.0 / beta, xtol=1e-9))
    return Law(target.space, enumerated_log_prob(target), target.mode_index, 3)


def patterns_law(length: int, noise: float) -> Law:
    """Stripes along rows and columns, a chequerboard and its negative: half of the sites or all differ between any two.

    On a side of three there are no such patterns; those are near to them.
    """
    row, column = np.divmod(np.arange(length**2), length)
    patterns = np.stack([row % 2, column % 2, (row + column) % 2, 1 - (row + column) % 2])
    states = enumerate_states(length**2, 2)
    distance = np.abs(states[:, None, :] - patterns).sum(-1)
    each = distance * math.log(noise) + (length**2 - distance) * math.log1p(-noise)

    def nearest(x: jax.Array) -> jax.Array:
        return jnp.argmin(jnp.sum(jnp.asarray(patterns) != x[None], axis=-1))

    return Law(Categorical(length**2, 2), logsumexp(each + np.log(WEIGHTS), axis=1), nearest, len(WEIGHTS))


def build(options: DiscreteLikelihoodOptions) -> Setup:
    """Composes the run; energy and masked model both start at uniform states, or nearly."""
    lattice = options.target == "lattice"
    law = (
        lattice_law(options.length, options.beta) if lattice else patterns_law(options.length, options.noise)
    )
    space = law.space
    states = enumerate_states(space.sites, space.num_states)
    rng = np.random.default_rng(options.seed)
    data = states[rng.choice(len(states), size=options.num_data, p=np.exp(law.log_prob))]
    network = PairEnergy(options.length) if lattice else RestrictedBoltzmann(2, options.num_hidden)
    schedule = Linear() if options.order == "random" else Ordered.from_rank(np.arange(space.sites))
    process = MaskedProcess(MaskedPath(schedule, sites=space.sites, num_states=2))
    sampler = first_hitting_sampler(process)
    denoiser = ResidualMLP(
        space, process.prediction_shape(), width=options.width, depth=options.depth, use_time=False
    )

    def energy(params: Any, x: jax.Array) -> jax.Array:
        return network.apply(params, x)  # type: ignore[return-value]

    def log_density(params: Any, x: jax.Array) -> jax.Array:
        return -energy(params["energy"], x)

    def rollouts(params: Any) -> ebm.PathProposal:
        return ebm.rollout_proposal(sampler, process.path, lambda x, t: denoiser.apply(params, x, t))

    uniform = Density(
        lambda key, xt, t, r: jax.random.randint(key, (space.sites,), 0, space.num_states),
        lambda xr, xt, t, r: jnp.asarray(-space.sites * math.log(space.num_states), float),
    )

    example = jnp.zeros(space.sites, jnp.int32)
    return compose(
        options,
        law,
        data,
        energy=energy,
        log_density=log_density,
        rollouts=rollouts,
        wide=uniform,
        init_energy=lambda key: network.init(key, example),
        init_sampler=lambda key: denoiser.init(key, example, jnp.zeros(())),
        local=ebm.gibbs_sweep(space),
    )


def evaluate(
    setup: Setup, params: Any, chains: ebm.ChainState | None = None, *, num_eval: int = 20_000, seed: int = 0
) -> dict[str, Any]:
    """The model against the truth, all by sums over states.

    `kl` is KL(true, model), `tv` their total variation; of the chains and their proposal, see `sampler_figures`.
    """
    law, key = setup.law, jax.random.fold_in(jax.random.key(seed), 4)

    def model(x: jax.Array) -> jax.Array:
        return setup.log_density(params, x)

    states = jnp.asarray(enumerate_states(law.space.sites, law.space.num_states))
    log_q = np.asarray(jax.jit(lambda x: jax.lax.map(model, x, batch_size=4096))(states), np.float64)
    mode = np.asarray(jax.jit(jax.vmap(law.mode_index))(states))
    log_z = float(logsumexp(log_q))
    p, q = np.exp(law.log_prob), np.exp(log_q - log_z)
    true, mass = (np.bincount(mode, weights=w, minlength=law.num_modes) for w in (p, q))
    return {
        **mass_figures(mass, true),
        "kl": float(p @ (law.log_prob - log_q)) + log_z,
        "tv": 0.5 * float(np.abs(p - q).sum()),
        "log_z": log_z,
        "entropy": float(-p @ law.log_prob),
        **sampler_figures(key, setup, params, chains, true, num_eval),
    }


if __name__ == "__main__":
    use_compilation_cache()
    main()
