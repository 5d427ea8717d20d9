"""Options of `python -m benchmarks.train`: one dataclass for each target and data set, whose defaults are its recipe.

Long because it is a list; the two families share `RunOptions` and `RealOptions`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeGuard

from .commands import DeviceOptions, FolderOptions, result_options

ObjectiveName = Literal["snis", "bootstrap", "weighted", "likelihood", "log-variance"]
PATH_OBJECTIVES = ("likelihood", "log-variance")


@dataclass(kw_only=True)
class ObjectiveOptions:
    """What the network learns from."""

    objective: ObjectiveName = "weighted"
    """snis: regress on importance-sampled estimates of the generator (the EGM paper). bootstrap: the same at r < 1,
    through a learned noised energy. weighted: regress on conditional generators of own samples drawn in
    proportion to their importance weights. likelihood: maximise the likelihood of these, along whole paths.
    log-variance: minimise the variance of the log-weights of own samples."""
    num_proposals: int = 512
    """Importance-sampling proposals for each state (snis only)."""
    num_bootstrap_proposals: int = 64
    """The same, where each costs a call of the network of the noised energy (bootstrap only)."""
    chunk_size: int | None = None
    """Proposals of a state at a time, which bounds memory; None is 128, fewer where states are large, and 1024 where 32
    two-valued states share a word, in multiples of 32 (snis and bootstrap only)."""
    bootstrap_step: float = 0.2
    """Step r - t of the bootstrapped target, cut off at r = 1 (bootstrap only)."""
    noised_energy: Literal["regression", "contrast"] = "regression"
    """How it is learned: from estimates by as many proposals, or by telling moves of own samples, drawn in proportion
    to their importance weights, from proposed ones (bootstrap only)."""
    site_conditionals: bool = False
    """Learn from the law of each site given the others, softmax(-E(x[i <- s])), in place of drawn symbols
    (not with bootstrap: the laws are known at r = 1 only)."""


@dataclass(kw_only=True)
class RunOptions(DeviceOptions, FolderOptions):
    """What every run shares."""

    seed: int = 0
    """Seed of all randomness: parameters, training, evaluation."""
    iterations: int = 200
    """Training iterations: one renewal of the replay buffer, where there is one, and some gradient steps each."""
    updates_per_iteration: int = 8
    """Gradient steps for each iteration."""
    batch_size: int = 512
    """States in a gradient step."""
    optimizer: Literal["adam", "muon"] = "adam"
    """muon: matrices move along orthogonalized momentum, as far as Adam would move them, all else by Adam."""
    learning_rate: float = 2e-3
    """The optimizer's initial rate; decays along a cosine to 2 percent."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    ema_decay: float = 0.99
    """Decay of the averaged parameters, which make the samples."""
    width: int = 32
    """Hidden width of the network (channels)."""
    depth: int = 2
    """Hidden layers or residual blocks."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the products between hidden layers; parameters, states, energies and log-weights are float32 in any case
    (bfloat16: not for flows, nor for a coarse-to-fine order, whose weights need a network that is not rounded)."""
    num_samples: int = 20_000
    """Samples in samples.npz and the report."""
    checkpoint_every: int = 20
    """Iterations between checkpoints."""


