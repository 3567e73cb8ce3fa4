"""Finds ``${NAME}`` in openclaw.json, and escapes text so that it stays text. Pure.

A gateway replaces ``${NAME}`` with the value of the environment variable; ``$${NAME}`` stands for ``${NAME}``
itself (OpenClaw's documentation, and measured on 2026.2.12 to 2026.9.6).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_REFERENCE = re.compile(r"(?<!\$)(\$*)\$\{([A-Z_][A-Z0-9_]*)\}")
_LONGEST_KEY = 200
REDACTED = "__OPENCLAW_REDACTED__"
"""What config.get shows instead of a secret."""


def escaped(value: Any, references: Collection[str] = ()) -> Any:
    """``value`` (a text, or a document of texts) escaped so that a gateway reads it literally.

    Names in ``references`` are not escaped: they are variables, not text.
    """
    if isinstance(value, str):
        if "${" not in value:
            return value
        return _REFERENCE.sub(lambda match: match[0] if match[2] in references else _escape(match), value)
    if isinstance(value, Mapping):
        return {key: escaped(item, references) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item, references) for item in value]
    return value


def variables_in(text: str) -> list[str]:
    """Names of the variables that a gateway replaces in the text, in order."""
    return [match[2] for match in _REFERENCE.finditer(text) if not match[1]]


def escapes_in(text: str) -> list[str]:
    """Names of the escaped variables in the text, which a gateway does not replace."""
    return [match[2] for match in _REFERENCE.finditer(text) if match[1]]


def strings_of(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, text) for each string of a document.

    The path is dotted; a list item is named by its id if it has one, else by its index.
    """
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from strings_of(inner, place_in(path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from strings_of(inner, f"{path}[{id_or_number(inner, number)}]")


def place_in(path: str, key: object) -> str:
    """The dotted path of a key below ``path``. Long keys are cut, since each value below repeats them."""
    shown = str(key)[:_LONGEST_KEY]
    return f"{path}.{shown}" if path else shown


def id_or_number(item: Any, number: int) -> str:
    """How a path names an item of a list: by its id, else by its index."""
    return str(item.get("id", number) if isinstance(item, Mapping) else number)[:_LONGEST_KEY]


def _escape(match: re.Match[str]) -> str:
    return f"{match[1]}$${{{match[2]}}}"
