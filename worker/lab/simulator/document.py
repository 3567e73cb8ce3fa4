"""openclaw.json as a gateway keeps, shows and merges it (gateways.md 4)."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.lab.simulator.includes import IncludeError, has_includes, loads_json5, merged_files
from worker.lab.simulator.refusal import JSON, Refusal

REDACTED = "__OPENCLAW_REDACTED__"

_SECRET = re.compile(r"token$|password|secret|api.?key", re.IGNORECASE)
_VARIABLE = re.compile(r"(\$?)\$\{([A-Z_][A-Z0-9_]*)\}")
_REFERENCE = re.compile(r"\$\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The config as it was at one read.

    ``raw``: the root file's text. ``parsed``: what that parses to. ``source``: ``parsed`` with included files
    in place. ``fault``: why the files are no valid config, if so.
    """

    raw: str
    parsed: JSON
    source: JSON
    fault: str | None = None

    def digest(self, key: bytes | None) -> str:
        """The hash that ``config.get`` shows: keyed if ``key`` is given (2026.9.6), else plain."""
        if key is None:
            return hashlib.sha256(self.raw.encode()).hexdigest()
        mac = hmac.digest(key, self.raw.encode(), "sha256")
        return "hmac-sha256:v1:" + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def read(path: Path, last: Snapshot | None = None) -> Snapshot:
    """Read the files; returns ``last`` itself if they have not changed since, so it must not be modified."""
    raw = path.read_text(encoding="utf-8")
    if last is not None and last.raw == raw and not has_includes(last.parsed):
        return last
    try:
        parsed = loads_json5(raw)
    except ValueError as error:
        return Snapshot(raw, {}, {}, f"JSON5 parse failed: SyntaxError: JSON5: {error}")
    if not isinstance(parsed, dict):
        return Snapshot(raw, {}, {}, "Invalid input: expected object")
    try:
        return Snapshot(raw, parsed, merged_files(parsed, path))
    except IncludeError as error:
        return Snapshot(raw, parsed, parsed, str(error))


def write(path: Path, config: Mapping[str, Any]) -> None:
    """Replace the config file atomically; only its owner may read it."""
    draft = path.with_suffix(".tmp")
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    draft.replace(path)


def patch_from(raw: str) -> JSON:
    """The object in a ``config.patch``, of which only JSON is understood, not all of JSON5. Raises `Refusal`
    in the gateways' words."""
    try:
        patch = json.loads(raw)
    except json.JSONDecodeError as error:
        raise Refusal(f"SyntaxError: JSON5: invalid end of input at {error.lineno}:{error.colno}") from None
    if not isinstance(patch, dict):
        raise Refusal("config.patch raw must be an object")
    return patch


def merged(base: Mapping[str, Any], patch: Mapping[str, Any], *, by_id: bool = False) -> JSON:
    """``base`` with ``patch`` laid over it: maps merge, null removes, anything else replaces.

    Lists replace too, unless ``by_id``: then a list whose items all have an ``id`` takes the patch's items
    into its own of the same id, and any other item at its end (2026.3.13).
    """
    result = dict(copy.deepcopy(base))
    for name, value in patch.items():
        held = result.get(name)
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = merged(held if isinstance(held, dict) else {}, value, by_id=by_id)
        elif by_id and isinstance(value, list) and isinstance(held, list) and all(map(_id_of, held)):
            result[name] = _items_merged(held, value)
        else:
            result[name] = copy.deepcopy(value)
    return result


def redacted(value: Any, *, shows_references: bool = False) -> Any:
    """A copy of ``value`` with every secret replaced by the mark. ``shows_references``: except those that are
    a ``${VAR}`` and nothing else (2026.9.6)."""
    if isinstance(value, list):
        return [redacted(item, shows_references=shows_references) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: REDACTED
        if _is_secret(name, item, shows_references)
        else redacted(item, shows_references=shows_references)
        for name, item in value.items()
    }


def redacted_text(snapshot: Snapshot, *, shows_references: bool = False) -> str:
    """The file's text with every secret value replaced by the mark."""
    text = snapshot.raw
    for secret in set(_secrets(snapshot.parsed, shows_references)):
        text = text.replace(json.dumps(secret, ensure_ascii=False), json.dumps(REDACTED))
    return text


