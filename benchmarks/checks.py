"""What options may hold: `check(options)` refuses, in one sentence that names the option, what makes no sense."""

from __future__ import annotations

import math
from typing import Any

from .options import (
    LatticeOptions,
    Options,
    RunOptions,
    jumps_by_particles,
    mix_starts_at,
    network_of,
    order_of,
    recipe,
    reveals_several,
)

COUNTS = (
    "num_bound",
    "iterations",
    "updates_per_iteration",
    "batch_size",
    "num_rollouts",
    "buffer_rollouts",
    "num_proposals",
    "num_bootstrap_proposals",
    "chunk_size",
    "width",
    "depth",
    "num_samples",
    "num_exact",
    "checkpoint_every",
    "num_steps",
    "context",
    "average",
    "bins",
    "num_wells",
    "dim",
    "proposal_devices",
)
POSITIVE = (
    "learning_rate",
    "clip_norm",
    "scale",
    "detail",
    "noise",
    "reach",
    "bootstrap_step",
    "refresh_step",
    "chain_step",
)
FINITE = ("beta", "coupling", "field")
FRACTIONS = ("ema_decay", "temper_start", "temper_fraction")


def check_seed(seed: int) -> None:
    """Raises `ValueError` for a seed that jax would refuse or fold onto another one."""
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed: in 0..2^31-1, got {seed}")


def check(options: RunOptions) -> None:
    """Raises `ValueError` naming the first option with a senseless value."""
    _check_ranges(options)
    check_seed(options.seed)
    _check_process(options)
    if isinstance(options, LatticeOptions):
        _check_lattice(options)
    if isinstance(options, Options):
        _check_mix(options)
        _check_reference(options)
        _check_chains(options)
    if options.proposal_devices > 1 and getattr(options, "objective", None) not in ("snis", "bootstrap"):
        raise ValueError(
            "proposal_devices: there are proposals to share with --objective snis and bootstrap only"
        )
    objectives = {getattr(options, name, None) for name in ("objective", "mix")}
    if getattr(options, "chunk_size", None) and not objectives & {"snis", "bootstrap"}:
        raise ValueError("chunk_size: there are proposals with --objective snis and bootstrap only")


def _check_ranges(options: RunOptions) -> None:
    """Each option for itself; an option that is left out, `None`, is in its range."""

    def require(names: tuple[str, ...], is_right: Any, sentence: str) -> None:
        for name in names:
            value = getattr(options, name, None)
            if value is not None and not is_right(value):
                raise ValueError(f"{name}: {sentence}, got {value}")

    require(COUNTS, lambda value: value >= 1, "at least 1")
    require(POSITIVE, lambda value: 0 < value < math.inf, "must be positive and finite")
    require(FINITE, math.isfinite, "must be finite")
    require(FRACTIONS, lambda value: 0 <= value <= 1, "a fraction in [0, 1]")
    require(("min_ess_fraction",), lambda value: 0 <= value < 1, "a fraction in [0, 1)")
    require(("power",), lambda value: 1 <= value < math.inf, "at least 1 and finite")
    require(("weight_decay",), lambda value: 0 <= value < math.inf, "at least 0 and finite")
    require(("refresh", "radius", "num_chains"), lambda value: value >= 0, "at least 0")


def _check_process(options: RunOptions) -> None:
    """What a process on real coordinates or its temperature asks for."""
    process = getattr(options, "process", "")
    if options.dtype == "bfloat16" and "flow" in process:
        raise ValueError(
            "dtype: the log-determinant of a flow is that of a map that is not rounded to bfloat16"
        )
    if "jump" in process and getattr(options, "objective", None) == "bootstrap":
        raise ValueError("objective: bins of the endpoint are targets at r=1 only, so jumps cannot bootstrap")
    if "jump" in process and (getattr(options, "bins", 2) < 2 or getattr(options, "num_steps", None) == 1):
        raise ValueError("bins: jumps need at least two bins and two steps")
    if jumps_by_particles(options):
        raise ValueError(
            "network: particles have velocities and no bins to jump to; jumps need --network mlp"
        )
    power = getattr(options, "power", 1.0)
    if getattr(options, "schedule", "") == "straight" and power != 1:
        raise ValueError(f"power: straight lines have a constant pace, so 1, got {power}")
    if getattr(options, "detail", None) is not None and "diffusion" not in process:
        raise ValueError("detail: steps of a diffusion have a width, those of no other --process")
    if getattr(options, "energy_gradient", False) and process != "diffusion":
        raise ValueError("energy_gradient: for a diffusion (--process diffusion)")
    if getattr(options, "sum_symbols", False) and getattr(options, "integrate_gaussian", False):
        raise ValueError("sum_symbols: or --integrate-gaussian, one of both; nothing may be left to learn")
    is_geometric = getattr(options, "temper_ramp", "linear") == "geometric"
    if is_geometric and not getattr(options, "temper_start", 0.0) > 0:
        raise ValueError("temper_start: above 0 for a geometric ramp")


