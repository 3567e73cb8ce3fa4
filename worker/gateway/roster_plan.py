"""Reads which agents a gateway's config holds, and plans the one patch that corrects its roster. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from worker.gateway.agent_ids import IMPLICIT_AGENT, canonical_id
from worker.gateway.config_text import text_fault, variable_fault
from worker.gateway.dialect import Dialect
from worker.gateway.documents import mapping, value_at
from worker.gateway.entry_settings import (
    FieldChanges,
    FieldRecord,
    apply_settings,
    as_document,
    field_fault,
    replaced_lists,
    value_fault,
)
from worker.gateway.heartbeats import any_block, beating_agents, heartbeat_block, heartbeat_fault
from worker.gateway.variables import REDACTED, escaped, strings_of

DEFAULT_VISIBILITY: Mapping[str, Any] = {"showOk": False, "showAlerts": True, "useIndicator": True}


@dataclass(frozen=True)
class RosterEntry:
    """What the config should say of one agent (rules.md 15).

    ``heartbeat``: the agent's own settings, which override the defaults. ``settings``: the values of other
    fields, by dotted path; ``written``: what is on record of fields that we wrote. ``fault``: why the agent's
    row cannot be read, so that nothing of it may be written. ``settings_only``: an entry that is there is its
    owner's, and only the settings are written into it (rules.md 48).
    """

    openclaw_id: str
    name: str
    workspace: str
    heartbeat: Mapping[str, Any] = field(default_factory=dict)
    fault: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, FieldRecord] = field(default_factory=dict)
    settings_only: bool = False


@dataclass(frozen=True)
class RosterPlan:
    """The patch that brings a roster up to date, and what it changes.

    ``document``: the patch for config.patch; None if nothing differs. ``changed``: ids whose entry is new or
    differs. ``present``: ids that the roster has now. ``patches``: a merge patch for each changed entry, by
    id. ``silenced``: other agents whose heartbeats stop, since the patch writes the first heartbeat block.
    ``kept``: other agents to which the patch gives a block of their own, so that their heartbeats go on.
    ``silenced`` and ``kept`` hold ids as the config spells them. ``former``: by id and field, the values that
    the patch replaces in entries that are there, null where there was none. ``fields``: what becomes of the
    settings of each entry that has any, by id; an entry whose settings have a fault is not in the patch.
    ``replaced``: paths of lists that the patch replaces or takes away.
    """

    document: Mapping[str, Any] | None
    changed: frozenset[str]
    present: frozenset[str]
    patches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    silenced: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    fields: Mapping[str, FieldChanges] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()
    former: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def faults(self) -> dict[str, str]:
        """By OpenClaw id, why the settings of that entry cannot be written; only entries with a fault."""
        return {key: changes.fault for key, changes in self.fields.items() if changes.fault is not None}

    @property
    def records(self) -> dict[str, Mapping[str, FieldRecord]]:
        """By OpenClaw id, what must be on record of that entry's fields before the patch is sent."""
        return {key: changes.records for key, changes in self.fields.items() if changes.records}

    @property
    def over(self) -> dict[str, Mapping[str, FieldRecord]]:
        """By OpenClaw id, what is on record of that entry's fields and no longer needed."""
        return {key: changes.over for key, changes in self.fields.items() if changes.over}

    def notes_on(self, openclaw_id: str) -> tuple[str, ...]:
        """Sentences about an entry's fields that its owner changed."""
        changes = self.fields.get(openclaw_id)
        return changes.notes if changes is not None else ()

    def change_of(self, openclaw_id: str) -> dict[str, Any]:
        """What happens to one agent's entry: ``action`` (create, update or unchanged) and ``changes``."""
        changes = self.patches.get(openclaw_id)
        if changes is None:
            return {"action": "unchanged", "changes": {}}
        return {"action": "update" if openclaw_id in self.present else "create", "changes": changes}