def restored(value: Any, stored: Any) -> Any:
    """``value`` with each mark of a secret replaced by what is stored in its place.

    Raises `Refusal` if nothing is stored there. Items of lists are matched by position, not by ``id``, as on
    releases up to 2026.3; the product sends no list with secrets to later ones.
    """
    if isinstance(value, list):
        items = stored if isinstance(stored, list) else []
        return [restored(item, _at(items, place)) for place, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    below = stored if isinstance(stored, dict) else {}
    whole: JSON = {}
    for name, item in value.items():
        is_mark = item == REDACTED and _SECRET.search(name)
        if is_mark and name not in below:
            raise Refusal(
                f'config write rejected: "{name}" is redacted; set an explicit value instead of {REDACTED}'
            )
        whole[name] = below[name] if is_mark else restored(item, below.get(name))
    return whole


def with_variables(value: Any, environment: Mapping[str, str]) -> Any:
    """A copy of ``value`` with each ``${VAR}`` that is set replaced by its value, and each ``$${VAR}`` by
    ``${VAR}``."""
    if isinstance(value, dict):
        return {name: with_variables(item, environment) for name, item in value.items()}
    if isinstance(value, list):
        return [with_variables(item, environment) for item in value]
    if isinstance(value, str):
        return _VARIABLE.sub(
            lambda match: match[0][1:] if match[1] else environment.get(match[2], match[0]), value
        )
    return value


def unset_variables(value: Any, environment: Mapping[str, str]) -> list[str]:
    """The names of the variables in ``value`` that are not set."""
    if isinstance(value, dict):
        return [name for item in value.values() for name in unset_variables(item, environment)]
    if isinstance(value, list):
        return [name for item in value for name in unset_variables(item, environment)]
    if not isinstance(value, str):
        return []
    return [found[2] for found in _VARIABLE.finditer(value) if not found[1] and not environment.get(found[2])]


def changed_paths(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The dotted paths at which the configs differ.

    An object that is gone, or is new below the top level, counts as one path.
    """
    return sorted(_changes(before, after, ""))


def leaf_paths(patch: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted path of each value that a patch sets or removes."""
    found: list[str] = []
    for name, value in patch.items():
        if isinstance(value, dict) and value:
            found += leaf_paths(value, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def require_named(before: Mapping[str, Any], after: Mapping[str, Any], named: Sequence[str]) -> None:
    """`Refusal` where a patch takes entries of a list away that it does not name, or name a part above."""
    lost = [
        path
        for path in _lists_shortened(before, after, "")
        if not any(path == name or path.startswith(f"{name}.") for name in named)
    ]
    if lost:
        raise Refusal(
            f"config.patch would remove entries from array path(s): {', '.join(lost)}. Pass replacePaths with"
            " the exact path(s) when this is intentional, or use config.apply for full-config replacement."
        )


def _lists_shortened(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, list):
        kept = after if isinstance(after, list) else []
        if any(item not in kept for item in before):
            yield path
    elif isinstance(before, Mapping):
        below = after if isinstance(after, Mapping) else {}
        for name, value in before.items():
            yield from _lists_shortened(value, below.get(name), f"{path}.{name}".lstrip("."))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name in {*before, *after}:
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        is_deeper = isinstance(new, dict) and (isinstance(old, dict) or (old is None and not prefix))
        if is_deeper and isinstance(new, dict):
            yield from _changes(old if isinstance(old, dict) else {}, new, f"{prefix}{name}.")
        else:
            yield prefix + name


def _items_merged(held: list[Any], patch: list[Any]) -> list[Any]:
    items = list(held)
    places = {_id_of(item): place for place, item in enumerate(items)}
    for item in patch:
        place = places.get(_id_of(item)) if _id_of(item) else None
        if place is None:
            places[_id_of(item)] = len(items)
            items.append(copy.deepcopy(item))
        else:
            items[place] = merged(items[place], item, by_id=True)
    return items


def _id_of(item: Any) -> str | None:
    """The id that an item of a list goes by, where it has one."""
    held = item.get("id") if isinstance(item, dict) else None
    return held if isinstance(held, str) and held else None


def _is_secret(name: str, value: Any, shows_references: bool) -> bool:
    shown = shows_references and isinstance(value, str) and _REFERENCE.fullmatch(value)
    return isinstance(value, str) and bool(_SECRET.search(name)) and not shown


def _secrets(value: Any, shows_references: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if _is_secret(name, item, shows_references):
                yield item
            else:
                yield from _secrets(item, shows_references)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item, shows_references)


def _at(items: list[Any], place: int) -> Any:
    return items[place] if place < len(items) else None
