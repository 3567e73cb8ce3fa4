"""Merges the files that ``$include`` names, and finds which file holds what (gateways.md 12)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.lab.simulator.refusal import JSON, Refusal

INCLUDE = "$include"


class IncludeError(Exception):
    """A file cannot be included; the message is in the gateways' words."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A file that holds the part of the config at ``keys``; () for the root file."""

    path: Path
    keys: tuple[str, ...]


def loads_json5(text: str) -> Any:
    """Parse JSON with comments; the rest of JSON5 is not understood. Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(_without_comments(text))


def merged_files(parsed: Any, path: Path, seen: tuple[Path, ...] = ()) -> Any:
    """``parsed`` (the file at ``path``) with every included file in place. Raises IncludeError."""
    if isinstance(parsed, list):
        return [merged_files(item, path, seen) for item in parsed]
    if not isinstance(parsed, dict):
        return parsed
    rest = {key: merged_files(value, path, seen) for key, value in parsed.items() if key != INCLUDE}
    if INCLUDE not in parsed:
        return rest
    named = parsed[INCLUDE]
    included: Any = {}
    for number, name in enumerate(named if isinstance(named, list) else [named]):
        content = _content(str(name), path, seen)
        included = _over(included, content) if number else content
    if not rest:
        return included
    if not isinstance(included, dict):
        raise IncludeError("Sibling keys require included content to be an object")
    return _over(included, rest)


def has_includes(parsed: Any) -> bool:
    """Whether the root file includes any other."""
    if isinstance(parsed, dict):
        return INCLUDE in parsed or any(has_includes(value) for value in parsed.values())
    return isinstance(parsed, list) and any(has_includes(item) for item in parsed)


def owner_of_change(parsed: JSON, root: Path, before: JSON, after: JSON) -> Owner:
    """The one file into which 2026.9.6 writes a change.

    Raises `Refusal` for a change that spans two files, or that is in a file which is not included alone.
    """
    owners: set[Owner] = set()
    for keys in _changed(before, after, ()):
        owners.add(_owner(parsed, root, keys))
    if len(owners) == 1:
        return owners.pop()
    raise include_owned(next(iter(sorted(owner.keys for owner in owners if owner.keys)), ()))


def with_included(parsed: JSON, after: JSON) -> JSON:
    """``after`` as the root file holds it: parts from included files stay an ``$include``."""
    whole: JSON = {}
    for key, value in after.items():
        held = parsed.get(key)
        if isinstance(held, dict) and INCLUDE in held:
            whole[key] = held
        elif isinstance(held, dict) and isinstance(value, dict):
            whole[key] = with_included(held, value)
        else:
            whole[key] = value
    return whole


def value_at(config: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The value at the path ``keys``; None if there is none."""
    value: Any = config
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _owner(parsed: JSON, root: Path, keys: tuple[str, ...]) -> Owner:
    here: Any = parsed
    for depth in range(len(keys) + 1):
        if isinstance(here, dict) and INCLUDE in here:
            return Owner(_file(here, root, keys[:depth]), keys[:depth])
        if not isinstance(here, dict) or depth == len(keys):
            break
        here = here.get(keys[depth])
    if has_includes(here):
        raise include_owned(keys)
    return Owner(root, ())


def _file(directive: JSON, path: Path, keys: tuple[str, ...]) -> Path:
    """The last of a chain of files of which each is included alone."""
    if not keys or len(directive) > 1 or not isinstance(directive[INCLUDE], str):
        raise include_owned(keys)
    file: Path = (path.parent / directive[INCLUDE]).resolve()
    content = loads_json5(file.read_text(encoding="utf-8"))
    if isinstance(content, dict) and INCLUDE in content:
        return _file(content, file, keys)
    if has_includes(content):
        raise include_owned(keys)
    return file


def include_owned(keys: tuple[str, ...]) -> Refusal:
    """The refusal of 2026.9.6 for a change that it does not write through."""
    return Refusal(
        f"Error: Config write would flatten $include-owned config at {'.'.join(keys) or '<root>'}; edit that"
        " include file directly or remove the $include first.: code=CONFIG_INCLUDE_OWNERSHIP",
        code="UNAVAILABLE",
    )


def _changed(before: Any, after: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if before == after:
        return
    if not isinstance(after, dict):
        yield keys
        return
    below = before if isinstance(before, dict) else {}
    for key in {*below, *after}:
        if key in below and key in after:
            yield from _changed(below[key], after[key], (*keys, key))
        else:
            yield (*keys, key)


def _content(name: str, path: Path, seen: tuple[Path, ...]) -> Any:
    file = (path.parent / name).resolve()
    if file in seen:
        raise IncludeError(f"Circular include detected: {' -> '.join(map(str, (*seen, file)))}")
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        raise IncludeError(f"Failed to read include file: {name} (resolved: {file})") from None
    try:
        content = loads_json5(text)
    except ValueError:
        raise IncludeError(f"Failed to parse include file: {name} (resolved: {file})") from None
    return merged_files(content, file, (*seen, file))


def _over(base: Any, top: Any) -> Any:
    """The gateways' own merge: objects merge, lists follow one another, anything else is replaced."""
    if isinstance(base, list) and isinstance(top, list):
        return [*base, *top]
    if isinstance(base, dict) and isinstance(top, dict):
        merged = copy.deepcopy(base)
        for key, value in top.items():
            merged[key] = _over(merged[key], value) if key in merged else copy.deepcopy(value)
        return merged
    return copy.deepcopy(top)


def _without_comments(text: str) -> str:
    """JSON5 text as JSON, as far as comments go; those in strings stay."""
    kept, place, quoted = [], 0, False
    while place < len(text):
        here = text[place]
        if quoted:
            kept.append(text[place : place + 2] if here == "\\" else here)
            place += 2 if here == "\\" else 1
            quoted = here != '"'
        elif text.startswith("//", place):
            end = text.find("\n", place)
            place = len(text) if end < 0 else end
        elif text.startswith("/*", place):
            end = text.find("*/", place)
            place = len(text) if end < 0 else end + 2
        else:
            kept.append(here)
            place += 1
            quoted = here == '"'
    return "".join(kept)
