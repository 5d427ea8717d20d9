"""Networks of `benchmarks.train`: what a target, a process and the order of its sites call for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from egmjax.estimators import psi_from_energy
from egmjax.networks import (
    CausalTransformer,
    CoordinateMLP,
    InformedNet,
    LatticeNet,
    MaskedMLP,
    OrderAgnosticMLPs,
    OrderedMLPs,
    ParticleNet,
    ResidualMLP,
    SiteMLPs,
    VectorNet,
)
from egmjax.paths import MaskedPath, displacements, nearest_earlier, tie_by_displacement, torus_points
from egmjax.processes import (
    DiffusionProcess,
    MaskedProcess,
    Process,
    energy_residual,
    rowwise,
    site_order,
    sitewise,
    with_local_fields,
)
from egmjax.states import Categorical, Real
from egmjax.targets import Target

from .options import (
    LatticeOptions,
    Options,
    RealOptions,
    RunOptions,
    SpinGlassOptions,
    is_coarse_to_fine,
    network_of,
)


class Networks(NamedTuple):
    """Parameters `{"generator", "psi"}`, the second only where a noised energy is learned too."""

    init: Callable[[jax.Array], Any]
    generator: Callable[[Any, Any, Any], Any]
    psi: Callable[[Any, Any, Any], jax.Array] | None = None


def needs_time(process: Process) -> bool:
    """What a mask hides does not depend on the time."""
    return not isinstance(process, MaskedProcess)


def dtype_of(options: RunOptions) -> Any:
    """The networks' `dtype`; the noised energy has none, as weights are made of it."""
    return jnp.bfloat16 if options.dtype == "bfloat16" else None


def make_networks(options: Options, target: Target, process: Process) -> Networks:
    if is_coarse_to_fine(options):
        return _site_networks(options, target, process)
    if isinstance(options, LatticeOptions) and network_of(options) == "site":
        return _order_agnostic(options, target, process)
    generator: Any
    use_time, dtype = needs_time(process), dtype_of(options)
    scale = options.scale if isinstance(options, RealOptions) else 1.0
    common: dict[str, Any] = {"width": options.width, "depth": options.depth, "scale": scale, "dtype": dtype}
    output, kind = process.prediction_shape(), getattr(options, "network", "mlp")
    if isinstance(options, LatticeOptions) and not isinstance(options, SpinGlassOptions):
        assert isinstance(target.space, Categorical)
        generator = LatticeNet(
            options.length,
            target.space.num_states,
            width=options.width,
            depth=options.depth,
            radius=options.radius,
            odd=target.symmetric_under_flip,
            use_time=use_time,
            dtype=dtype,
        )
    elif kind == "coordinates":
        if not isinstance(target.space, Real):
            raise ValueError(f"network: coordinates are for a Real space, and {target.space} is none")
        generator = CoordinateMLP(target.space, output, **common)
    elif kind in ("particles", "vectors"):
        if target.num_particles is None:
            raise ValueError(f"network: a {type(target).__name__} has no particles")
        of_particles = VectorNet if kind == "vectors" else ParticleNet
        generator = of_particles(target.space, output, target.num_particles, **common)
    else:
        generator = ResidualMLP(target.space, output, use_time=use_time, **common)
    if getattr(options, "energy_gradient", False):
        generator = InformedNet(generator, _energy_residual(options, target, process))
    has_psi = options.objective == "bootstrap"
    psi: Any = ResidualMLP(
        target.space, (), max(options.width, 128), options.depth, scale=scale, use_time=use_time
    )

    def init(key: jax.Array) -> Any:
        x0 = process.path.sample_prior(key)
        params = {"generator": generator.init(key, x0, jnp.zeros(()))}
        if has_psi:
            params["psi"] = psi.init(jax.random.fold_in(key, 1), x0, jnp.zeros(()))
        return params

    def network_fn(params: Any, x: Any, t: Any) -> Any:
        return generator.apply(params["generator"], x, t)

    apply_fn: Callable[[Any, Any, Any], Any] = network_fn
    if getattr(options, "local_fields", False):
        assert isinstance(process, MaskedProcess)
        apply_fn = with_local_fields(network_fn, process.path, target.site_energies)
    return Networks(
        init,
        apply_fn,
        (lambda params, x, t: psi.apply(params["psi"], x, t)) if has_psi else None,
    )


def _energy_residual(options: Options, target: Target, process: Process) -> Callable[[Any, Any], jax.Array]:
    if not isinstance(process, DiffusionProcess):
        raise ValueError(f"energy_gradient: for real coordinates alone, and the target is on {target.space}")
    return energy_residual(process.path, psi_from_energy(target.energy, process.path), detail=process.detail)


def _site_networks(options: Options, target: Target, process: Process) -> Networks:
    """What predicts each site from earlier ones, but the last ones, which follow their exact law."""
    assert isinstance(options, LatticeOptions)
    assert isinstance(process, MaskedProcess)
    path = process.path
    order = site_order(path)
    shape = _symbol_shape(options, target, path)
    points = torus_points(options.length)
    network: Any
    if network_of(options) == "masked":
        network = MaskedMLP(order.first, **shape)
    elif network_of(options) == "transformer":
        pairs = displacements(points, period=options.length) if target.site_symmetries is not None else None
        network = CausalTransformer(order.first, pairs, **shape)
    elif options.context is None or options.context >= len(order.first) - 1:
        tied = tie_by_displacement(points[order.first], period=options.length) if options.tied else None
        network = OrderedMLPs(order.first, tied=tied, **shape)
    else:
        contexts = nearest_earlier(points, order.rank, options.context, period=options.length)
        network = SiteMLPs(contexts[order.first], **shape)

    generator = sitewise(
        path,
        lambda params, x: network.apply(params["generator"], x),
        lambda params, *block: network.decode(params["generator"], *block),
        target.site_energies,
        block_size=getattr(network, "block_size", None),
    )

    def init(key: jax.Array) -> Any:
        return {"generator": network.init(key, jnp.zeros(path.sites, jnp.int32))}

    return Networks(init, generator)


def _order_agnostic(options: LatticeOptions, target: Target, process: Process) -> Networks:
    """What predicts each site from whichever others are known."""
    assert isinstance(process, MaskedProcess)
    path = process.path
    tied = None
    if options.tied:
        tied = tie_by_displacement(torus_points(options.length), period=options.length, any_order=True)
    network: Any = OrderAgnosticMLPs(path.sites, tied=tied, **_symbol_shape(options, target, path))

    def init(key: jax.Array) -> Any:
        return {"generator": network.init(key, jnp.zeros(path.sites, jnp.int32))}

    generator = rowwise(
        lambda params, x: network.apply(params["generator"], x),
        lambda params, x, i: network.apply(params["generator"], x, i, method="row"),
        lambda params, contexts: network.apply(params["generator"], contexts, method="each"),
    )
    return Networks(init, generator)


def _symbol_shape(options: LatticeOptions, target: Target, path: MaskedPath) -> dict[str, Any]:
    return {
        "num_states": path.num_states,
        "width": options.width,
        "depth": options.depth,
        "odd": target.symmetric_under_flip,
        "equivariant": target.symmetric_under_relabelling and not target.symmetric_under_flip,
    }
