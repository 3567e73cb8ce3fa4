"""Checks that our text stays text in openclaw.json, whose reader interprets some of it. Pure.

OpenClaw replaces ``${NAME}`` in any string of its config with a variable of its host's environment, loads the
file that an ``$include`` key names, and drops keys that would reach an object's prototype. Names and
heartbeat settings come from people and from agents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from worker.gateway.dialect import Dialect
from worker.gateway.variables import REDACTED, escapes_in, strings_of, variables_in

_ORDERS = {
    "$include": "which OpenClaw takes for the name of a file to load",
    **dict.fromkeys(("__proto__", "constructor", "prototype"), "which no OpenClaw config can hold"),
}
_SECRET_SOURCES = ("env", "file", "exec")
_MOST_CHARACTERS = 64 * 1024
_DEEPEST = 8


def without_nulls(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` without keys that are null, at any depth: in a patch, null removes a key."""
    return {
        key: without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if value is not None
    }


def text_fault(name: str, settings: Mapping[str, Any], column: str = "agents.heartbeat_config") -> str | None:
    """Why no release can store an agent's name and the settings of ``column``, as a sentence; None if all
    can."""
    if REDACTED in name:
        return f"agents.name holds {REDACTED}, OpenClaw's mark for a hidden secret: give it another name."
    if _depth(settings) > _DEEPEST or len(json.dumps(settings, default=str)) > _MOST_CHARACTERS:
        return (
            f"{column} is nested deeper than {_DEEPEST} levels or longer than"
            f" {_MOST_CHARACTERS} characters: shorten it."
        )
    for key in _keys(settings):
        if key in _ORDERS:
            return f"{column} has the key {key!r}, {_ORDERS[key]}: remove it."
    for path, text in strings_of(settings):
        if REDACTED in text:
            return (
                f"{column} holds {REDACTED} at {path}, OpenClaw's mark for a hidden secret:"
                " write the text itself."
            )
        if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
            return f"{column} holds half a character at {path}: write it again."
    for path, item in _mappings(settings):
        if item.get("source") in _SECRET_SOURCES and "id" in item:
            return f"{column} refers to a secret of the gateway's host at {path}: write a text there."
    return None


def variable_fault(
    dialect: Dialect, name: str, settings: Mapping[str, Any], column: str = "agents.heartbeat_config"
) -> str | None:
    """Why this release cannot store an agent's name or heartbeat settings that look like a variable, as a
    sentence; None if it can.

    On 2026.2.12 the gateway's own config writes undo escapes, and then the gateway stops if the variable is
    unset.
    """
    if not dialect.writes_variables:
        return None
    for place, value in (("agents.name", name), (column, settings)):
        for _, text in strings_of(value):
            for variable in (*variables_in(text), *escapes_in(text)):
                return (
                    f"{place} holds ${{{variable}}}, which this OpenClaw release would sooner or later take"
                    " for a variable of its host: write it without the ${}, or update OpenClaw to 2026.2.26"
                    " or later."
                )
    return None


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def _mappings(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield path, value
        for key, item in value.items():
            yield from _mappings(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _mappings(item, f"{path}[{place}]")


def _depth(value: Any) -> int:
    """How deep containers are nested in ``value``. Not recursive, because it may be very deep."""
    deepest, layer = 0, [value]
    while layer:
        below: list[Any] = []
        for item in layer:
            if isinstance(item, Mapping):
                below += item.values()
            elif isinstance(item, list):
                below += item
        deepest, layer = deepest + 1, [item for item in below if isinstance(item, (Mapping, list))]
    return deepest
