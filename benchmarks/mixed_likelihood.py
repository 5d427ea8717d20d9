"""Energies of symbols and real numbers at once, fitted by maximum likelihood.

    python -m benchmarks.mixed_likelihood --method balanced-mle --out runs/mixed

Data are pairs of reals and eight two-valued symbols from three modes of weights .1, .3, .6, each with its own Gaussian
and its own probabilities of symbols: the first two share the more probable symbols, the last two the mean, so that
neither part alone tells all three. The energy is a network on the product space, relative to uniform symbols and the
Gaussian of the data's moments. Negatives are chains moved by a product process, masked jumps of the symbols and a
diffusion of the reals, that is fitted to them (`balanced-mle`), by Langevin moves of the reals and Gibbs sweeps of the
symbols in turn (`pcd`), or by these from data (`cd`). Masses and log Z of the *model* are sums over all symbols, times
quadrature in the plane and by importance sampling beyond. Writes `report.json` and `metrics.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from egmjax import ebm
from egmjax.networks import ResidualMLP
from egmjax.paths import GaussianPath, Linear, MaskedPath, Ordered, Trigonometric
from egmjax.processes import DiffusionProcess, MaskedProcess, ProductProcess
from egmjax.proposals import Density, defensive_mixture
from egmjax.simulators import grid_sampler, time_grid
from egmjax.states import Categorical, Real

from .commands import one_sentence, use_compilation_cache
from .energy_runs import NegativesOptions, check_energy_run, prepare_energy_run
from .rollout_likelihood import Setup, compose, mass_figures, run_model, sampler_figures

WEIGHTS = np.array([0.1, 0.3, 0.6])
PATTERNS = np.array([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0]])
FLIPPED = np.array([1.0, 2.0, 1.0])  # how often a symbol is not the pattern's, times `noise`
CENTRES = np.array([-1.0, 1.0, 1.0])  # of every real coordinate
SCALES = np.array([0.3, 0.25, 0.5])
NUM_POINTS = 96  # a coordinate of the quadrature: half the least scale of a mode apart, where it is exact
SUMMARY = (
    *("model_mass_tv", "model_mass_noise", "kl", "kl_stderr", "chain_tv", "sampler_ess"),
    *("log_z", "log_z_lower", "log_z_upper"),
)


@dataclass(kw_only=True)
class MixedLikelihoodOptions(NegativesOptions):
    """Options of the run; energy and sampler are networks of one size."""

    dim: int = 2
    """Real coordinates."""
    noise: float = 0.05
    """Probability that a symbol is not that of its mode's pattern, in (0, .25); twice that in the second mode."""
    method: Literal["balanced-mle", "pcd", "cd"] = "balanced-mle"
    """Where negatives come from."""
    num_updates: int = 1_000
    """Gradient steps."""
    depth: int = 1
    """Residual blocks of either network."""
    learning_rate: float = 3e-3
    """Adam's initial rate; decays along a cosine to 1 percent."""
    step_size: float = 0.05
    """Of Langevin moves at first, in squared units of the data's least scale."""
    num_steps: int = 16
    """Steps of a roll-out."""
    order: Literal["random", "raster"] = "random"
    """In which symbols are revealed."""