@dataclass(kw_only=True)
class Options(ObjectiveOptions, RunOptions):
    """What every target shares: learning from an energy."""

    num_rollouts: int = 512
    """Samples of the model for each iteration."""
    buffer_rollouts: int = 4
    """Replay buffer, in iterations of roll-outs."""
    min_ess_fraction: float = 0.05
    """The exponent of the weights is lowered until the buffer has this ESS (weighted only)."""
    refresh: int = 0
    """MCMC moves of the target on buffered states before they are learned from: above 0 the run learns from MCMC."""
    refresh_step: float = 0.05
    """Langevin step of these moves, in squared units of the real coordinates."""
    num_reference: int = 0
    """Learn from that many draws of the target in place of own samples, where it can be sampled: above 0 the run learns
    from data, and its weights certify it all the same (weighted and likelihood only)."""
    num_chains: int = 0
    """Learn from that many Hamiltonian chains of the energy, which go on beside the training, in place of own samples:
    above 0 the run learns from MCMC, and its weights certify it all the same (real coordinates, weighted only)."""
    chain_step: float = 0.02
    """Leapfrog step of these chains, in units of the real coordinates: ten trajectories of 25 an iteration."""
    mix: ObjectiveName | None = None
    """A second objective: the loss is (1 - mix_weight) times that of --objective and mix_weight times this one's.
    Both learn from states drawn by weight where one of them does (not bootstrap)."""
    mix_weight: float = 0.5
    """Its weight, in (0, 1]; at 1 it takes over."""
    mix_start: float = 0.0
    """Fraction of training before it, with --objective alone."""
    temper_start: float = 0.3
    """Fraction of the log-density at the start of training; ramps up to 1."""
    temper_fraction: float = 0.3
    """Fraction of training that the ramp lasts."""
    temper_ramp: Literal["linear", "geometric"] = "linear"
    """geometric: by equal factors, from a start above 0; for modes that part while the target is nearly flat."""
    num_exact: int = 5_000
    """Exact samples for EUBO and the forward ESS, where the target can be sampled."""


@dataclass(kw_only=True)
class LatticeOptions(Options):
    """Defaults shared by spins on a torus."""

    process: Literal["mask", "uniform"] = "mask"
    """mask: sites are revealed one by one. uniform: sites start at random and jump, in steps on a grid of times."""
    num_steps: int = 100
    """Steps of the sampler (uniform only)."""
    length: int = 5
    """Sites along each side."""
    noised_energy: Literal["regression", "contrast"] = "contrast"
    """How it is learned: by telling moves of own samples, drawn in proportion to their weights, from proposed ones, or
    from estimates by proposals (bootstrap only)."""
    order: Literal["random", "raster", "coarse-to-fine"] | None = None
    """Order in which sites are generated: random for each sample; fixed row by row; or each as far from those before as
    can be, by a small network of its own, and at last all that are independent given these, from their exact law. None
    is coarse-to-fine with log-variance and likelihood, else random; defaults go with it."""
    network: Literal["site", "masked", "transformer", "lattice"] | None = None
    """What predicts a site from known ones. site: a perceptron for each site. In the fixed order only: masked, one of
    masked layers for all (MADE), with width hidden units a site; transformer, attention that knows of displacements
    only, its parameters shared by translation, or of pairs of sites where the energy tells them apart. In any other
    order, and without masks: lattice, layers that couple all sites, for the spin glass a perceptron of all of them.
    None is site in the fixed order and where --objective is log-variance or likelihood, else lattice."""
    context: int | None = None
    """Nearest earlier sites that a site looks at; None is all of them (coarse-to-fine and --network site only)."""
    tied: bool = True
    """Sites that see the like share parameters; in a fixed order but for small ones of their own (--network site,
    without --context)."""
    average: int = 1
    """Symmetries of the lattice that the density of samples is averaged over, once trained: as many log-weights a
    sample, and a higher ESS (coarse-to-fine only; none are known of a spin glass)."""
    sites_per_step: tuple[int, ...] = (1,)
    """Sites that are revealed at once, once trained, as if they were independent given those before: as many times
    fewer calls of the network for a sample, at the price of a total correlation. Several numbers are those of the first
    steps, the last one of all others: sites depend on each other most at first (masks in random order only)."""
    local_fields: bool = False
    """Add to the logits of a site what known neighbours and the energy say of it; the network learns the rest (masks
    in random or raster order)."""
    radius: int | None = None
    """Reach of the lattice layers in sites; None couples all sites."""


def mix_starts_at(options: Options) -> int:
    """Iterations before the second objective; at least one is left to it."""
    return int(options.mix_start * options.iterations)


def order_of(options: LatticeOptions) -> str:
    """The order of the sites, chosen or implied."""
    if options.order is not None:
        return options.order
    learns_by_paths = options.process == "mask" and options.objective in PATH_OBJECTIVES
    return "coarse-to-fine" if learns_by_paths else "random"


