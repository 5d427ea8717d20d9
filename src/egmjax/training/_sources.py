"""Where the states `x_1` that a trainer learns from come from.

    rollout_source   the model's own samples: rolled out, weighed and kept in a replay buffer      (energies)
    chain_source     states of Hamiltonian chains that go on beside the training                   (energies on R^d)
    data_source      rows of an array                                                              (data)

A trainer knows no other difference between learning from an energy and learning from data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from .._precision import highest
from ..estimators import PsiFn
from ..mcmc import HamiltonianChain, RefreshFn
from ..paths import GaussianPath, Path
from ..processes import Process, bind
from ..sharding import check_divides, constrain
from ..simulators import Rollout, Sampler
from ..states import Space, check_state
from ._buffer import BufferState, ReplayBuffer
from ._objectives import ApplyFn

Metrics = dict[str, jax.Array]


class Source(NamedTuple):
    """Three pure functions.

    `init() -> state`, a pytree of arrays; `renew(key, state, params, temper) -> (state, metrics)`, called once an
    iteration with averaged parameters; `draw(key, state, num, temper) -> x1`, `num` states, stacked.
    """

    init: Callable[[], Any]
    renew: Callable[[jax.Array, Any, Any, jax.Array], tuple[Any, Metrics]]
    draw: Callable[[jax.Array, Any, int, jax.Array], Any]


def rollout_source(
    process: Process,
    sampler: Sampler,
    buffer: ReplayBuffer,
    psi_fn: PsiFn,
    apply_fn: ApplyFn,
    *,
    num_rollouts: int = 512,
    refresh: RefreshFn | None = None,
    mesh: Mesh | None = None,
) -> Source:
    """`num_rollouts` samples of the model an iteration, with their exact log-weights, kept in `buffer`.

    Its metrics are `ess_fraction`, `log_z` and `elbo` of the fresh roll-outs under the untempered target, their
    `num_nonfinite`, and `temper`. `refresh(key, x, log_density_fn)`, e.g. `mcmc.refreshing_moves`, moves buffered
    states by kernels of the tempered target before they are learned from: they may find what the model has not, and
    the run then learns from MCMC too. With a `mesh`, roll-outs are split over all devices and the buffer over the
    `states` axis; draws are those of one device. Raises `ValueError` for `num_rollouts < 1`, or roll-outs or a
    capacity that cannot be split evenly.
    """
    if num_rollouts < 1:
        raise ValueError(f"num_rollouts: at least 1, got {num_rollouts}")
    check_divides(mesh, "num_rollouts", num_rollouts)
    path = process.path

    def init() -> BufferState:
        return _empty(buffer, path, mesh)

    def log_density(x: Any, temper: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return temper * psi_fn(x, 1.0) + path.log_reference(x, 1.0)

    def roll_out(key: jax.Array, params: Any) -> tuple[Rollout, jax.Array]:
        keys = constrain(jax.random.split(key, num_rollouts), mesh)
        rollouts = jax.vmap(lambda k: sampler.sample(k, bind(apply_fn, params)))(keys)
        with jax.default_matmul_precision("highest"):
            psi = jax.vmap(lambda x: psi_fn(x, 1.0))(rollouts.x)
        return rollouts, psi

    def renew(key: jax.Array, state: BufferState, params: Any, temper: jax.Array) -> tuple[Any, Metrics]:
        rollouts, psi = roll_out(key, params)
        log_w = psi + rollouts.log_weight
        finite = jnp.isfinite(log_w)
        metrics = {"num_nonfinite": jnp.sum(~finite, dtype=jnp.int32), "temper": temper}
        metrics |= _weight_metrics(jnp.where(finite, log_w, -jnp.inf))
        return buffer.add(state, rollouts, psi), metrics

    def draw(key: jax.Array, state: BufferState, num: int, temper: jax.Array) -> Any:
        # weights are summed in the same order on every device, so that all find the same places
        log_weight, psi = constrain((state.log_weight, state.psi), mesh, PartitionSpec())
        x1 = constrain(buffer.draw(key, state._replace(log_weight=log_weight, psi=psi), num, temper), mesh)
        if refresh is None:
            return x1
        keys = jax.random.split(jax.random.fold_in(key, 1), num)
        return jax.vmap(lambda k, x: refresh(k, x, lambda y: log_density(y, temper)))(keys, x1)

    return Source(init, renew, draw)


def chain_source(
    path: GaussianPath,
    buffer: ReplayBuffer,
    psi_fn: PsiFn,
    chain: HamiltonianChain,
    *,
    num_chains: int = 256,
    num_trajectories: int = 10,
    mesh: Mesh | None = None,
) -> Source:
    """`num_chains` copies of `chain`, each `num_trajectories` further an iteration, kept in `buffer`.

    For energies whose roll-outs weigh nothing until the model is good, e.g. of particles that must not overlap: the run
    then learns from MCMC, and the weights of its samples certify it all the same. Chains start from the reference at
    `t = 1` and go on from the newest states of the buffer, which is all they keep. Nothing is tempered.

    `psi_fn` is that of the energy (`estimators.psi_from_energy`), `chain` one of its chains, e.g.
    `mcmc.hamiltonian_chain(lambda x: -target.energy(x), step_size=0.02)`, and `buffer` draws uniformly,
    `weighted=False`. Metrics: `acceptance` of the trajectories, to be well above a half, and the `mean_energy` of the
    states. With a `mesh` chains are split over all devices and the buffer over the `states` axis. Cost:
    `chain.num_advance` gradients a trajectory, and `chain.num_start` for each chain at first.

    Raises `ValueError` for a count below one and chains that cannot be split evenly, and by `init` for more chains than
    fit into the buffer and a capacity that cannot be split evenly.
    """
    for name, value in (("num_chains", num_chains), ("num_trajectories", num_trajectories)):
        if value < 1:
            raise ValueError(f"{name}: at least 1, got {value}")
    check_divides(mesh, "num_chains", num_chains)

    def init() -> BufferState:
        state = _empty(buffer, path, mesh)
        capacity = state.psi.shape[0]
        if num_chains > capacity:
            raise ValueError(f"num_chains: {num_chains} do not fit into a buffer of capacity {capacity}")
        return state

    def start(key: jax.Array) -> jax.Array:
        key_noise, key_start = jax.random.split(key)
        noise = path.unstandardize(jax.random.normal(key_noise, path.shape), 1.0)
        return chain.start(key_start, noise)

    def renew(key: jax.Array, state: BufferState, params: Any, temper: jax.Array) -> tuple[Any, Metrics]:
        keys = constrain(jax.random.split(key, num_chains), mesh)
        newest = (state.position - num_chains + jnp.arange(num_chains)) % state.psi.shape[0]
        begun = state.log_weight[newest[0]] > -jnp.inf
        held = constrain(state.x[newest], mesh)
        x = jax.lax.cond(begun, lambda: held, lambda: jax.vmap(start)(keys))
        keys = jax.vmap(lambda k: jax.random.fold_in(k, 1))(keys)
        x, acceptance = jax.vmap(lambda k, y: chain.advance(k, y, num_trajectories))(keys, constrain(x, mesh))
        psi = jax.vmap(highest(lambda y: psi_fn(y, 1.0)))(x)
        energy = -jnp.mean(psi + jax.vmap(lambda y: path.log_reference(y, 1.0))(x))
        metrics = {"acceptance": jnp.mean(acceptance), "mean_energy": energy}
        return buffer.add(state, Rollout(x, jnp.zeros(num_chains)), psi), metrics

    def draw(key: jax.Array, state: BufferState, num: int, temper: jax.Array) -> Any:
        return constrain(buffer.draw(key, state, num, temper), mesh)

    return Source(init, renew, draw)


def _empty(buffer: ReplayBuffer, path: Path, mesh: Mesh | None) -> BufferState:
    """The buffer for states of the path, before any."""
    state = buffer.init(path.sample_prior(jax.random.key(0)))
    check_divides(mesh, "capacity", state.psi.shape[0])
    return state


def data_source(x: Any, space: Space) -> Source:
    """Rows of `x`, an array (a tuple of arrays for a product) of states of `space` stacked along the first axis.

    A draw of `num` takes one row, at random, from each of `num` equal stretches of the data: every row is as
    likely as any other, hardly any comes twice while `num` is at most their number, and sorted rows are spread evenly.
    Nothing is rolled out, kept or weighed, so there are no metrics and a checkpoint does not hold the data; rows
    are constants of the compiled step. Raises `ValueError` for fewer than two rows, for rows that are not states
    of `space`, and for values that are not finite or no symbols.
    """
    rows = check_data(x, space)
    num_rows = len(jax.tree.leaves(rows)[0])

    def renew(key: jax.Array, state: Any, params: Any, temper: jax.Array) -> tuple[Any, Metrics]:
        return state, {}

    def draw(key: jax.Array, state: Any, num: int, temper: jax.Array) -> Any:
        place = (jnp.arange(num) + jax.random.uniform(key, (num,))) * (num_rows / num)
        index = jnp.minimum(place.astype(jnp.int32), num_rows - 1)  # rounding may carry a place past the last
        return jax.tree.map(lambda a: jnp.asarray(a)[index], rows)

    return Source(tuple, renew, draw)


def check_data(x: Any, space: Space, *, name: str = "x") -> Any:
    """`x` as numpy arrays of the default float type and int32; raises `ValueError` naming `name`, see `data_source`."""
    rows = jax.tree.map(np.asarray, x)
    leaves = jax.tree.leaves(rows)
    if not leaves or any(a.ndim == 0 for a in leaves) or len({len(a) for a in leaves}) != 1:
        raise ValueError(f"{name}: expected states of {space} stacked along a first axis of equal length")
    if len(leaves[0]) < 2:
        raise ValueError(f"{name}: needs at least two rows, got {len(leaves[0])}")
    check_state(space, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), rows), name=name)
    default = jax.dtypes.canonicalize_dtype(float)
    for part, a in zip(_flat(space), leaves):
        if np.issubdtype(a.dtype, np.floating):
            bad = ~np.all(np.isfinite(a), axis=tuple(range(1, a.ndim)))
            if bad.any():
                raise ValueError(
                    f"{name}: {bad.sum()} rows are not finite, the first is row {int(np.argmax(bad))}"
                )
        elif a.min() < 0 or a.max() >= part.num_states:
            raise ValueError(
                f"{name}: expected symbols 0..{part.num_states - 1}, got {int(a.min())}..{int(a.max())}"
            )
    return jax.tree.map(
        lambda a: a.astype(default if np.issubdtype(a.dtype, np.floating) else np.int32), rows
    )


def _flat(space: Space) -> list[Any]:
    return [leaf for part in space for leaf in _flat(part)] if isinstance(space, tuple) else [space]


def _weight_metrics(log_w: jax.Array) -> Metrics:
    num = log_w.shape[0]
    log_sum = jax.nn.logsumexp(log_w)
    log_squares = jax.nn.logsumexp(2.0 * log_w)
    return {
        "ess_fraction": jnp.where(jnp.isfinite(log_sum), jnp.exp(2.0 * log_sum - log_squares) / num, 0.0),
        "log_z": log_sum - jnp.log(num),
        "elbo": jnp.mean(log_w),
    }