class MixedLaw(NamedTuple):
    """Modes with independent parts: `p(x, y) = sum_k w_k N(x; mean_k, scale_k^2) prod_i P_k(y_i)`.

    `means, scales [num_modes, dim]`; `ones [num_modes, sites]`, the probability of a one. States `(x, y)`.
    """

    component_weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray
    ones: np.ndarray

    @property
    def space(self) -> tuple[Real, Categorical]:
        return Real((self.means.shape[1],)), Categorical(self.ones.shape[1], 2)

    def log_joint(self, state: Any) -> jax.Array:
        """`log p(x, y, k)` for every mode, `[num_modes]`."""
        x, y = state
        means, scales, ones = (jnp.asarray(a, x.dtype) for a in (self.means, self.scales, self.ones))
        reals = -0.5 * ((x[None] - means) / scales) ** 2 - jnp.log(scales) - 0.5 * math.log(2.0 * math.pi)
        symbols = jnp.where(y[None] == 1, jnp.log(ones), jnp.log1p(-ones))
        return (
            jnp.log(jnp.asarray(self.component_weights, x.dtype)) + jnp.sum(reals, -1) + jnp.sum(symbols, -1)
        )

    def log_prob(self, state: Any) -> jax.Array:
        """Normalised."""
        return jax.nn.logsumexp(self.log_joint(state))

    def mode_index(self, state: Any) -> jax.Array:
        """The mode that the state most probably comes from."""
        return jnp.argmax(self.log_joint(state))

    def sample(self, key: jax.Array) -> Any:
        """One exact draw."""
        key_mode, key_x, key_y = jax.random.split(key, 3)
        k = jax.random.categorical(key_mode, jnp.log(jnp.asarray(self.component_weights, float)))
        means, scales, ones = (jnp.asarray(a, float)[k] for a in (self.means, self.scales, self.ones))
        x = means + scales * jax.random.normal(key_x, means.shape)
        return x, jax.random.bernoulli(key_y, ones).astype(jnp.int32)

    @property
    def density(self) -> Density:
        """The law as a proposal."""
        return Density(lambda key, xt, t, r: self.sample(key), lambda xr, xt, t, r: self.log_prob(xr))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; bad input ends it with one sentence and exit code 2."""
    options = tyro.cli(MixedLikelihoodOptions, args=arguments, prog="python -m benchmarks.mixed_likelihood")
    with one_sentence():
        check(options)
        setup = build(options)
        prepare_energy_run(options)
    return run_model(options, setup, evaluate, summary=SUMMARY)


def check(options: MixedLikelihoodOptions) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    check_energy_run(options, counts=("dim", "num_steps"), positive=("step_size",))
    if not 0 < options.noise < 0.25:
        raise ValueError(f"noise: between 0 and .25, got {options.noise}")


def three_modes(dim: int, noise: float) -> MixedLaw:
    """The law of the data."""
    flipped = noise * FLIPPED[:, None]
    ones = np.where(PATTERNS == 1, 1.0 - flipped, flipped)
    everywhere = np.ones((1, dim))
    return MixedLaw(WEIGHTS, CENTRES[:, None] * everywhere, SCALES[:, None] * everywhere, ones)


def build(options: MixedLikelihoodOptions) -> Setup:
    """Composes the run; energy and sampler both start at the reference of the path."""
    law = three_modes(options.dim, options.noise)
    key_data = jax.random.fold_in(jax.random.key(options.seed), 1)
    data = jax.tree.map(
        np.asarray, jax.jit(jax.vmap(law.sample))(jax.random.split(key_data, options.num_data))
    )
    mean, scale = ebm.moments(data[0])
    reals, symbols = law.space
    reveal = Linear() if options.order == "random" else Ordered.from_rank(np.arange(symbols.sites))
    path_x = GaussianPath(
        Trigonometric(), mean=jnp.asarray(mean, float), scale=jnp.asarray(scale, float), shape=reals.shape
    )
    process = ProductProcess(
        (DiffusionProcess(path_x), MaskedProcess(MaskedPath(reveal, sites=symbols.sites, num_states=2)))
    )
    path = process.path
    sampler = grid_sampler(process, time_grid(options.num_steps))
    size: dict[str, Any] = {"width": options.width, "depth": options.depth}
    network = ResidualMLP(law.space, (), use_time=False, **size)
    denoiser = ResidualMLP(law.space, process.prediction_shape(), **size)
    zero = jnp.zeros(())

    def in_units(state: Any, t: Any) -> Any:
        return path_x.standardize(state[0], t), state[1]

    def energy(params: Any, state: Any) -> jax.Array:
        return network.apply(params, in_units(state, 1.0), zero)  # type: ignore[return-value]

    def log_density(params: Any, state: Any) -> jax.Array:
        return path.log_reference(state, 1.0) - energy(params["energy"], state)

    def rollouts(params: Any) -> ebm.PathProposal:
        return ebm.rollout_proposal(
            sampler, path, lambda state, t: denoiser.apply(params, in_units(state, t), t)
        )

    # at t=0 the path says nothing of the data, whose posterior is the reference itself
    noise = path.sample_prior(jax.random.key(0))
    reference = Density(
        lambda key, xt, t, r: path.propose(key, noise, 0.0, 1.0),
        lambda xr, xt, t, r: path.propose_log_prob(xr, noise, 0.0, 1.0),
    )

    return compose(
        options,
        law,
        data,
        energy=energy,
        log_density=log_density,
        rollouts=rollouts,
        wide=reference,
        init_energy=lambda key: network.init(key, noise, zero),
        init_sampler=lambda key: denoiser.init(key, noise, zero),
        local=lambda step: ebm.mala_gibbs(law.space, step),
        step_size=options.step_size * float(scale.min()) ** 2,
    )


def evaluate(
    setup: Setup, params: Any, chains: ebm.ChainState | None = None, *, num_eval: int = 20_000, seed: int = 0
) -> dict[str, Any]:
    """The model against the truth: masses and log Z as `masses` has them, `kl` = KL(true, model) over exact draws.

    `model_mass_noise` is the total variation that the standard errors of the masses alone would make.
    """
    law: MixedLaw = setup.law
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 4), 3)

    def model(state: Any) -> jax.Array:
        return setup.log_density(params, state)

    exact, found = masses(keys[0], law, law.log_prob, num_eval), masses(keys[0], law, model, num_eval)
    draws = jax.random.split(keys[1], num_eval)

    def log_ratio(key: jax.Array) -> jax.Array:
        state = law.sample(key)
        return law.log_prob(state) - model(state)

    ratios = np.asarray(jax.jit(lambda k: jax.lax.map(log_ratio, k, batch_size=4096))(draws), np.float64)
    return {
        **mass_figures(found.mass, exact.mass),
        "model_mass_noise": 0.5 * math.sqrt(2.0 / math.pi) * float(found.stderr.sum()),
        "kl": float(ratios.mean()) + found.log_z,
        "kl_stderr": math.hypot(float(ratios.std()) / math.sqrt(num_eval), found.log_z_stderr),
        "log_z": found.log_z,
        **sampler_figures(keys[2], setup, params, chains, exact.mass, num_eval),
    }


def masses(key: jax.Array, law: MixedLaw, log_density_fn: Any, num_eval: int) -> ebm.ModelMass:
    """Masses of the modes of `law`: by quadrature for every symbol state in the plane, by importance sampling beyond.

    The draws of the latter are from the law, the law with scales and flips enlarged, and uniform symbols with a
    Gaussian that is wider still.
    """
    num_modes = len(law.component_weights)
    low, high = ((law.means + sign * 8 * law.scales) for sign in (-1, 1))
    if law.means.shape[1] == 2:
        box = low.min(axis=0) - 1.0, high.max(axis=0) + 1.0
        return ebm.quadrature_masses(
            log_density_fn, law.mode_index, num_modes, *box, NUM_POINTS, symbols=law.space[1]
        )
    wider = law._replace(scales=1.5 * law.scales, ones=0.7 * law.ones + 0.15)
    widest = law._replace(scales=np.full_like(law.scales, 1.5), ones=np.full_like(law.ones, 0.5))
    cover = defensive_mixture([law.density, wider.density, widest.density], [0.4, 0.4, 0.2])
    return ebm.sampled_masses(key, log_density_fn, cover, law.mode_index, num_modes, num_eval)


if __name__ == "__main__":
    use_compilation_cache()
    main()