def network_of(options: LatticeOptions) -> str:
    """The network of a lattice, chosen or implied."""
    if options.network is not None:
        return options.network
    learns_by_paths = options.process == "mask" and options.objective in PATH_OBJECTIVES
    return "site" if is_coarse_to_fine(options) or learns_by_paths else "lattice"


def is_coarse_to_fine(options: RunOptions) -> bool:
    """Whether sites have a fixed order of their own networks."""
    return isinstance(options, LatticeOptions) and order_of(options) == "coarse-to-fine"


def reveals_several(options: RunOptions) -> TypeGuard[LatticeOptions]:
    """Whether samples are drawn several sites at once."""
    return isinstance(options, LatticeOptions) and tuple(options.sites_per_step) != (1,)


@dataclass(kw_only=True)
class OrderedOptions(LatticeOptions):
    """Defaults of lattices in a coarse-to-fine order, half of the sites exact."""

    # on policy: an update for each batch of roll-outs, each of which is used once
    objective: ObjectiveName = "log-variance"
    iterations: int = 5_000
    updates_per_iteration: int = 1
    num_rollouts: int = (
        64  # many small updates: the noise of the gradient vanishes with the variance that is minimised
    )
    batch_size: int = 64
    buffer_rollouts: int = 1
    learning_rate: float = 3e-3
    temper_fraction: float = 0.2
    depth: int = 1
    checkpoint_every: int = 500
    by_sites: ClassVar[dict[str, Any]] = {
        "iterations": 400,
        "updates_per_iteration": 8,
        "num_rollouts": 512,
        "batch_size": 128,
        "buffer_rollouts": 4,
        "learning_rate": 6e-3,
        "width": 64,
        "depth": 3,
        "mix": "likelihood",
        "mix_weight": 1.0,
        "mix_start": 0.7,
        "checkpoint_every": 40,
    }
    """Other defaults of `--network site` in any other order."""
    by_lattice: ClassVar[dict[str, Any]] = {}
    """Where `--network lattice` takes other defaults than those of `LatticeOptions`."""


# what goes with the network: `OrderedOptions` has it for perceptrons of sites, `LatticeOptions` for coupled layers
_OF_LAYERS = (
    "objective",
    "iterations",
    "updates_per_iteration",
    "num_rollouts",
    "batch_size",
    "buffer_rollouts",
    "learning_rate",
    "temper_fraction",
    "width",
    "depth",
    "checkpoint_every",
)


# rows share hidden units; a transformer costs far more for a state, and learns from fewer of them
_OF_A_NETWORK: dict[str, dict[str, Any]] = {
    "masked": {"width": 16},
    "transformer": {"width": 16, "depth": 2, "iterations": 1_000, "num_rollouts": 256, "batch_size": 256},
}


def recipe(options: RunOptions) -> dict[str, Any]:
    """Defaults that go with order, process and network among `options`, where these are not those of their kind."""
    if jumps_by_particles(options):
        return {"network": "mlp", **_of_lj13(options)}
    if not isinstance(options, OrderedOptions):
        return _of_lj13(options)
    if network_of(options) == "lattice":
        return {**{name: getattr(LatticeOptions, name) for name in _OF_LAYERS}, **options.by_lattice}
    if is_coarse_to_fine(options):
        return _OF_A_NETWORK.get(network_of(options), {})
    return {**options.by_sites, **({"mix": None} if options.objective == "likelihood" else {})}


def _of_lj13(options: RunOptions) -> dict[str, Any]:
    """States of chains have no weights, paired noise is for flows, and straight lines have one pace: whoever asks for
    something else has none of them."""
    if not isinstance(options, Lj13Options):
        return {}
    changes: dict[str, Any] = {}
    learns_once = options.objective == "weighted" and options.mix is None
    if not learns_once or options.num_reference or options.refresh:
        changes |= {"num_chains": 0}
    if not learns_once or options.process != "flow":
        changes |= {"pairing": "independent"}
    if options.power != 1:
        changes |= {"schedule": "trigonometric"}
    return changes


def jumps_by_particles(options: RunOptions) -> bool:
    """Jumps of real coordinates need a prediction for each bin, which messages between particles do not make."""
    return getattr(options, "network", "") in ("particles", "vectors") and "jump" in getattr(
        options, "process", ""
    )


