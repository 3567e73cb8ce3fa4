"""Rows of `provisioner.agent_settings` and `provisioner.roster_fields`: what agents' roster entries should
have, and what we wrote there.

Of rows that name the same field, or one inside the other, a single one counts: a locked row of the gateway,
then of the board; else the row of the agent, then of its board, then of its gateway.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.gateway.entry_settings import FieldRecord, Fields, leaves_of
from worker.gateway.roster_plan import RosterEntry
from worker.rights import may_hide_rows

Scope = Literal["gateway", "board", "agent"]

SETTINGS = """(
    SELECT CAST(jsonb_agg(jsonb_build_array(s.scope, s.field, s.value, s.locked)) AS text)
    FROM provisioner.agent_settings s
    WHERE (s.scope, s.target_id) IN (('gateway', a.gateway_id), ('board', a.board_id), ('agent', a.id))
)"""
"""SQL of the rows that may concern an agent ``a``, for `with_settings`; null if there are none."""
WRITTEN = """(
    SELECT CAST(jsonb_agg(jsonb_build_array(f.openclaw_id, f.field, f.wrote, f.had)) AS text)
    FROM provisioner.roster_fields f
    WHERE f.gateway_id = a.gateway_id AND f.openclaw_id IN (
        SELECT unnest(ARRAY['mc-' || a.id, 'lead-' || a.board_id, 'mc-gateway-' || a.gateway_id])
        UNION SELECT p.openclaw_id FROM provisioner.agent_places p
        WHERE p.agent_id = a.id AND p.gateway_id = a.gateway_id AND p.until IS NULL
    )
)"""
"""SQL of what is on record of the entries of agent ``a``, for `with_settings`; null if there is nothing."""
HELD_FIELDS = """(
    SELECT CAST(jsonb_object_agg(h.field, h.value) AS text) FROM provisioner.held_fields h
    WHERE h.agent_id = a.id AND h.gateway_id = a.gateway_id
)"""
"""SQL of the fields of agent ``a``'s entry that keep a value, for `with_settings`; null if there are none."""
_WIDEST_FIRST: Sequence[Scope] = get_args(Scope)


@dataclass(frozen=True)
class Setting:
    """One row of agent_settings, for one target."""

    scope: Scope
    field: str
    value: Any
    locked: bool = False

    @property
    def rank(self) -> tuple[bool, int, str]:
        """Where it stands among the rows that concern one agent: the least counts."""
        place = _WIDEST_FIRST.index(self.scope)
        return (not self.locked, place if self.locked else -place, self.field)


def counting(settings: Iterable[Setting]) -> dict[str, Setting]:
    """The settings that count, of all that concern one agent, by field."""
    found: dict[str, Setting] = {}
    fields = Fields()
    for setting in sorted(settings, key=lambda each: each.rank):
        for name, value in leaves_of(setting.field, setting.value).items():
            if not fields.overlap(name):
                fields.add(name)
                found[name] = Setting(setting.scope, name, value, setting.locked)
    return found


def with_settings(
    entry: RosterEntry, settings: str | None, written: str | None, held: str | None = None
) -> RosterEntry:
    """The entry with its agent's settings, of `SETTINGS`, what is on record of it, of `WRITTEN`, and the
    values that it keeps, of `HELD_FIELDS`; with a fault if these rows cannot be read."""
    try:
        entry = replace(
            entry, settings=_settings_of(settings), written=_written_of(written, entry.openclaw_id)
        )
        return entry if held is None else _with_held(entry, json.loads(held))
    except (ValueError, RecursionError) as error:
        name = type(error).__name__
        return replace(
            entry, fault=f"Its rows in agent_settings cannot be read ({name}): write them more simply."
        )


def _with_held(entry: RosterEntry, held: Mapping[str, Any]) -> RosterEntry:
    """The entry with the values that it keeps in place of those that its agent's rows call for."""
    own = {name: value for name, value in held.items() if name not in ("name", "heartbeat")}
    fields = Fields(own)
    settings = {name: value for name, value in entry.settings.items() if not fields.overlap(name)}
    settings |= {name: value for name, value in own.items() if value is not None}
    name, heartbeat = held.get("name"), held.get("heartbeat")
    return replace(
        entry,
        settings=settings,
        name=name if isinstance(name, str) else entry.name,
        heartbeat=heartbeat if isinstance(heartbeat, Mapping) else entry.heartbeat,
    )


