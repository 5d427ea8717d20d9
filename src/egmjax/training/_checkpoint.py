"""Durable checkpoints (orbax) that refuse to be mistaken for those of another configuration.

A save is atomic: it is written beside its final place and renamed, so a process killed at any moment leaves
the previous checkpoint intact. Typed random keys are stored as their data. Of several processes each writes its share
of every array into the same folder; what is restored is laid out as the template is, on any number of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..sharding import is_writer

FINGERPRINT = "configuration.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or belongs to another configuration."""


class Checkpoints(NamedTuple):
    """The checkpoints of one run in `directory`, made with `configuration` (compared as JSON)."""

    directory: Path
    configuration: Mapping[str, Any]
    keep: int = 2

    def save(self, iteration: int, state: Any) -> None:
        """Writes `state` (any pytree of arrays) as of `iteration`; older ones beyond `keep` are removed.

        Raises `CheckpointError` where the folder holds checkpoints of another configuration. Costs no memory for good
        up to orbax 0.11.38, some 40 KiB with 0.12.8.
        """
        import orbax.checkpoint as ocp

        self.directory.mkdir(parents=True, exist_ok=True)
        fingerprint = self.directory / FINGERPRINT
        if fingerprint.exists():
            self._check_configuration()
        elif is_writer():
            write_atomically(fingerprint, json.dumps(dict(self.configuration), indent=1, sort_keys=True))
        with _quiet(), self._manager(ocp) as manager:
            manager.save(iteration, args=ocp.args.StandardSave(_unwrap_keys(state)), force=True)
            manager.wait_until_finished()

    def latest(self) -> int | None:
        """The iteration of the newest complete checkpoint, or `None`."""
        steps = [int(p.name) for p in self.directory.glob("*") if p.is_dir() and p.name.isdigit()]
        return max(steps, default=None)

    def restore(self, template: Any) -> Any:
        """The newest state, with the structure of `template`.

        Raises `CheckpointError` where there is none, where it is damaged, or where it was made with another
        configuration.
        """
        import orbax.checkpoint as ocp

        iteration = self.latest()
        if iteration is None:
            raise CheckpointError(f"checkpoint: none in {self.directory}")
        self._check_configuration()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _unwrap_keys(template))
        try:
            with _quiet(), self._manager(ocp) as manager:
                restored = manager.restore(iteration, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # orbax raises many kinds; all mean that this checkpoint cannot be used
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise CheckpointError(
                f"checkpoint: {self.directory / str(iteration)} is damaged or incomplete ({reason})"
            ) from error
        return _wrap_keys(restored, template)

    def _check_configuration(self) -> None:
        try:
            stored = json.loads((self.directory / FINGERPRINT).read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"checkpoint: {self.directory / FINGERPRINT} cannot be read") from error
        if not isinstance(stored, dict):
            raise CheckpointError(f"checkpoint: {self.directory / FINGERPRINT} cannot be read")
        wanted = json.loads(json.dumps(dict(self.configuration)))
        changed = sorted(k for k in stored.keys() | wanted.keys() if stored.get(k) != wanted.get(k))
        if changed:
            raise CheckpointError(
                f"checkpoint: {self.directory} belongs to another configuration (differs in {', '.join(changed)})"
            )

    def _manager(self, ocp: Any) -> Any:
        options = ocp.CheckpointManagerOptions(max_to_keep=self.keep, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self.directory.resolve(), options=options)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new and nothing between."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


class _quiet:
    """Silences orbax's and absl's progress messages while saving and restoring."""

    def __enter__(self) -> None:
        self._loggers = [
            (logging.getLogger(name), logging.getLogger(name).level) for name in ("absl", "orbax")
        ]
        for logger, _ in self._loggers:
            logger.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        for logger, level in self._loggers:
            logger.setLevel(level)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _unwrap_keys(tree: Any) -> Any:
    def unwrap(leaf: Any) -> Any:
        return jax.random.key_data(leaf) if _is_key(leaf) else leaf

    # orbax knows dictionaries and lists; the leaves in order are all the structure a checkpoint needs
    return {f"{i:05d}": unwrap(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}


def _wrap_keys(stored: dict[str, Any], template: Any) -> Any:
    leaves, structure = jax.tree.flatten(template)
    values = [stored[f"{i:05d}"] for i in range(len(leaves))]
    wrapped = [
        jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(leaf))
        if _is_key(leaf)
        else value
        for value, leaf in zip(values, leaves)
    ]
    return jax.tree.unflatten(structure, wrapped)