def with_recipe(options: RunOptions, **values: Any) -> RunOptions:
    """Changed `options`, and the defaults that go with the changes."""
    changed = dataclasses.replace(options, **values)
    return dataclasses.replace(changed, **{**recipe(changed), **values})


@dataclass(kw_only=True)
class IsingOptions(OrderedOptions):
    """2-D Ising model on a torus; masked jumps in a coarse-to-fine order, half of the sites exact."""

    beta: float = 0.4
    """Inverse temperature; critical at 0.4407."""
    coupling: float = 1.0
    """J > 0 is ferromagnetic."""
    field: float = 0.0
    """External field h."""
    # one layer that couples all sites: a hundred calls make a roll-out, so those are to be cheap and used often
    by_lattice: ClassVar[dict[str, Any]] = {
        "iterations": 400,
        "updates_per_iteration": 16,
        "num_rollouts": 128,
        "batch_size": 256,
        "learning_rate": 4e-3,
        "temper_fraction": 0.3,
        "depth": 1,
        "checkpoint_every": 40,
    }


@dataclass(kw_only=True)
class PottsOptions(OrderedOptions):
    """2-D Potts model on a torus; as the Ising model, by networks that know no symbol from another."""

    num_symbols: int = 3
    """Symbols of a site, q."""
    beta: float = 0.8
    """Inverse temperature; critical at log(1 + sqrt(q)), 1.005 for q = 3."""
    depth: int = 2  # with one layer symbols do not meet


@dataclass(kw_only=True)
class SpinGlassOptions(OrderedOptions):
    """2-D spin glass on a torus with couplings +-1; as the Ising model."""

    beta: float = 0.8
    """Inverse temperature."""
    disorder_seed: int = 0
    """Seed of the couplings."""
    tied: bool = False  # no two sites see the like
    by_lattice: ClassVar[dict[str, Any]] = {"width": 256}


@dataclass(kw_only=True)
class RealOptions:
    """How real coordinates move."""

    process: Literal["flow", "diffusion", "flow+diffusion", "jump", "flow+jump"] = "flow"
    """What the real coordinates follow; with a + each step is one or the other, with equal probability.
    Where there are jumps the network predicts bins of the endpoint (not with --objective bootstrap)."""
    bins: int = 64
    """Bins of every real coordinate (jump and flow+jump only)."""
    reach: float = 4.0
    """Bins cover this many standard deviations of the reference to either side; the outer two are open."""
    noise: float = 1.0
    """Noise of the diffusion in units of the path's own; at 1 it reverses the noising (diffusions only)."""
    detail: float | None = None
    """Width of the target's modes, in its own units: steps are as narrow as that allows. None is that of the reference
    (diffusions only)."""
    scale: float = 5.0
    """Standard deviation of the Gaussian reference: about the size of the target, in its own units."""
    schedule: Literal["trigonometric", "straight"] = "trigonometric"
    """How data take the place of noise. trigonometric: a reference of the target's size stays as it is. straight:
    along straight lines at a constant pace."""
    power: float = 1.0
    """Above 1, more of the time is spent near the data: for modes much narrower than scale (trigonometric only)."""
    num_steps: int | None = None
    """Steps of the sampler from t=0 to t=1; None is 40 for a flow, 20 where there are jumps, 100 with noise."""
    stepper: Literal["heun", "euler"] = "heun"
    """Heun is of order two with two network calls a step, Euler of order one with one."""


