"""From options to composed functions: target, process, sampler, network, trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from egmjax.ebm import move_contrastive_objective
from egmjax.estimators import PsiFn, psi_from_energy
from egmjax.mcmc import HamiltonianChain, hamiltonian_chain, refreshing_moves
from egmjax.paths import (
    CondOT,
    GaussianPath,
    Linear,
    MaskedPath,
    MixturePath,
    Ordered,
    coarse_to_fine,
    stationary_path,
    torus_points,
)
from egmjax.processes import (
    BinnedHead,
    DiffusionProcess,
    FlowProcess,
    GaussianJumpProcess,
    MaskedProcess,
    MixtureProcess,
    Process,
    ProductProcess,
    SuperpositionProcess,
    bind,
)
from egmjax.proposals import reference_posterior
from egmjax.simulators import (
    Sampler,
    first_hitting_sampler,
    grid_sampler,
    ordered_sampler,
    scale_spacing,
    symmetrized,
    time_grid,
)
from egmjax.states import Categorical, Real, Space
from egmjax.targets import (
    DW4,
    LJ13,
    Funnel,
    GaussianBernoulliRBM,
    GaussianMixture,
    Integrated,
    Ising,
    JointDW4,
    JointMoG,
    ManyWell,
    Potts,
    SpinGlass,
    Summed,
    Target,
    dependence,
    independent_sites,
    integrated,
    summed,
)
from egmjax.training import (
    Coupling,
    Objective,
    Source,
    Trainer,
    aligned_coupling,
    chain_source,
    data_source,
    geometric_temper,
    likelihood_objective,
    linear_temper,
    log_variance_objective,
    make_trainer,
    multispin_objective,
    psi_objective,
    replay_buffer,
    rollout_source,
    snis_objective,
    sum_objectives,
    weighted_objective,
)

from .commands import device_mesh
from .nets import Networks, make_networks
from .options import (
    Dw4Options,
    FunnelOptions,
    Gmm40Options,
    IsingOptions,
    LatticeOptions,
    LearnedOptions,
    Lj13Options,
    ManyWellOptions,
    ObjectiveName,
    ObjectiveOptions,
    Options,
    PottsOptions,
    RealOptions,
    RunOptions,
    SpinGlassOptions,
    is_coarse_to_fine,
    mix_starts_at,
    order_of,
    reveals_several,
)

TRAJECTORIES = 10  # of a chain, between states that are learned from
REFERENCE_SEED = 30_000  # draws learned from share no key with those of the report


class Phase(NamedTuple):
    """A part of the training, up to iteration `until`.

    `energies_per_iteration` counts evaluations of the energy, one-site changes included, `energies_at_start` those that
    the first iteration takes besides.
    """

    trainer: Trainer
    until: int
    energies_per_iteration: int
    energies_at_start: int = 0


class Setup(NamedTuple):
    """A run's functions. `target` is a `targets.Target`, or the `data_sets.DataSet` learned from.

    Samples are of `target`; `integrated` is what the sampler learns where some coordinates are summed out. `phases` are
    trained one after another, each from the state of the one before. `energies_per_sample` counts evaluations of the
    energy, one-site changes included. `noised_energy_fn(params, x, t)` is the learned psi, where there is one.
    """

    target: Any
    process: Process
    sampler: Sampler
    init_params: Callable[[jax.Array], Any]
    apply_fn: Callable[[Any, Any, Any], Any]
    psi_fn: PsiFn
    phases: tuple[Phase, ...]
    energies_per_sample: int = 1
    noised_energy_fn: Callable[[Any, Any, Any], jax.Array] | None = None
    integrated: Integrated | Summed | None = None
    mesh: Mesh | None = None

    @property
    def sampled(self) -> Any:
        """What process, sampler and `psi_fn` are about: `target`, or what remains of it."""
        return self.target if self.integrated is None else self.integrated

    def complete(self, key: jax.Array, x: Any) -> Any:
        """States `[n, ...]` of `target` from those of `sampled`; weights are unchanged."""
        if self.integrated is None:
            return x
        return jax.vmap(self.integrated.complete)(jax.random.split(key, jax.tree.leaves(x)[0].shape[0]), x)

    def split(self, x: Any) -> Any:
        """States `[n, ...]` of `sampled` from those of `target`."""
        return x if self.integrated is None else jax.vmap(self.integrated.split)(x)

    @property
    def training_energies(self) -> int:
        """Evaluations of the energy that the training costs."""
        starts = (0, *(phase.until for phase in self.phases))
        return sum(
            p.energies_at_start + (p.until - start) * p.energies_per_iteration
            for start, p in zip(starts, self.phases)
        )

    @property
    def has_energy(self) -> bool:
        """Whether samples can be weighed: not where all that is known are data."""
        return isinstance(self.target, Target)

    def predictor(self, params: Any) -> Any:
        """`predict_fn(xt, t)` of the network with these parameters."""
        return bind(self.apply_fn, params)

    def init(self, seed: int) -> Any:
        """The training state at iteration 0."""
        key_network, key_train = jax.random.split(jax.random.key(seed))
        return self.phases[0].trainer.init(key_train, self.init_params(key_network))


def build_from_energy(name: str, options: Options) -> Setup:
    """Composes the run of target `name`."""
    whole = make_target(name, options)
    rest = _integrated(options, whole)
    target = whole if rest is None else rest
    process = make_process(options, target.space, _rank(options, target))
    sampler = make_sampler(options, process)
    networks = make_networks(options, target, process)
    psi_fn = psi_from_energy(target.energy, process.path)
    mesh = device_mesh(options.proposal_devices)
    chain = _chain(options, target)

    def phase(weights: Mapping[ObjectiveName, float], until: int) -> Phase:
        parts: dict[str, Objective] = {}
        for_each = 0
        for kind in weights:
            chosen = replace(options, objective=kind)
            parts[kind] = make_objective(
                chosen,
                process,
                sampler,
                networks,
                psi_fn,
                None if isinstance(rest, Summed) else target.site_energies,
                target.multispin_energy,
                mesh,
                _coupling(options, target, process),
            )
            for_each += energies_of_an_example(chosen, parts[kind], target.space)
        shares = {str(kind): weight for kind, weight in weights.items()}
        objective = sum_objectives(parts, shares) if len(parts) > 1 else next(iter(parts.values()))
        if chain is not None:
            source = _chain_source(options, process, psi_fn, chain, mesh)
        elif options.num_reference:
            source = _reference_source(options, whole, rest)
        else:
            source = _rollout_source(options, target, process, sampler, networks, psi_fn, objective, mesh)
        energies = _energies_of_an_iteration(options, target, process, sampler, chain, for_each)
        return Phase(_make_trainer(options, source, objective, mesh), until, energies * each)

    each = 1 if rest is None else rest.num_energies
    first, *others = (phase(weights, until) for weights, until in objectives_in_turn(options))
    at_start = 0 if chain is None else options.num_chains * chain.num_start * each
    phases = (first._replace(energies_at_start=at_start), *others)
    per_sample = each * (1 + _gradients_of_a_rollout(options, process, sampler))
    init, generator, noised_energy_fn = networks
    if isinstance(options, LatticeOptions) and options.average > 1:
        sampler = symmetrized(sampler, _symmetries(target, options))
    if reveals_several(options):
        assert isinstance(process, MaskedProcess)
        sampler = first_hitting_sampler(process, sites_per_step=options.sites_per_step)
    return Setup(
        whole, process, sampler, init, generator, psi_fn, phases, per_sample, noised_energy_fn, rest, mesh
    )


def objectives_in_turn(options: Options) -> list[tuple[dict[ObjectiveName, float], int]]:
    """Weights of the objectives, and the iteration up to which they hold."""
    if options.mix is None:
        return [({options.objective: 1.0}, options.iterations)]
    start = mix_starts_at(options)
    weights: dict[ObjectiveName, float] = {
        options.objective: 1.0 - options.mix_weight,
        options.mix: options.mix_weight,
    }
    mixed = ({name: weight for name, weight in weights.items() if weight > 0}, options.iterations)
    return [({options.objective: 1.0}, start), mixed] if start > 0 else [mixed]


def _rollout_source(
    options: Options,
    target: Target,
    process: Process,
    sampler: Sampler,
    networks: Networks,
    psi_fn: PsiFn,
    objective: Objective,
    mesh: Mesh | None,
) -> Source:
    """Own samples in a buffer."""
    buffer = replay_buffer(
        options.buffer_rollouts * options.num_rollouts,
        weighted=objective.weighted,
        min_ess_fraction=options.min_ess_fraction,
    )
    refresh = None
    if options.refresh:
        refresh = refreshing_moves(target.space, num_steps=options.refresh, step_size=options.refresh_step)
    return rollout_source(
        process,
        sampler,
        buffer,
        psi_fn,
        networks.generator,
        num_rollouts=options.num_rollouts,
        refresh=refresh,
        mesh=mesh,
    )


def _coupling(options: Options, target: Target, process: Process) -> Coupling | None:
    """How noise is paired with the states that are learned from."""
    if getattr(options, "pairing", "independent") == "independent":
        return None
    if target.num_particles is None:
        raise ValueError(f"pairing: a {type(target).__name__} has no particles to align")
    return aligned_coupling(process.path, target.num_particles)


def _chain(options: Options, target: Target) -> HamiltonianChain | None:
    """What is learned from in place of own samples, if anything."""
    if not options.num_chains:
        return None
    if not isinstance(target.space, Real):
        raise ValueError(f"num_chains: for real coordinates alone, and the target is on {target.space}")
    return hamiltonian_chain(lambda x: -target.energy(x), step_size=options.chain_step)


def _chain_source(
    options: Options, process: Process, psi_fn: PsiFn, chain: HamiltonianChain, mesh: Mesh | None
) -> Source:
    """States of chains of the energy, the newest of them in a buffer."""
    assert isinstance(process.path, GaussianPath)
    return chain_source(
        process.path,
        replay_buffer(options.buffer_rollouts * options.num_chains, weighted=False),
        psi_fn,
        chain,
        num_chains=options.num_chains,
        num_trajectories=TRAJECTORIES,
        mesh=mesh,
    )


def _make_trainer(options: Options, source: Source, objective: Objective, mesh: Mesh | None) -> Trainer:
    ramp = geometric_temper if options.temper_ramp == "geometric" else linear_temper
    return make_trainer(
        source,
        objective,
        make_optimizer(options),
        batch_size=options.batch_size,
        updates_per_iteration=options.updates_per_iteration,
        ema_decay=options.ema_decay,
        temper_fn=ramp(
            1.0 if options.num_reference or options.num_chains else options.temper_start,
            round(options.temper_fraction * options.iterations),
        ),
        mesh=mesh,
    )


def _energies_of_an_iteration(
    options: Options,
    target: Target,
    process: Process,
    sampler: Sampler,
    chain: HamiltonianChain | None,
    for_each: int,
) -> int:
    """Evaluations of the energy for roll-outs or chains and for examples, each of which takes `for_each`."""
    for_each += options.refresh * energies_of_a_move(target.space)
    # the exact law of the last sites takes the local fields of one state, for a roll-out and for its weight; as part of
    # a network they are taken at each of its calls, for every symbol
    for_rollout = int(is_coarse_to_fine(options))
    for_each += for_rollout
    if isinstance(options, LatticeOptions) and options.local_fields:
        assert isinstance(target.space, Categorical)
        for_rollout += sampler.num_steps * target.space.num_states
        for_each += target.space.num_states
    if gradients := _gradients_of_a_rollout(options, process, sampler):
        for_rollout += gradients
        for_each += 1
    if chain is not None:
        renewed = options.num_chains * (1 + TRAJECTORIES * chain.num_advance)
    else:
        renewed = 0 if options.num_reference else options.num_rollouts * (1 + for_rollout)
    return renewed + options.updates_per_iteration * options.batch_size * for_each


def _gradients_of_a_rollout(options: Options, process: Process, sampler: Sampler) -> int:
    """Gradients of the energy that the network is given, at each of its calls."""
    if not getattr(options, "energy_gradient", False):
        return 0
    return sampler.num_steps * (1 if process.is_reversal else 2)


def _reference_source(options: Options, whole: Target, rest: Integrated | Summed | None) -> Source:
    """Draws of the target in place of roll-outs."""
    key = jax.random.fold_in(jax.random.key(REFERENCE_SEED), options.seed)
    x = whole.sample(key, options.num_reference)
    if x is None:
        raise ValueError(f"num_reference: there are no draws of this {type(whole).__name__}")
    space = whole.space if rest is None else rest.space
    return data_source(x if rest is None else jax.vmap(rest.split)(x), space)


def _integrated(options: Options, target: Target) -> Integrated | Summed | None:
    """What is left to learn where some coordinates are summed out."""
    if getattr(options, "integrate_gaussian", False):
        return integrated(target)
    return summed(target) if getattr(options, "sum_symbols", False) else None


def _symmetries(target: Target, options: LatticeOptions) -> np.ndarray:
    """`options.average` different symmetries of the sites, the identity and random ones."""
    known, num = target.site_symmetries, options.average
    if known is None:
        raise ValueError(f"average: no symmetries of the sites of a {type(target).__name__} are known")
    if num > len(known):
        raise ValueError(f"average: at most the {len(known)} symmetries of the lattice, got {num}")
    others = 1 + np.random.default_rng(options.seed).permutation(len(known) - 1)
    return known[[0, *others[: num - 1]]]


def _num_steps(options: RunOptions) -> int:
    num_steps = getattr(options, "num_steps", None)
    if num_steps is not None:
        return num_steps
    process = getattr(options, "process", "flow")
    if "jump" in process:
        return 20
    return 40 if process == "flow" else 100


def energies_of_an_example(options: ObjectiveOptions, objective: Objective, space: Space) -> int:
    """Evaluations of the energy that an example of the objective costs, one-site changes included."""
    if not options.site_conditionals or options.objective not in ("weighted", "snis"):
        return objective.num_energies
    parts = space if isinstance(space, tuple) else (space,)
    changes = sum(part.sites * part.num_states for part in parts if isinstance(part, Categorical))
    return objective.num_energies + changes * (options.num_proposals if options.objective == "snis" else 1)


def grid_of(options: RunOptions, process: Process) -> np.ndarray:
    """Times of steps, equally spaced; with jumps the last one starts where the endpoint is known to a bin."""
    parts = process.processes if isinstance(process, ProductProcess) else (process,)
    for part in parts:
        binned = part.processes[-1] if isinstance(part, SuperpositionProcess) else part
        if isinstance(binned, GaussianJumpProcess):
            width = min(float(binned.head.width), 0.9)  # below the whole reference, however few the bins
            return time_grid(_num_steps(options), scale_spacing(binned.path, width))
    return time_grid(_num_steps(options))


def energies_of_a_move(space: Space) -> int:
    """Evaluations of the energy, or of its gradient, in one move of MCMC on each part of the state."""
    if isinstance(space, tuple):
        return sum(energies_of_a_move(part) for part in space)
    return space.sites * space.num_states if isinstance(space, Categorical) else 1


def make_target(name: str, options: Options) -> Target:
    """The target of a run."""
    match options:
        case IsingOptions():
            return Ising(options.length, options.beta, coupling=options.coupling, field=options.field)
        case PottsOptions():
            return Potts(options.length, options.num_symbols, options.beta)
        case SpinGlassOptions():
            return SpinGlass.plus_minus(options.length, options.beta, seed=options.disorder_seed)
        case Gmm40Options():
            return GaussianMixture.gmm40(options.variant, options.dim)
        case FunnelOptions():
            return Funnel(options.dim)
        case ManyWellOptions():
            return ManyWell(options.num_wells)
        case Dw4Options():
            return DW4()
        case Lj13Options():
            return LJ13(options.factor)
        case LearnedOptions():
            from .learned import load_energy  # imports the flows, which takes seconds

            return load_energy(Path(options.run))
    simple: dict[str, Callable[[], Target]] = {
        "three-peaks": GaussianMixture.three_peaks,
        "three-modes": GaussianMixture.three_modes,
        "gmm25": GaussianMixture.gmm25,
        "gb-rbm": GaussianBernoulliRBM.six_modes,
        "joint-mog": JointMoG,
        "joint-dw4": JointDW4,
    }
    return simple[name]()


def make_optimizer(options: RunOptions) -> optax.GradientTransformation:
    """Clipped gradients, a cosine that ends at 2 percent of the initial rate, and weight decay if any.

    Muon (Jordan et al., 2024) with updates of root mean square 0.2 times the rate (Liu et al., 2025), about Adam's, so
    that both have rates of the same size.
    """
    num_updates = options.iterations * options.updates_per_iteration
    rate = optax.cosine_decay_schedule(options.learning_rate, num_updates, 0.02)
    decay = getattr(options, "weight_decay", 0.0)
    if options.optimizer == "muon":
        rule = optax.contrib.muon(rate, weight_decay=decay, adam_weight_decay=decay, consistent_rms=0.2)
    else:
        rule = optax.adamw(rate, weight_decay=decay)
    return optax.chain(optax.clip_by_global_norm(options.clip_norm), rule)


def _rank(options: Options, target: Target) -> np.ndarray | None:
    """Ranks of the sites where they have a fixed order."""
    if not isinstance(options, LatticeOptions) or order_of(options) == "random":
        return None
    if options.order == "raster":
        return np.arange(options.length**2)
    last = independent_sites(dependence(target))
    return coarse_to_fine(torus_points(options.length), period=options.length, last=last)


def make_sampler(options: RunOptions, process: Process) -> Sampler:
    """Site by site in a fixed order or in exact hitting times for masks alone, else on a grid of times."""
    if is_coarse_to_fine(options):
        assert isinstance(process, MaskedProcess)
        return ordered_sampler(process)
    if isinstance(process, MaskedProcess):
        return first_hitting_sampler(process)
    return grid_sampler(process, grid_of(options, process))


def make_process(options: RunOptions, space: Space, rank: np.ndarray | None = None) -> Process:
    """A process for each component of the space; `rank` of the sites where they have a fixed order."""
    match space:
        case Real(shape):
            assert isinstance(options, RealOptions)
            return _real_process(options, _real_path(options, shape))
        case Categorical(sites, num_states):
            # mixed spaces have an option for either kind of component
            kind = getattr(options, "symbols", None) or getattr(options, "process")  # noqa: B009
            weighting: Any = getattr(options, "weighting", "rate")
            if kind == "uniform":
                return MixtureProcess(MixturePath(sites=sites, num_states=num_states), weighting)
            schedule = Linear() if rank is None else Ordered.from_rank(rank)
            return MaskedProcess(MaskedPath(schedule, sites=sites, num_states=num_states), weighting)
    assert isinstance(space, tuple)
    return ProductProcess(tuple(make_process(options, part) for part in space))


def _real_path(options: RealOptions, shape: tuple[int, ...]) -> GaussianPath:
    if options.schedule == "straight":
        return GaussianPath(CondOT(options.scale), scale=options.scale, shape=shape)
    return stationary_path(shape, scale=options.scale, power=options.power)


def _real_process(options: RealOptions, path: GaussianPath) -> Process:
    if "jump" in options.process:
        head = BinnedHead(options.bins, options.reach)
        jump = GaussianJumpProcess(path, head=head)
        if options.process == "jump":
            return jump
        return SuperpositionProcess((FlowProcess(path, stepper=options.stepper, head=head), jump), (0.5, 0.5))
    flow = FlowProcess(path, stepper=options.stepper)
    detail = options.scale if options.detail is None else options.detail
    diffusion = DiffusionProcess(path, options.noise, detail / options.scale)
    if options.process == "flow+diffusion":
        return SuperpositionProcess((flow, diffusion), (0.5, 0.5))
    return flow if options.process == "flow" else diffusion


def make_objective(
    options: ObjectiveOptions,
    process: Process,
    sampler: Sampler,
    networks: Networks,
    psi_fn: PsiFn,
    site_energies_fn: Callable[[Any], jax.Array] | None,
    multispin_energy_fn: Callable[[jax.Array], jax.Array] | None = None,
    mesh: Mesh | None = None,
    coupling: Coupling | None = None,
) -> Objective:
    """The objective that the options name; the fastest form of it."""
    conditionals = site_energies_fn if options.site_conditionals else None
    if options.objective == "log-variance":
        return log_variance_objective(sampler, networks.generator, psi_fn)
    if options.objective == "likelihood":
        return likelihood_objective(sampler, networks.generator)
    if options.objective == "weighted":
        return weighted_objective(
            process, networks.generator, site_energies_fn=conditionals, coupling=coupling
        )
    num_proposals = options.num_proposals
    how: dict[str, Any] = {"chunk_size": options.chunk_size, "mesh": mesh}
    if (
        options.objective == "snis"
        and isinstance(process, MaskedProcess)
        and conditionals is None
        and multispin_energy_fn is not None
    ):
        return multispin_objective(
            process, networks.generator, multispin_energy_fn, num_proposals=num_proposals, **how
        )
    proposal = reference_posterior(process.path)
    if options.objective == "snis":
        return snis_objective(
            process,
            networks.generator,
            proposal,
            psi_fn,
            num_proposals=num_proposals,
            site_energies_fn=conditionals,
            **how,
        )

    def step_fn(t: jax.Array, iteration: jax.Array) -> jax.Array:
        return jnp.asarray(options.bootstrap_step)

    assert networks.psi is not None
    num_proposals = options.num_bootstrap_proposals
    if options.noised_energy == "contrast":
        learned = move_contrastive_objective(
            process.path,
            networks.psi,
            later_fn=lambda t: jnp.minimum(t + options.bootstrap_step, 1.0),
            psi_fn=psi_fn,
        )
    else:
        learned = psi_objective(
            process, networks.psi, proposal, psi_fn, num_proposals=num_proposals, step_fn=step_fn, **how
        )
    bootstrapped = snis_objective(
        process,
        networks.generator,
        proposal,
        psi_fn,
        num_proposals=num_proposals,
        psi_apply_fn=networks.psi,
        step_fn=step_fn,
        **how,
    )
    return sum_objectives({"psi": learned, "generator": bootstrapped})