def entry_fault(entry: RosterEntry, dialect: Dialect | None = None) -> str | None:
    """Why an entry cannot be written, as a sentence: on any release, and on that of ``dialect`` if given.

    Never raises: one agent's settings must not keep the others from being written.
    """
    try:
        fault = entry.fault or _fault_of(entry, dialect)
    except Exception as error:
        fault = (
            f"agents.heartbeat_config or agent_settings cannot be used ({type(error).__name__}): simplify it."
        )
    return fault and f"Agent {entry.name!r}: {fault}"


def _fault_of(entry: RosterEntry, dialect: Dialect | None) -> str | None:
    name, heartbeat = ("", {}) if entry.settings_only else (entry.name, entry.heartbeat)
    fault = text_fault(name, heartbeat) or heartbeat_fault(heartbeat)
    fault = fault or _settings_fault(entry.settings)
    if fault is None and dialect is not None:
        fault = variable_fault(dialect, name, heartbeat)
        fault = fault or variable_fault(dialect, "", entry.settings, "agent_settings")
    return fault or _json_fault(entry)


def _settings_fault(settings: Mapping[str, Any]) -> str | None:
    for name, value in settings.items():
        if fault := field_fault(name):
            return f"{fault} Unset it with `provisioner settings unset`."
        if fault := value_fault(name, value):
            return fault
    return text_fault("", as_document(settings), "agent_settings") if settings else None


def _json_fault(entry: RosterEntry) -> str | None:
    try:
        values = [entry.name, entry.heartbeat, entry.settings]
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError):  # Infinity, which Postgres reads as 1e999, or half a surrogate pair
        return (
            "agents.heartbeat_config, agents.name or agent_settings holds what JSON cannot carry: correct it."
        )
    return None


def plan_roster(
    dialect: Dialect,
    parsed: Mapping[str, Any],
    wanted: Sequence[RosterEntry],
    *,
    keep_others_beating: bool = False,
) -> RosterPlan:
    """Plan the one patch after which the config ``parsed`` (as config.get shows it) holds every wanted entry.

    Keys of an entry that are not ours, and entries that are not in ``wanted``, are not changed, except that
    ``keep_others_beating`` gives other agents a heartbeat block if ours would silence them.
    """
    live = roster_entries(dialect, parsed)
    changed: dict[str, dict[str, Any]] = {}
    former: dict[str, Mapping[str, Any]] = {}
    fields: dict[str, FieldChanges] = {}
    for entry in wanted:
        before = _entry_before(dialect, entry, live)
        after = _wanted_entry(dialect, entry, before)
        if entry.settings or entry.written:
            settings = {name: escaped(value) for name, value in entry.settings.items()}
            fields[entry.openclaw_id] = applied = apply_settings(
                after, settings, entry.written, present=before is not None
            )
            if applied.fault is not None:
                continue
            after = applied.entry
        if after != before:
            changed[entry.openclaw_id] = after
            if before is not None and (replaced := _former(entry, before, after)):
                former[entry.openclaw_id] = replaced
    ours = any(not entry.settings_only for entry in wanted)
    visibility = _missing_visibility(dialect, parsed) if ours else {}
    document: dict[str, Any] = {}
    if changed:
        write = _list_patch if dialect.roster == "list" else _entries_patch
        document["agents"] = write(dialect, parsed, live, changed)
    if visibility:
        document["channels"] = {"defaults": {dialect.visibility_key: visibility}}
    patches = {key: _difference(live.get(key, {}), entry) for key, entry in changed.items()}
    asked = [entry.openclaw_id for entry in wanted]
    first = any("heartbeat" in entry for entry in changed.values()) and not any_block(live)
    others = [key for key in beating_agents(dialect, parsed, live) if key not in asked] if first else []
    others = ids_as_spelled(dialect, parsed, others)
    if keep_others_beating and others:
        _add_empty_blocks(document["agents"], others)
    plan = RosterPlan(
        document or None,
        frozenset(changed),
        frozenset(live) | (implied_ids(live) & set(asked)),
        patches,
        fields=fields,
        replaced=_replaced_lists(dialect, parsed, live, changed),
        former=former,
    )
    return replace(plan, kept=tuple(others)) if keep_others_beating else replace(plan, silenced=tuple(others))