@dataclass(kw_only=True)
class FlowOptions(RealOptions, Options):
    """Defaults shared by targets on R^d and mixed spaces."""

    network: Literal["mlp", "coordinates", "particles", "vectors"] = "mlp"
    """mlp: a residual perceptron on the whole state. coordinates: one shared by all coordinates, which see each other
    through means; for real coordinates that depend little on each other. particles, vectors: messages of particles,
    which commute with permutations, rotations and reflections, by perceptrons of pairs or by filters of distances."""
    integrate_gaussian: bool = False
    """Integrate out the real coordinates that are Gaussian given all others: the sampler learns the rest, and samples
    are completed by exact draws."""
    pairing: Literal["independent", "aligned"] = "independent"
    """How noise and states are paired. aligned: noise is permuted, turned and mirrored towards each state, which makes
    paths short; for particles that are alike (flows, weighted only)."""
    energy_gradient: bool = False
    """Give the network the residual that the gradient of the energy at the believed endpoint implies for a mode of the
    width detail: a gradient for each of its calls (real coordinates alone, by a diffusion)."""
    objective: ObjectiveName = "snis"
    iterations: int = 60
    updates_per_iteration: int = 20
    num_rollouts: int = 1000
    buffer_rollouts: int = 10
    width: int = 128
    depth: int = 3
    temper_start: float = 0.1
    num_exact: int = 2_000


@dataclass(kw_only=True)
class ThreePeaksOptions(FlowOptions):
    """Three Gaussian peaks of unequal widths on the line, by a flow or by jumps."""

    scale: float = 1.5
    bins: int = 192
    reach: float = 2.5


@dataclass(kw_only=True)
class ThreeModesOptions(FlowOptions):
    """Three unequal Gaussian modes in the plane (weights .5, .3, .2), by a flow."""


@dataclass(kw_only=True)
class Gmm25Options(FlowOptions):
    """25 equal Gaussian modes on a square grid in the plane, by a flow."""

    scale: float = 8.0
    reach: float = 1.75
    num_proposals: int = 1024


@dataclass(kw_only=True)
class Gmm40Options(FlowOptions):
    """40 Gaussian modes at random places in [-40, 40]^2, by a flow; two published variants."""

    variant: Literal["torch", "jax"] = "torch"
    """torch: fab-torch, iDEM; standard deviation 1.3133. jax: fab-jax; standard deviation 1."""
    dim: int = 2
    """Dimensions; SCLD has jax in 50."""
    scale: float = 25.0
    power: float = 2.0
    num_proposals: int = 1024
    num_samples: int = 100_000


@dataclass(kw_only=True)
class FunnelOptions(FlowOptions):
    """Neal's funnel, ten dimensions, all but one of them integrated out, by a flow."""

    dim: int = 10
    """Dimensions; at least 2."""
    integrate_gaussian: bool = True
    objective: ObjectiveName = "weighted"
    iterations: int = 40
    num_rollouts: int = 256
    batch_size: int = 256
    width: int = 32
    depth: int = 1
    scale: float = 4.0
    num_steps: int | None = 10
    num_samples: int = 2_000


@dataclass(kw_only=True)
class Dw4Options(FlowOptions):
    """Four particles in the plane with double-well pairs, mean-free, by an equivariant flow."""

    network: Literal["mlp", "coordinates", "particles", "vectors"] = "particles"
    objective: ObjectiveName = "weighted"
    iterations: int = 400
    num_rollouts: int = 128
    buffer_rollouts: int = 80
    batch_size: int = 256
    learning_rate: float = 5e-3
    width: int = 32
    depth: int = 2
    scale: float = 2.1
    num_steps: int | None = 20
    num_samples: int = 5_000


@dataclass(kw_only=True)
class Lj13Options(FlowOptions):
    """Thirteen Lennard-Jones particles in a harmonic trap, mean-free, by a flow that learns from chains."""

    factor: float = 1.0
    """1 counts every pair twice, as EGM, iDEM and ASBS do, 1/2 once."""
    network: Literal["mlp", "coordinates", "particles", "vectors"] = "vectors"
    objective: ObjectiveName = "weighted"
    num_chains: int = 256  # particles overlap in samples of a poor model, so these weigh nothing
    pairing: Literal["independent", "aligned"] = "aligned"
    iterations: int = 200
    updates_per_iteration: int = 80
    buffer_rollouts: int = 200  # all that chains have seen
    batch_size: int = 128
    optimizer: Literal["adam", "muon"] = "muon"
    learning_rate: float = 6e-3
    ema_decay: float = 0.998
    width: int = 64
    depth: int = 3
    schedule: Literal["trigonometric", "straight"] = "straight"
    scale: float = 0.7
    num_steps: int | None = 20
    num_samples: int = 2_000  # a sixth of a second each, for 36 derivatives of the network at 40 places
    num_exact: int = 100