def _check_lattice(options: LatticeOptions) -> None:
    if options.network == "transformer" and options.width % 4:
        raise ValueError(f"width: a multiple of the 4 heads of attention, got {options.width}")
    if order_of(options) == "coarse-to-fine":
        if options.dtype == "bfloat16":
            raise ValueError(
                "dtype: in this order samples and densities come of two programs, which in bfloat16 differ"
            )
        if options.objective == "bootstrap":
            raise ValueError("objective: a fixed order has no noised energy to bootstrap through")
        if options.process == "uniform":
            raise ValueError("order: only sites under a mask have one, not those of --process uniform")
        if options.local_fields:
            raise ValueError("local_fields: in this order no neighbour of a site is known before it")
        if options.network == "lattice":
            raise ValueError("network: layers that couple all sites are for any other order (--order random)")
        if options.context is not None and network_of(options) != "site":
            raise ValueError(f"context: only --network site looks at nearest sites, not {options.network}")
    elif options.context is not None or options.network in ("masked", "transformer"):
        name = "network" if options.context is None else "context"
        raise ValueError(f"{name}: chosen for a fixed order of sites only (--order coarse-to-fine)")
    elif options.average > 1:
        raise ValueError("average: needs the density of a fixed order (--order coarse-to-fine)")
    elif network_of(options) == "site":
        _check_site_network(options)
    if reveals_several(options) and (options.process == "uniform" or order_of(options) != "random"):
        raise ValueError("sites_per_step: several at once are for masks in random order (--order random)")
    if options.local_fields and options.process == "uniform":
        raise ValueError("local_fields: only under a mask is a site known or not, not with --process uniform")


def _check_site_network(options: LatticeOptions) -> None:
    """A perceptron for each site, in any order."""
    if options.process == "uniform":
        raise ValueError("network: a perceptron for each site is for masks, not for --process uniform")
    for name in ("local_fields", "radius"):
        if getattr(options, name) not in (None, False):
            raise ValueError(f"{name}: needs layers that couple all sites (--network lattice)")
    if options.objective == "bootstrap":
        raise ValueError(
            "network: a noised energy is bootstrapped by layers that couple all sites (--network lattice)"
        )
    if options.dtype == "bfloat16":
        raise ValueError(
            "dtype: rows and densities come of two programs, which in bfloat16 differ (--network lattice)"
        )


def _check_reference(options: Options) -> None:
    """Draws of the target to learn from."""
    num_reference = options.num_reference
    if num_reference < 0 or num_reference == 1:
        raise ValueError(f"num_reference: 0, or at least 2 draws, got {num_reference}")
    if num_reference and options.objective not in ("weighted", "likelihood"):
        raise ValueError(f"num_reference: weighted and likelihood learn from draws, not {options.objective}")
    if num_reference and options.refresh:
        raise ValueError("num_reference: or --refresh, one of both; draws of the target need no moves")


def _check_chains(options: Options) -> None:
    """Chains to learn from, and noise that is paired with what is learned from."""
    learns_once = options.objective == "weighted" and options.mix is None
    if options.num_chains:
        if not learns_once:
            raise ValueError(
                "num_chains: their states have no weights, and --objective weighted alone learns from them"
            )
        for name in ("num_reference", "refresh"):
            if getattr(options, name):
                raise ValueError(f"{name}: or --num-chains, one of both")
    if getattr(options, "pairing", "independent") == "aligned":
        if getattr(options, "process", "") != "flow":
            raise ValueError("pairing: for --process flow, the others need noise that is independent")
        if not learns_once:
            raise ValueError("pairing: for --objective weighted alone, the others draw their own noise")


def _check_mix(options: Options) -> None:
    if not 0 < options.mix_weight <= 1:
        raise ValueError(f"mix_weight: in (0, 1], got {options.mix_weight}")
    if not 0 <= options.mix_start < 1:
        raise ValueError(f"mix_start: a fraction in [0, 1), got {options.mix_start}")
    if options.mix is None:
        usual = recipe(options)  # which may have a mixture that was declined
        for name in ("mix_weight", "mix_start"):
            if getattr(options, name) not in (getattr(Options, name), usual.get(name)):
                raise ValueError("mix: names the objective that --mix-weight and --mix-start are about")
        return
    if options.mix == options.objective:
        raise ValueError(f"mix: {options.mix} is the objective already")
    if "bootstrap" in (options.mix, options.objective):
        raise ValueError("mix: bootstrap learns a noised energy as well, and is not mixed with others")
    if options.mix_weight == 1 and mix_starts_at(options) == 0:
        raise ValueError(
            f"mix_start: {options.objective} has no iteration where {options.mix} is all from the start"
        )
