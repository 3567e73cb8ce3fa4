"""Rows of `provisioner.held_files`: files that agents keep as they were, and who holds them (rules.md 50).

A row points to a rendering in `file_texts`. Rollbacks and roll-outs only make and delete such rows, and then
have the files delivered like any other change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.records.file_texts import texts_of
from worker.workspace.held import HeldEntry, HeldFile, HoldCause

SINCE = "0023"
"""The revision before which workers know nothing of held files, and would write over them."""

HELD = """(
    SELECT jsonb_agg(jsonb_build_array(h.name, h.sha256, h.cause, h.job_id, h.held_by, h.since, h.sources,
        EXISTS (SELECT FROM provisioner.jobs j
                WHERE j.id = h.job_id AND h.cause = 'roll_out' AND j.status IN ('queued', 'running'))))
    FROM provisioner.held_files h WHERE h.agent_id = a.id AND h.gateway_id = a.gateway_id
)"""
"""SQL of the files that an agent ``a`` keeps on its gateway, for `held_of`; null if there are none."""


HELD_ENTRY = """(
    SELECT jsonb_build_array(jsonb_agg(h.field ORDER BY h.field), max(CAST(h.job_id AS text)), max(h.held_by),
        max(h.since), (
            SELECT jsonb_build_array(j.kind, j.status IN ('queued', 'running')) FROM provisioner.jobs j
            WHERE j.id = CAST(max(CAST(h.job_id AS text)) AS uuid)))
    FROM provisioner.held_fields h WHERE h.agent_id = a.id AND h.gateway_id = a.gateway_id
    HAVING count(*) > 0
)"""
"""SQL of the fields that an agent ``a``'s entry keeps, for `held_entry_of`; null if there are none."""


def held_entry_of(row: Sequence[Any] | None) -> HeldEntry | None:
    """What an agent's entry keeps, from the column `HELD_ENTRY`."""
    if row is None:
        return None
    fields, job_id, held_by, since, job = row
    kind, open_ = job or (None, False)
    cause: HoldCause = "roll_out" if kind == "roll_out" else "rollback"
    since_at = datetime.fromisoformat(since)
    return HeldEntry(tuple(fields), UUID(job_id), held_by, since_at, cause, open=open_)


def held_of(connection: Connection, gateway_id: UUID, rows: Sequence[Any] | None) -> Mapping[str, HeldFile]:
    """The files that an agent keeps, by name, from the column `HELD`. Costs a statement if there are any."""
    if not rows:
        return {}
    held = {
        name: HeldFile(
            name, sha256, cause, UUID(job_id), held_by, datetime.fromisoformat(since), sources, open=open_
        )
        for name, sha256, cause, job_id, held_by, since, sources, open_ in rows
    }
    return _with_texts(connection, gateway_id, held)


def _with_texts(
    connection: Connection, gateway_id: UUID, held: Mapping[str, HeldFile]
) -> Mapping[str, HeldFile]:
    texts = texts_of(connection, gateway_id, {each.sha256 for each in held.values() if each.sha256})
    return {name: replace(each, text=texts.get(each.sha256 or "")) for name, each in held.items()}


def hold_as_delivered(
    connection: Connection,
    gateway_id: UUID,
    agent_ids: Collection[UUID],
    *,
    job_id: UUID,
    held_by: str | None,
    sources: str,
) -> None:
    """Have agents keep their files as they were delivered last, for a roll-out that has not reached them.

    What an agent keeps already stays held as it is. A file whose rendering is not in the store is left as it
    is. ``sources``: the hash of the shipped templates and TEMPLATES_DIR now; once the roll-out has ended, the
    holds end with it.
    """
    connection.execute(
        _HOLD_AS_DELIVERED,
        {
            "gateway_id": gateway_id,
            "agents": list(agent_ids),
            "job_id": job_id,
            "held_by": held_by,
            "sources": sources,
        },
    )


def hold(connection: Connection, agent_id: UUID, gateway_id: UUID, held: Collection[HeldFile]) -> None:
    """Have an agent keep these files, in place of what it may keep already."""
    rows = [
        {
            "agent_id": agent_id,
            "gateway_id": gateway_id,
            "name": each.name,
            "sha256": each.sha256,
            "cause": each.cause,
            "job_id": each.job_id,
            "held_by": each.held_by,
            "sources": each.sources,
        }
        for each in held
    ]
    if rows:
        connection.execute(_HOLD, rows)


def hold_fields(
    connection: Connection, agent_id: UUID, gateway_id: UUID, fields: Mapping[str, Any], entry: HeldEntry
) -> None:
    """Have an agent's roster entry keep these values, None: no setting's."""
    rows = [
        {
            "agent_id": agent_id,
            "gateway_id": gateway_id,
            "field": name,
            "value": value,
            "job_id": entry.job_id,
            "held_by": entry.held_by,
        }
        for name, value in fields.items()
    ]
    if rows:
        connection.execute(_HOLD_FIELDS, rows)


