"""Frozen dataclasses that are pytrees: the shape of every mathematical object with array parameters."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree's structure (a size, a name, a function), not a leaf."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def frozen_pytree(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen dataclass and a pytree; fields declared with `static()` are metadata, others leaves.

    Leaves may be swept (vmapped, differentiated, changed between calls) without a retrace; static fields
    must be hashable. Subclasses decorate themselves again.
    """
    frozen = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(frozen)  # type: ignore[arg-type]
    meta = [f.name for f in fields if f.metadata.get("static", False)]
    data = [f.name for f in fields if not f.metadata.get("static", False)]
    return jax.tree_util.register_dataclass(frozen, data_fields=data, meta_fields=meta)
