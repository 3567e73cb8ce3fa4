"""Finds each ``$include`` in openclaw.json, and puts the included parts in their places. Pure.

config.get shows the root file alone as ``parsed``. Its ``config`` is what the gateway runs: all files merged,
variables replaced and escapes undone (gateways.md 12).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from worker.gateway.variables import REDACTED, escaped, id_or_number, place_in

INCLUDE = "$include"
WHOLE_FILE = "the whole file"
"""The path shown to people for an include that stands in the root object."""

Keys = tuple[str | int, ...]
"""The path to a value: keys of objects, indexes of list items."""


@dataclass(frozen=True)
class Include:
    """One ``$include`` of the root file.

    ``path``: the object that contains it, as people write its path. ``keys``: the same path as keys.
    ``files``: the files it names. ``alone``: it names one file, and nothing is beside it in that object.
    """

    path: str
    keys: Keys
    files: tuple[str, ...]
    alone: bool

    def touches(self, *keys: str) -> bool:
        """Whether the value at ``keys``, or a part of it, comes from this include."""
        shared = min(len(keys), len(self.keys))
        return keys[:shared] == self.keys[:shared]

    @property
    def named(self) -> str:
        """The files' names, as far as config.get shows them."""
        return " and ".join(file for file in self.files if file != REDACTED) or "a file it does not show"


def includes_of(parsed: Any) -> tuple[Include, ...]:
    """Every ``$include`` of the root file, outermost first."""
    return tuple(_find(parsed, (), ""))


def merged_document(parsed: Any, config: Any, missing: Collection[str] = ()) -> Any:
    """``parsed`` with each included part taken from ``config``, escaped so that the gateway can take it back.

    ``missing``: variables without a value, which ``config`` shows as references.
    """
    if isinstance(parsed, Mapping):
        if INCLUDE in parsed:
            return escaped(config, missing)
        below = config if isinstance(config, Mapping) else {}
        return {key: merged_document(value, below.get(key), missing) for key, value in parsed.items()}
    if isinstance(parsed, list) and any(_find(parsed, (), "")):
        if not isinstance(config, list) or len(config) != len(parsed):
            return escaped(config, missing)
        pairs = zip(parsed, config, strict=True)
        return [merged_document(item, merged, missing) for item, merged in pairs]
    return parsed


def _find(value: Any, keys: Keys, path: str) -> Iterator[Include]:
    if isinstance(value, Mapping):
        if INCLUDE in value:
            named = value[INCLUDE]
            files = named if isinstance(named, list) else [named]
            alone = isinstance(named, str) and len(value) == 1
            yield Include(path or WHOLE_FILE, keys, tuple(str(file) for file in files), alone)
        for key, inner in value.items():
            yield from _find(inner, (*keys, str(key)), place_in(path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _find(inner, (*keys, number), f"{path}[{id_or_number(inner, number)}]")