@dataclass(kw_only=True)
class ManyWellOptions(FlowOptions):
    """16 double wells, each beside a Gaussian coordinate: 32 dimensions, 2^16 modes (FAB)."""

    num_wells: int = 16
    """Double wells; two dimensions each."""
    network: Literal["mlp", "coordinates", "particles", "vectors"] = "coordinates"
    integrate_gaussian: bool = True
    objective: ObjectiveName = "weighted"
    iterations: int = 100
    num_rollouts: int = 256
    buffer_rollouts: int = 40
    width: int = 32
    depth: int = 1
    learning_rate: float = 4e-3
    temper_fraction: float = 0.5
    scale: float = 1.3
    power: float = 2.0
    num_steps: int | None = 10
    num_samples: int = 2_000
    num_exact: int = 500


@dataclass(kw_only=True)
class MixedOptions(FlowOptions):
    """Defaults shared by targets with real coordinates and symbols."""

    symbols: Literal["mask", "uniform"] = "mask"
    """What the symbols follow, as for lattices."""
    sum_symbols: bool = False
    """Sum the symbols out: the sampler learns the real coordinates, each energy is one for every state of the symbols,
    and samples are completed by exact draws."""


@dataclass(kw_only=True)
class GbRbmOptions(MixedOptions):
    """Gaussian-Bernoulli RBM, two real and three binary coordinates, by a product of flow and masked jumps."""


@dataclass(kw_only=True)
class WeightedOptions(MixedOptions):
    """Defaults of mixed targets in ten dimensions and more, where proposals from the reference miss the modes."""

    objective: ObjectiveName = "weighted"
    site_conditionals: bool = True
    iterations: int = 200
    temper_fraction: float = 0.5


@dataclass(kw_only=True)
class JointMogOptions(WeightedOptions):
    """Ten pairs of a real and a binary coordinate, 2^10 modes, by a product of flow and masked jumps."""

    scale: float = 1.1


@dataclass(kw_only=True)
class JointDw4Options(WeightedOptions):
    """Four particles of two types in the plane, mean-free, by a product of flow and masked jumps."""

    network: Literal["mlp", "coordinates", "particles", "vectors"] = "particles"
    num_rollouts: int = 256
    buffer_rollouts: int = 40
    width: int = 32
    depth: int = 2
    learning_rate: float = 3e-3
    scale: float = 1.6
    num_steps: int | None = 20


@dataclass(kw_only=True)
class LearnedOptions(MixedOptions):
    """An energy learned by a run with --method, or by benchmarks.discrete_likelihood or .mixed_likelihood."""

    run: str
    """The folder."""
    power: float = 2.0


TARGETS: dict[str, type[Options]] = {
    "ising": IsingOptions,
    "potts": PottsOptions,
    "spin-glass": SpinGlassOptions,
    "three-peaks": ThreePeaksOptions,
    "three-modes": ThreeModesOptions,
    "gmm25": Gmm25Options,
    "gmm40": Gmm40Options,
    "funnel": FunnelOptions,
    "many-well": ManyWellOptions,
    "dw4": Dw4Options,
    "lj13": Lj13Options,
    "gb-rbm": GbRbmOptions,
    "joint-mog": JointMogOptions,
    "joint-dw4": JointDw4Options,
    "learned": LearnedOptions,
}


@dataclass(kw_only=True)
class DataOptions(RunOptions):
    """What every data set shares: conditional generator matching."""

    times: Literal["uniform", "logit-normal", "skewed"] = "uniform"
    """Law of the training times: uniform, sigmoid(n), or sigmoid(1.2 + 1.2 n) with n standard normal."""
    pairing: Literal["independent", "transport"] = "independent"
    """How noise and data are paired. transport: optimally within each batch (flows, also beside masks)."""
    holdout: Literal["test", "validation"] = "test"
    """Rows that the report compares with. validation: a quarter of the training rows, which are then not learned
    from; for the choice of options, which must not see the test rows."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW), in units of the learning rate."""
    num_bound: int = 1_000
    """Held-out states whose log-density is bounded; costly for flows in many dimensions."""
    iterations: int = 100
    updates_per_iteration: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-3
    ema_decay: float = 0.999
    width: int = 128
    depth: int = 3
    num_samples: int = 5_000