def roster_entries(dialect: Dialect, parsed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The roster's entries by the ids that the gateway uses, for either shape of roster."""
    entries: dict[str, dict[str, Any]] = {}
    for spelled, entry in _stored(dialect, parsed):
        entries.setdefault(canonical_id(spelled), dict(entry))
    return entries


def ids_as_spelled(dialect: Dialect, parsed: Mapping[str, Any], ids: Collection[str]) -> list[str]:
    """The ids as the config spells them.

    Under another spelling an entry would be a second one with the same id, and no release starts with that.
    """
    spelled: dict[str, str] = {}
    for written, _ in _stored(dialect, parsed):
        spelled.setdefault(canonical_id(written), written)
    return [spelled.get(each, each) for each in ids]


def _stored(dialect: Dialect, parsed: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The roster's entries as the config has them, each with its id as spelled there."""
    agents = mapping(parsed.get("agents"))
    if dialect.roster == "entries":
        return [(key, mapping(entry)) for key, entry in mapping(agents.get("entries")).items()]
    listed = agents.get("list")
    entries = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    return [(str(entry["id"]), entry) for entry in entries if _id_of(entry) is not None]


def removal_patch(document: Mapping[str, Any], leaving: Collection[str]) -> dict[str, Any] | None:
    """The patch that removes agents from the bindings and from a list of agents; it replaces both lists.

    An entry with a secret must keep its index, by which the gateway restores the secret. None if one cannot.
    """
    listed, bindings = mapping(document.get("agents")).get("list"), document.get("bindings")
    before = listed if isinstance(listed, list) else []
    staying = [
        (place, entry)
        for place, entry in enumerate(before)
        if not (isinstance(entry, Mapping) and _id_of(entry) in leaving)
    ]
    pinned = {place: entry for place, entry in staying if _has_secret(entry)}
    if any(place >= len(staying) for place in pinned):
        return None
    movable = iter(entry for place, entry in staying if place not in pinned)
    after = [pinned[place] if place in pinned else next(movable) for place in range(len(staying))]
    patch: dict[str, Any] = {"agents": {"list": after}}
    if isinstance(bindings, list):
        kept = [one for one in bindings if canonical_id(mapping(one).get("agentId")) not in leaving]
        if len(kept) < len(bindings):
            patch["bindings"] = kept
    return patch


def _has_secret(entry: Any) -> bool:
    return any(value == REDACTED for _, value in strings_of(entry))


def _id_of(entry: Mapping[str, Any]) -> str | None:
    written = entry.get("id")
    return canonical_id(written) if isinstance(written, str | int) else None


def implied_ids(entries: Collection[str]) -> frozenset[str]:
    """The agents that a gateway has without an entry: a roster without entries implies ``main``."""
    return frozenset() if entries else frozenset({IMPLICIT_AGENT})


def _entry_before(
    dialect: Dialect, entry: RosterEntry, live: Mapping[str, dict[str, Any]]
) -> Mapping[str, Any] | None:
    """The entry as it is; one that is only implied is empty."""
    if entry.settings_only and entry.openclaw_id in implied_ids(live):
        return {"id": entry.openclaw_id} if dialect.roster == "list" else {}
    return live.get(entry.openclaw_id)


def _wanted_entry(dialect: Dialect, entry: RosterEntry, before: Mapping[str, Any] | None) -> dict[str, Any]:
    after = dict(before or {})
    if entry.settings_only and before is not None:
        return after
    if dialect.roster == "list":
        after.setdefault("id", entry.openclaw_id)
    after["name"] = escaped(entry.name)
    if not _is_resolved(after.get("workspace"), entry.workspace):
        after["workspace"] = entry.workspace
    if after.get("identity") == {"name": entry.openclaw_id}:
        del after["identity"]  # agents.create derives it from the id, but the agent has a name
    after["heartbeat"] = heartbeat_block(dialect, entry.heartbeat)
    return after


def _former(entry: RosterEntry, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry had, by field, where a patch changes what the agent's rows decide; its folder aside."""
    names = ["name", "heartbeat", *sorted({*entry.settings, *entry.written})]
    values = {name: value_at(before, name.split(".")) for name in names}
    return {name: value for name, value in values.items() if value != value_at(after, name.split("."))}


def _is_resolved(live: Any, wanted: str) -> bool:
    """Whether the live folder is the wanted one with its ``~`` resolved.

    2026.2 resolves it in all entries at any agents.delete, and config.get shows included files with it
    resolved on every release.
    """
    return wanted.startswith("~/") and isinstance(live, str) and live.endswith(wanted[1:])


def _list_patch(
    dialect: Dialect,
    parsed: Mapping[str, Any],
    live: Mapping[str, Mapping[str, Any]],
    changed: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """The whole list.

    Up to 2026.2 an entry that is not sent is wiped; later releases keep it when merging.
    """
    stored = mapping(parsed.get("agents")).get("list")
    listed = [
        _for_merge(dialect, entry, changed.get(_id_of(entry) or "", entry))
        for entry in (stored if isinstance(stored, list) else [])
        if isinstance(entry, Mapping)
    ]
    if not listed and IMPLICIT_AGENT not in changed:
        listed.append({"id": IMPLICIT_AGENT})
    listed += [entry for key, entry in changed.items() if key not in live]
    return {"list": listed}


def _add_empty_blocks(agents: dict[str, Any], others: Sequence[str]) -> None:
    """Add an empty heartbeat block for each agent, so that it keeps beating by the defaults."""
    if "entries" in agents:
        agents["entries"] |= {key: {"heartbeat": {}} for key in others}
        return
    agents["list"] = [
        {**entry, "heartbeat": {}} if str(entry.get("id")) in others else entry for entry in agents["list"]
    ]


def _entries_patch(
    dialect: Dialect,
    parsed: Mapping[str, Any],
    live: Mapping[str, Mapping[str, Any]],
    changed: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Only the differences, since entries are merged by id.

    A second agent needs ``ownership`` (gateways.md 8).
    """
    differences = [_difference(live.get(key, {}), entry) for key, entry in changed.items()]
    entries = dict(zip(ids_as_spelled(dialect, parsed, changed), differences, strict=True))
    patch: dict[str, Any] = {"entries": entries}
    if "ownership" not in mapping(parsed.get("agents")):
        patch["ownership"] = "explicit"
    return patch


def _replaced_lists(
    dialect: Dialect,
    parsed: Mapping[str, Any],
    live: Mapping[str, Mapping[str, Any]],
    changed: Mapping[str, dict[str, Any]],
) -> tuple[str, ...]:
    """The lists in the changed entries that a release which merges the patch must be told to replace."""
    if not dialect.needs_replace_paths:
        return ()
    spelled = dict(zip(changed, ids_as_spelled(dialect, parsed, changed), strict=True))
    return tuple(
        path
        for key, entry in changed.items()
        for path in replaced_lists(live.get(key), entry, f"agents.entries.{spelled[key]}")
    )


def _for_merge(dialect: Dialect, before: Mapping[str, Any], after: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry as a merging list needs it, in which keys to remove are null."""
    if not dialect.merges_lists or after == before:
        return after
    return {**after, **_difference(before, after)}


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that turns ``before`` into ``after``: changed keys, and null for removed ones."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif before[key] != value:
            both = isinstance(before[key], Mapping) and isinstance(value, Mapping)
            patch[key] = _difference(before[key], value) if both else value
    return patch


def _missing_visibility(dialect: Dialect, parsed: Mapping[str, Any]) -> dict[str, Any]:
    defaults = mapping(mapping(parsed.get("channels")).get("defaults"))
    set_already = mapping(defaults.get(dialect.visibility_key))
    return {key: value for key, value in DEFAULT_VISIBILITY.items() if key not in set_already}