def hold_entries_as_found(
    connection: Connection,
    gateway_id: UUID,
    found: Mapping[UUID, Mapping[str, Any]],
    *,
    job_id: UUID,
    held_by: str | None,
) -> None:
    """Have the roster entries of these agents keep the values that were found there, by agent and field, for
    a roll-out that has not reached them. What an entry keeps already stays held as it is."""
    rows = [
        {
            "agent_id": agent_id,
            "gateway_id": gateway_id,
            "field": name,
            "value": value,
            "job_id": job_id,
            "held_by": held_by,
        }
        for agent_id, fields in found.items()
        for name, value in fields.items()
    ]
    if rows:
        connection.execute(_HOLD_AS_FOUND, rows)


def release_holds(
    connection: Connection,
    agent_ids: Collection[UUID],
    *,
    job_id: UUID | None = None,
    of_open_roll_outs: bool = True,
) -> list[UUID]:
    """Have agents follow their templates again; returns which of them kept anything.

    ``job_id``: end only the holds that this job made; None for all. ``of_open_roll_outs``: end those of
    roll-outs that go on, too.
    """
    values = {"agents": list(agent_ids), "job_id": job_id, "of_open": of_open_roll_outs}
    return sorted(set(connection.execute(_RELEASE, values).scalars()))


def release_fields(connection: Connection, scope: str, target_id: UUID, fields: Collection[str]) -> int:
    """End the holds on these fields, and on what is inside them, of the agents that a setting concerns.

    Returns how many. The holds of a roll-out that has not ended stay.
    """
    values = {"scope": scope, "target_id": target_id, "fields": sorted(fields)}
    return connection.execute(_RELEASE_FIELDS, values).rowcount


def release_ended_roll_outs(connection: Connection, gateways: Collection[UUID]) -> None:
    """End the holds of roll-outs of these gateways that have ended without reaching everybody: a new one is
    about to hold what it has not reached."""
    for statement in (_RELEASE_ENDED, _RELEASE_ENDED_FIELDS):
        connection.execute(statement, {"gateways": list(gateways)})


def release_names(connection: Connection, agent_id: UUID, gateway_id: UUID, names: Collection[str]) -> None:
    """Have one agent's files of these names follow their templates again."""
    connection.execute(
        _RELEASE_NAMES, {"agent_id": agent_id, "gateway_id": gateway_id, "names": sorted(names)}
    )


def release_superseded(connection: Connection, agent_ids: Collection[UUID], names: Collection[str]) -> int:
    """End the holds on files for which a newer version has just been promoted; returns of how many files.

    The holds of a roll-out that has not ended stay.
    """
    values = {"agents": list(agent_ids), "names": sorted(names)}
    return connection.execute(_RELEASE_SUPERSEDED, values).rowcount


def has_held(connection: Connection, job_id: UUID) -> bool:
    """Whether this job has agents keep anything."""
    return bool(connection.execute(_HAS_HELD, {"job_id": job_id}).scalar_one())


def open_roll_out_that_holds(connection: Connection, agent_id: UUID) -> UUID | None:
    """The roll-out that goes on and has the agent keep what it has, if there is one."""
    return connection.execute(_HELD_OPEN, {"agent_id": agent_id}).scalars().first()


def all_held(connection: Connection) -> Sequence[Row[Any]]:
    """What is held, by gateway, agent and name: with the names of both, the job and who asked for it."""
    return connection.execute(_ALL).all()


