"""Reads JSON documents of unknown shape: what is missing or has another type is read as empty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """``value`` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def value_at(document: Any, path: Iterable[str]) -> Any:
    """The value at ``path``, key by key; None if there is none."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document
