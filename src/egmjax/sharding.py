"""Many devices and several processes: a mesh of states and proposals, and how arrays are laid out over it.

Every process runs the same program on its share of every array. Random numbers are functions of a key and a place in
the whole array, so results do not depend on the number of devices, up to the rounding of sums. With `mesh=None` nothing
here does anything: the plain program of one device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

SpecFn = Callable[[str, tuple[int, ...]], PartitionSpec]  # (path "params/Dense_0/kernel", shape) -> layout


def state_mesh(devices: Any = None, *, proposals: int = 1) -> Mesh:
    """A mesh with axes `states` and `proposals`, over `devices` (default: all, of every process).

    `proposals` devices share the importance-sampling proposals of a state. Raises `ValueError` unless it divides the
    number of devices.
    """
    devices = np.asarray(jax.devices() if devices is None else devices)
    if proposals < 1 or devices.size % proposals:
        raise ValueError(f"proposals: must divide the number of devices, {devices.size}, got {proposals}")
    return Mesh(devices.reshape(-1, proposals), ("states", "proposals"))


def constrain(tree: Any, mesh: Mesh | None, spec: PartitionSpec | None = None) -> Any:
    """Lays every leaf out by `spec`, default: its leading axis over all devices; unchanged without a mesh.

    `PartitionSpec()` is a copy on each device. Under `jax.vmap` the mapped axis stays as it is.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names) if spec is None else spec)
    return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, sharding), tree)


def value_and_grad_by_device(
    loss_fn: Callable[[Any, Any], Any], mesh: Mesh | None, *, has_aux: bool = False
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """`jax.value_and_grad(loss_fn, has_aux=has_aux)` of a `loss_fn(params, batch)` that is a mean over leading axes.

    Each device differentiates its share of the batch down to the parameters, so that devices exchange one gradient,
    whatever a layer makes of its parameters and however often they are used. Auxiliary values are averaged as well. A
    batch that cannot be split evenly (an example may be a group of states) is left to the compiler.
    """
    plain = jax.value_and_grad(loss_fn, has_aux=has_aux)
    if mesh is None:
        return plain

    def by_device(params: Any, batch: Any) -> tuple[Any, Any]:
        if any(a.shape[0] % mesh.size for a in jax.tree.leaves(batch)):
            return plain(params, batch)
        shares = jax.tree.map(lambda a: a.reshape(mesh.size, -1, *a.shape[1:]), batch)
        each = jax.vmap(plain, (None, 0))(params, constrain(shares, mesh))
        return jax.tree.map(lambda a: jnp.mean(a, axis=0), constrain(each, mesh))

    return by_device


def replicated(path: str, shape: tuple[int, ...]) -> PartitionSpec:
    """The rule for parameters that are small beside the states: a copy on each device."""
    return PartitionSpec()


def check_divides(mesh: Mesh | None, name: str, count: int) -> None:
    """Raises `ValueError` naming `name` unless `count` states can be dealt to all devices evenly."""
    if mesh is not None and count % mesh.size:
        raise ValueError(f"{name}: a multiple of the number of devices, {mesh.size}, got {count}")


def is_writer() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process has come here; at once where there is one. `name` tells places apart."""
    multihost_utils.sync_global_devices(name)
