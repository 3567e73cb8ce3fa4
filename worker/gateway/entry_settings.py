"""Fields of a roster entry that settings name: how they are written, and what their owner had before. Pure.

A field is a dotted path in an agent's entry, such as ``model`` or ``tools.profile``. What no setting names is
left alone. What was there before a setting was written is kept beside what we wrote, so that a setting that
is taken back restores that and nothing else.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from worker.gateway.documents import mapping, value_at
from worker.gateway.variables import REDACTED, strings_of
from worker.masking import mask

Path = tuple[str, ...]

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_/@:+-]*")
_LONGEST_FIELD = 200
_DEEPEST_FIELD = 8
_ELSEWHERE: Mapping[str, str] = {
    "id": "agent_places",
    "name": "agents.name",
    "workspace": "gateways.workspace_root",
    "heartbeat": "agents.heartbeat_config",
}
"""Fields that the agent's rows decide, and where."""
_UNUSABLE = frozenset({"__proto__", "constructor", "prototype"})
_HIDDEN = re.compile(r"token$|password|secret|api.?key", re.IGNORECASE)
"""Names of fields whose text config.get hides (measured on 2026.2.12 to 2026.9.6)."""


@dataclass(frozen=True)
class FieldRecord:
    """What is on record of one field.

    ``wrote``: the values that may be ours, the newest last; ``had``: what the owner had there, None if there
    was no such field.
    """

    wrote: tuple[Any, ...]
    had: Any

    @property
    def made_object(self) -> bool:
        """Whether what we wrote last was an object that was not there, to put fields into it."""
        return self.had is None and self.wrote[-1:] == ({},)


@dataclass(frozen=True)
class FieldChanges:
    """An entry with its settings, and what follows from writing it.

    ``written``: the values that settings change, by field; ``records``: what must be on record before they
    are written; ``over``: records that are no longer needed; ``notes``: sentences about fields that their
    owner changed; ``fault``: why the settings cannot be written, in which case ``entry`` is without them.
    """

    entry: dict[str, Any]
    written: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[str, FieldRecord] = field(default_factory=dict)
    over: Mapping[str, FieldRecord] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fault: str | None = None


def field_fault(name: str) -> str | None:
    """Why no setting can have this field, as a sentence; None if only the gateway can tell."""
    path = _path(name)
    if len(name) > _LONGEST_FIELD or not all(_SEGMENT.fullmatch(each) for each in path):
        return f"{name[:_LONGEST_FIELD]!r} is not a field of an agent's entry: write one like tools.profile."
    if len(path) > _DEEPEST_FIELD:
        return f"{name!r} is nested deeper than {_DEEPEST_FIELD} levels: set the object above it as a whole."
    if path[0] in _ELSEWHERE:
        return f"An agent's {path[0]} is not a setting: it comes from {_ELSEWHERE[path[0]]}."
    if reserved := _UNUSABLE.intersection(path):
        return f"{name!r} has the key {min(reserved)!r}, which no OpenClaw config can hold."
    return None


def leaves_of(name: str, value: Any) -> dict[str, Any]:
    """The fields that a value sets: an object's keys are fields of their own, so that only they are set.

    An object with a key that cannot be part of a path stays whole, and so does an empty one.
    """
    if not isinstance(value, Mapping) or not value or not all(_SEGMENT.fullmatch(key) for key in value):
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= leaves_of(f"{name}.{key}", inner)
    return found


def overlap(one: str, other: str) -> bool:
    """Whether one field is the other or is inside it."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


class Fields:
    """A set of fields that tells quickly whether another one overlaps any: a value may set thousands."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._fields: set[str] = set()
        self._above: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Add a field."""
        self._fields.add(name)
        self._above.update(_above(name))

    def overlap(self, name: str) -> bool:
        """Whether the field is one of them, or is inside one, or has one inside."""
        return name in self._fields or self.below(name) or not self._fields.isdisjoint(_above(name))

    def below(self, name: str) -> bool:
        """Whether one of them is inside the field."""
        return name in self._above


def has_null(value: Any) -> bool:
    """Whether a value holds null, which config.patch takes for a removal."""
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return value is None or any(map(has_null, below))


def value_fault(name: str, value: Any) -> str | None:
    """Why no setting can have this value, as a sentence without the value; None if only the gateway can
    tell."""
    if has_null(value):
        return f"The setting {name} holds null, which takes a field away: unset it instead."
    if looks_secret(name, value):
        return (
            f"The setting {name} looks like a secret, which OpenClaw hides and no table of ours may hold:"
            " write it into openclaw.json or the environment of the gateway's host."
        )
    return None


def looks_secret(name: str, value: Any) -> bool:
    """Whether the value of a field looks like a secret, by its name or by itself."""
    for path, text in strings_of(value, name):
        last = path.rpartition(".")[2]
        if _HIDDEN.search(last) or mask(f"{last}: {text}") != f"{last}: {text}":
            return True
    return False


def as_document(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as one nested object."""
    document: dict[str, Any] = {}
    for name, value in settings.items():
        _put(document, _path(name), value)
    return document