def _settings_of(rows: str | None) -> dict[str, Any]:
    if rows is None:
        return {}
    counted = counting(Setting(*row) for row in json.loads(rows))
    return {name: setting.value for name, setting in counted.items()}


def _written_of(rows: str | None, openclaw_id: str) -> dict[str, FieldRecord]:
    if rows is None:
        return {}
    return {
        name: FieldRecord(tuple(wrote), had)
        for owner, name, wrote, had in json.loads(rows)
        if owner == openclaw_id
    }


def set_settings(
    connection: Connection, scope: Scope, target_id: UUID, settings: Mapping[str, Any], *, locked: bool
) -> list[str]:
    """Set the fields for one target. Returns the other fields of that target which they replace."""
    held = connection.execute(_FIELDS, {"scope": scope, "target_id": target_id}).scalars().all()
    wanted = Fields(settings)
    replaced = [name for name in held if name not in settings and wanted.overlap(name)]
    place = {"scope": scope, "target_id": target_id}
    if replaced:
        connection.execute(_UNSET, {**place, "fields": replaced})
    rows = [{**place, "field": name, "value": value, "locked": locked} for name, value in settings.items()]
    connection.execute(_SET, rows)
    return replaced


def unset_settings(connection: Connection, scope: Scope, target_id: UUID, field: str) -> list[str]:
    """Take back one target's settings of a field and of all inside it; returns their fields."""
    place = {"scope": scope, "target_id": target_id}
    held = connection.execute(_FIELDS, place).scalars().all()
    gone = [name for name in held if name == field or name.startswith(f"{field}.")]
    if gone:
        connection.execute(_UNSET, {**place, "fields": gone})
    return gone


def all_settings(
    connection: Connection, scope: Scope | None = None, target_id: UUID | None = None
) -> Sequence[Row[Any]]:
    """The rows, of one target if it is given, with the name of each row's target (None if it is gone)."""
    return connection.execute(_ALL, {"scope": scope, "target_id": target_id}).all()


def settings_concerning(connection: Connection, agent_id: UUID) -> Sequence[Row[Any]]:
    """The rows that may concern one agent: its own, its board's and its gateway's."""
    return connection.execute(_CONCERNING, {"agent_id": agent_id}).all()


def fields_on_record(connection: Connection, agent_id: UUID) -> Mapping[str, FieldRecord]:
    """What is on record of the entries that an agent has on its gateway."""
    rows = connection.execute(_ON_RECORD, {"agent_id": agent_id}).scalar_one_or_none()
    return {name: FieldRecord(tuple(wrote), had) for _, name, wrote, had in json.loads(rows or "[]")}


def record_fields(
    connection: Connection, gateway_id: UUID, records: Mapping[str, Mapping[str, FieldRecord]]
) -> None:
    """Record what a patch is about to write, by OpenClaw id and field."""
    rows = [{**row, "had": record.had} for row, record in _field_rows(gateway_id, records)]
    if rows:
        connection.execute(_RECORD, rows)


def forget_fields(
    connection: Connection, gateway_id: UUID, records: Mapping[str, Mapping[str, FieldRecord]]
) -> None:
    """Forget records that are no longer needed, unless something was written since they were read."""
    rows = [row for row, _ in _field_rows(gateway_id, records)]
    if rows:
        connection.execute(_FORGET, rows)


def forget_entries(connection: Connection, gateway_id: UUID, ids: Sequence[str]) -> None:
    """Forget what we wrote to entries that are gone."""
    if ids:
        connection.execute(_FORGET_ENTRIES, {"gateway_id": gateway_id, "ids": list(ids)})


def forget_orphans(connection: Connection, older_than: timedelta, *, dry_run: bool = False) -> int:
    """Delete settings, and what is on record of entries, that are older than that and whose gateway, board or
    agent has no row. Returns how many settings there were; a dry run counts them and deletes nothing.

    Does nothing if row-level security may hide rows: what is not seen may be there.
    """
    if may_hide_rows(connection, "agents", "boards", "gateways"):
        return 0
    found = connection.execute(_COUNT_ORPHANS if dry_run else _FORGET_ORPHANS, {"older_than": older_than})
    return int(found.scalar_one())