@dataclass(kw_only=True)
class RealDataOptions(RealOptions, DataOptions):
    """Defaults shared by data with real coordinates."""

    scale: float = 1.0


@dataclass(kw_only=True)
class PlaneOptions(RealDataOptions):
    """Points in the plane, standardised."""

    num_bound: int = 5_000


@dataclass(kw_only=True)
class MoonsOptions(PlaneOptions):
    """Two interleaved half circles in the plane."""


@dataclass(kw_only=True)
class CheckerboardOptions(PlaneOptions):
    """Eight black squares of a board in the plane."""


@dataclass(kw_only=True)
class RingsOptions(PlaneOptions):
    """Four concentric rings in the plane, of weights .1 to .4; with --method an energy of them (--method M --help)."""


@dataclass(kw_only=True)
class DigitsOptions(RealDataOptions):
    """Handwritten digits, 8 x 8 grey levels as real numbers in [-1, 1] (scikit-learn)."""

    scale: float = 0.6
    iterations: int = 20
    learning_rate: float = 3e-3
    width: int = 256
    num_samples: int = 2_000
    num_bound: int = 20


@dataclass(kw_only=True)
class DigitTokensOptions(DataOptions):
    """Handwritten digits, 8 x 8 pixels as symbols with 17 grey levels (scikit-learn)."""

    process: Literal["mask", "uniform"] = "mask"
    """mask: pixels are revealed one by one. uniform: they start at random and jump, in steps on a grid of times."""
    weighting: Literal["rate", "uniform"] = "rate"
    """rate: generalised KL divergence of the rates, whose mean is the ELBO. uniform: cross-entropy."""
    num_steps: int = 100
    """Steps of the sampler (uniform only)."""
    iterations: int = 6
    width: int = 256
    depth: int = 2
    num_samples: int = 2_000
    num_bound: int = 500


@dataclass(kw_only=True)
class MixedDataOptions(RealDataOptions):
    """Defaults shared by tables with continuous and categorical columns."""

    symbols: Literal["mask", "uniform"] = "mask"
    """What the categories follow, as for digit tokens."""
    weighting: Literal["rate", "uniform"] = "rate"
    """As for digit tokens."""


@dataclass(kw_only=True)
class MixedTableOptions(MixedDataOptions):
    """Visits to doctors and health insurance, 5,094 rows of eight columns of both kinds (statsmodels)."""

    process: Literal["flow", "diffusion", "flow+diffusion", "jump", "flow+jump"] = "jump"
    iterations: int = 60
    times: Literal["uniform", "logit-normal", "skewed"] = "skewed"
    width: int = 192
    num_bound: int = 200


@dataclass(kw_only=True)
class MixedSyntheticOptions(MixedDataOptions):
    """Two categorical and three Gaussian columns with known means, correlations and class probabilities."""

    iterations: int = 40
    num_bound: int = 500


DATA_SETS: dict[str, type[DataOptions]] = {
    "digits": DigitsOptions,
    "digits-tokens": DigitTokensOptions,
    "mixed-table": MixedTableOptions,
    "mixed-synthetic": MixedSyntheticOptions,
    "moons": MoonsOptions,
    "checkerboard": CheckerboardOptions,
    "rings": RingsOptions,
}

RUNS: dict[str, type[RunOptions]] = {**TARGETS, **DATA_SETS}


def configuration(name: str, options: RunOptions) -> dict[str, Any]:
    """What determines the result of a run, as JSON values."""
    return {"target": name, **result_options(options)}


def read_configuration(folder: Path) -> tuple[str, RunOptions]:
    """The target's or data set's name and options of the run in `folder`; `ValueError` where there is none."""
    try:
        values = json.loads((folder / "config.json").read_text())
        name = values.pop("target")
        return name, RUNS[name](out=folder, **values)
    except OSError as error:
        raise ValueError(f"run: {folder} has no config.json") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"run: {folder}/config.json is not a configuration of this version") from error
