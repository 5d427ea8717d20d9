"""Sharding: states are split over the first axis of a mesh, parameters are replicated."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def state_mesh(devices: Any = None) -> Mesh:
    """A mesh with one axis, `states`, over `devices` (default: all)."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), ("states",))


def constrain(tree: Any, mesh: Mesh | None) -> Any:
    """Splits the leading axis of every leaf over the mesh's first axis; unchanged without a mesh."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, sharding), tree)