def _field_rows(
    gateway_id: UUID, records: Mapping[str, Mapping[str, FieldRecord]]
) -> Iterator[tuple[dict[str, Any], FieldRecord]]:
    for openclaw_id, fields in records.items():
        for name, record in fields.items():
            key = {"gateway_id": gateway_id, "openclaw_id": openclaw_id, "field": name}
            yield {**key, "wrote": list(record.wrote)}, record


_FIELDS = text("""
    SELECT field FROM provisioner.agent_settings WHERE scope = :scope AND target_id = :target_id
    ORDER BY field FOR UPDATE
""")
_UNSET = text("""
    DELETE FROM provisioner.agent_settings
    WHERE scope = :scope AND target_id = :target_id AND field = ANY(:fields)
""")
_SET = text("""
    INSERT INTO provisioner.agent_settings (scope, target_id, field, value, locked)
    VALUES (:scope, :target_id, :field, :value, :locked)
    ON CONFLICT (scope, target_id, field) DO UPDATE
    SET value = excluded.value, locked = excluded.locked, updated_at = now()
""").bindparams(bindparam("value", type_=JSONB))
_ALL = text("""
    SELECT s.scope, s.target_id, s.field, s.value, s.locked, s.updated_at, CASE s.scope
            WHEN 'gateway' THEN (SELECT name FROM gateways WHERE id = s.target_id)
            WHEN 'board' THEN (SELECT name FROM boards WHERE id = s.target_id)
            ELSE (SELECT name FROM agents WHERE id = s.target_id) END AS target
    FROM provisioner.agent_settings s
    WHERE CAST(:scope AS text) IS NULL OR (s.scope = :scope AND s.target_id = :target_id)
    ORDER BY array_position(ARRAY['gateway', 'board', 'agent'], s.scope), target, s.target_id, s.field
""")
_CONCERNING = text("""
    SELECT s.scope, s.field, s.value, s.locked FROM agents a JOIN provisioner.agent_settings s
        ON (s.scope, s.target_id) IN (('gateway', a.gateway_id), ('board', a.board_id), ('agent', a.id))
    WHERE a.id = :agent_id
""")
_ON_RECORD = text(f"SELECT {WRITTEN} FROM agents a WHERE a.id = :agent_id")
_RECORD = text("""
    INSERT INTO provisioner.roster_fields (gateway_id, openclaw_id, field, wrote, had)
    VALUES (:gateway_id, :openclaw_id, :field, :wrote, :had)
    ON CONFLICT (gateway_id, openclaw_id, field) DO UPDATE
    SET wrote = excluded.wrote, had = excluded.had, written_at = now()
""").bindparams(bindparam("wrote", type_=JSONB), bindparam("had", type_=JSONB(none_as_null=True)))
_FORGET = text("""
    DELETE FROM provisioner.roster_fields
    WHERE gateway_id = :gateway_id AND openclaw_id = :openclaw_id AND field = :field AND wrote = :wrote
""").bindparams(bindparam("wrote", type_=JSONB))
_FORGET_ENTRIES = text("""
    DELETE FROM provisioner.roster_fields WHERE gateway_id = :gateway_id AND openclaw_id = ANY(:ids)
""")
_ORPHANED = """
    s.updated_at < now() - CAST(:older_than AS interval) AND NOT EXISTS (
        SELECT FROM gateways WHERE s.scope = 'gateway' AND id = s.target_id
        UNION ALL SELECT FROM boards WHERE s.scope = 'board' AND id = s.target_id
        UNION ALL SELECT FROM agents WHERE s.scope = 'agent' AND id = s.target_id
    )
"""
_COUNT_ORPHANS = text(f"SELECT count(*) FROM provisioner.agent_settings s WHERE {_ORPHANED}")
_FORGET_ORPHANS = text(f"""
    WITH settings AS (
        DELETE FROM provisioner.agent_settings s WHERE {_ORPHANED} RETURNING 1
    ), fields AS (
        DELETE FROM provisioner.roster_fields f WHERE f.written_at < now() - CAST(:older_than AS interval)
            AND NOT EXISTS (SELECT FROM gateways WHERE id = f.gateway_id)
    )
    SELECT count(*) FROM settings
""")