def apply_settings(
    entry: Mapping[str, Any],
    wanted: Mapping[str, Any],
    records: Mapping[str, FieldRecord],
    *,
    present: bool,
) -> FieldChanges:
    """The entry with the ``wanted`` settings, and without those on record that are wanted no more.

    ``present``: the gateway has the entry; otherwise it is a new one, of which nothing on record is true.
    """
    after = copy.deepcopy(dict(entry))
    known = dict(records) if present else {}
    over: dict[str, FieldRecord] = {} if present else dict(records)
    notes: list[str] = []
    fields = Fields(wanted)
    for name in sorted(known, key=lambda each: (-each.count("."), each)):
        if name not in wanted:
            _take_back(after, name, known[name], fields, over, notes)
    written: dict[str, Any] = {}
    new: dict[str, FieldRecord] = {}
    for name, value in sorted(wanted.items()):
        path = _path(name)
        fault = _in_the_way(after, path)
        live = None if fault else value_at(after, path)
        if fault is None and live == value:
            continue
        fault = fault or _not_restorable(name, live)
        if fault is not None:
            return FieldChanges(dict(entry), fault=fault)
        for made in _missing_objects(after, path):
            new[made] = _made(known.get(made))
        new[name] = _recorded(name, value, live, known.get(name), notes)
        written[name] = value
        _put(after, path, value)
    over = {name: record for name, record in over.items() if name not in new}
    return FieldChanges(after, written, new, over, tuple(notes))


def replaced_lists(before: Any, after: Any, path: str) -> Iterator[str]:
    """The paths of the lists in ``before`` that are gone or different in ``after``."""
    if isinstance(before, list):
        if before != after:
            yield path
    elif isinstance(before, Mapping):
        below = mapping(after)
        for key, value in before.items():
            yield from replaced_lists(value, below.get(key), f"{path}.{key}")


def _take_back(
    after: dict[str, Any],
    name: str,
    record: FieldRecord,
    wanted: Fields,
    over: dict[str, FieldRecord],
    notes: list[str],
) -> None:
    """Restore what the owner had, if the field still has what we wrote."""
    if record.made_object and wanted.below(name):
        return
    path = _path(name)
    live = value_at(after, path)
    if live == record.had:
        over[name] = record
    elif live in record.wrote:
        _put(after, path, record.had)
    else:
        over[name] = record
        if not record.made_object:
            notes.append(
                f"{name} was changed in openclaw.json after it was set from here, so it stays as it is there."
            )


def _recorded(name: str, value: Any, live: Any, record: FieldRecord | None, notes: list[str]) -> FieldRecord:
    if record is None:
        return FieldRecord((value,), live)
    if live in record.wrote:
        return replace(record, wrote=(live, value))
    if live != record.had:
        notes.append(
            f"{name} was changed in openclaw.json after it was set from here, and is set again:"
            " `provisioner settings unset` will bring back what was found there now."
        )
    return FieldRecord((value,), live)


def _made(record: FieldRecord | None) -> FieldRecord:
    """The record of an object that was not there and is made now."""
    if record is None or record.had is not None:
        return FieldRecord(({},), None)
    return record if record.made_object else FieldRecord((*record.wrote[-1:], {}), None)


def _in_the_way(entry: Mapping[str, Any], path: Path) -> str | None:
    """Why a field cannot be written below what the entry holds, as a sentence."""
    held: Any = entry
    for place, key in enumerate(path[:-1]):
        held = held.get(key)
        if held is None:
            return None
        if not isinstance(held, Mapping):
            above = ".".join(path[: place + 1])
            return (
                f"{above} is not an object in openclaw.json, so the setting {'.'.join(path)} has no place in"
                f" it: set {above} as a whole."
            )
    return None


def _not_restorable(name: str, live: Any) -> str | None:
    """Why what the owner has in a field could not be brought back, as a sentence."""
    if any(REDACTED in text for _, text in strings_of(live)) or looks_secret(name, live):
        return (
            f"{name} holds a secret in openclaw.json, which is not kept here and could not be brought back,"
            " so the setting is not written over it: remove it there, or unset the setting."
        )
    return None


def _missing_objects(entry: Mapping[str, Any], path: Path) -> Iterator[str]:
    """The objects that must be made before the field can be written, outermost first."""
    for length in range(1, len(path)):
        if value_at(entry, path[:length]) is None:
            yield ".".join(path[:length])


def _put(entry: dict[str, Any], path: Path, value: Any) -> None:
    """Write a value, making the objects above it; None takes the field away."""
    for key in path[:-1]:
        entry = entry.setdefault(key, {})
    if value is None:
        entry.pop(path[-1], None)
    else:
        entry[path[-1]] = copy.deepcopy(value)


def _path(name: str) -> Path:
    return tuple(name.split("."))


def _above(name: str) -> Iterator[str]:
    """The fields that the field is inside of."""
    at = name.find(".")
    while at >= 0:
        yield name[:at]
        at = name.find(".", at + 1)