_HOLD_AS_DELIVERED = text("""
    INSERT INTO provisioner.held_files (agent_id, gateway_id, name, sha256, cause, job_id, held_by, sources)
    SELECT f.agent_id, f.gateway_id, f.name, t.sha256, 'roll_out', :job_id, :held_by, :sources
    FROM provisioner.agent_files f
    LEFT JOIN provisioner.file_texts t ON (t.gateway_id, t.sha256) = (f.gateway_id, f.source_sha256)
    WHERE f.gateway_id = :gateway_id AND f.agent_id = ANY(:agents) AND f.kind <> 'section'
    ON CONFLICT DO NOTHING
""")
_HOLD = text("""
    INSERT INTO provisioner.held_files (agent_id, gateway_id, name, sha256, cause, job_id, held_by, sources)
    VALUES (:agent_id, :gateway_id, :name, :sha256, :cause, :job_id, :held_by, :sources)
    ON CONFLICT (agent_id, gateway_id, name) DO UPDATE
    SET sha256 = excluded.sha256, cause = excluded.cause, job_id = excluded.job_id,
        held_by = excluded.held_by, sources = excluded.sources,
        since = CASE WHEN held_files.job_id = excluded.job_id THEN held_files.since ELSE now() END
""")
_HOLD_FIELDS = text("""
    INSERT INTO provisioner.held_fields (agent_id, gateway_id, field, value, job_id, held_by)
    VALUES (:agent_id, :gateway_id, :field, :value, :job_id, :held_by)
    ON CONFLICT (agent_id, gateway_id, field) DO UPDATE
    SET value = excluded.value, job_id = excluded.job_id, held_by = excluded.held_by,
        since = CASE WHEN held_fields.job_id = excluded.job_id THEN held_fields.since ELSE now() END
""").bindparams(bindparam("value", type_=JSONB(none_as_null=True)))
_HOLD_AS_FOUND = text("""
    INSERT INTO provisioner.held_fields (agent_id, gateway_id, field, value, job_id, held_by)
    VALUES (:agent_id, :gateway_id, :field, :value, :job_id, :held_by)
    ON CONFLICT DO NOTHING
""").bindparams(bindparam("value", type_=JSONB(none_as_null=True)))
_RELEASE = text("""
    WITH open AS (
        SELECT id FROM provisioner.jobs WHERE kind = 'roll_out' AND status IN ('queued', 'running')
    ), fields AS (
        DELETE FROM provisioner.held_fields
        WHERE agent_id = ANY(:agents) AND (CAST(:job_id AS uuid) IS NULL OR job_id = :job_id)
          AND (CAST(:of_open AS boolean) OR job_id NOT IN (SELECT id FROM open))
        RETURNING agent_id
    ), files AS (
        DELETE FROM provisioner.held_files
        WHERE agent_id = ANY(:agents) AND (CAST(:job_id AS uuid) IS NULL OR job_id = :job_id)
          AND (CAST(:of_open AS boolean) OR job_id NOT IN (SELECT id FROM open))
        RETURNING agent_id
    )
    SELECT agent_id FROM fields UNION SELECT agent_id FROM files
""")
_RELEASE_FIELDS = text("""
    DELETE FROM provisioner.held_fields h USING agents a
    WHERE a.id = h.agent_id AND h.gateway_id = a.gateway_id
      AND CASE :scope WHEN 'gateway' THEN a.gateway_id WHEN 'board' THEN a.board_id ELSE a.id END = :target_id
      AND EXISTS (SELECT FROM unnest(CAST(:fields AS text[])) AS f (field)
                  WHERE h.field = f.field OR starts_with(h.field, f.field || '.')
                     OR starts_with(f.field, h.field || '.'))
      AND NOT EXISTS (SELECT FROM provisioner.jobs j
                      WHERE j.id = h.job_id AND j.kind = 'roll_out' AND j.status IN ('queued', 'running'))
""")
_RELEASE_NAMES = text("""
    DELETE FROM provisioner.held_files
    WHERE agent_id = :agent_id AND gateway_id = :gateway_id AND name = ANY(:names)
""")
_RELEASE_ENDED = text("""
    DELETE FROM provisioner.held_files h
    WHERE h.gateway_id = ANY(:gateways) AND h.cause = 'roll_out' AND NOT EXISTS (
        SELECT FROM provisioner.jobs j WHERE j.id = h.job_id AND j.status IN ('queued', 'running'))
""")
_RELEASE_ENDED_FIELDS = text("""
    DELETE FROM provisioner.held_fields h USING provisioner.jobs j
    WHERE h.gateway_id = ANY(:gateways) AND j.id = h.job_id AND j.kind = 'roll_out'
      AND j.status NOT IN ('queued', 'running')
""")
_RELEASE_SUPERSEDED = text("""
    DELETE FROM provisioner.held_files h
    WHERE h.agent_id = ANY(:agents) AND h.name = ANY(:names) AND NOT EXISTS (
        SELECT FROM provisioner.jobs j
        WHERE j.id = h.job_id AND h.cause = 'roll_out' AND j.status IN ('queued', 'running'))
""")
_HAS_HELD = text("""
    SELECT EXISTS (SELECT FROM provisioner.held_files WHERE job_id = :job_id)
        OR EXISTS (SELECT FROM provisioner.held_fields WHERE job_id = :job_id)
""")
_HELD_OPEN = text("""
    SELECT j.id FROM provisioner.jobs j
    WHERE j.kind = 'roll_out' AND j.status IN ('queued', 'running') AND j.id IN (
        SELECT job_id FROM provisioner.held_files WHERE agent_id = :agent_id
        UNION SELECT job_id FROM provisioner.held_fields WHERE agent_id = :agent_id)
""")
_ALL = text("""
    SELECT h.gateway_id, g.name AS gateway, h.agent_id, coalesce(a.name, CAST(h.agent_id AS text)) AS agent,
        h.name, h.cause, h.job_id, h.held_by, h.since
    FROM (
        SELECT gateway_id, agent_id, name, cause, job_id, held_by, since FROM provisioner.held_files
        UNION ALL SELECT f.gateway_id, f.agent_id, 'entry: ' || f.field,
            CASE WHEN j.kind = 'roll_out' THEN 'roll_out' ELSE 'rollback' END, f.job_id, f.held_by, f.since
        FROM provisioner.held_fields f LEFT JOIN provisioner.jobs j ON j.id = f.job_id
    ) h
    LEFT JOIN agents a ON a.id = h.agent_id
    LEFT JOIN gateways g ON g.id = h.gateway_id
    ORDER BY gateway, agent, h.agent_id, h.name
""")
