"""Rows of `provisioner.held_files`: files that agents keep as they were, and who holds them (rules.md 50).

A row points to a rendering in `file_texts`. Rollbacks and roll-outs only make and delete such rows, and then
have the files delivered like any other change.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from worker.workspace.held import HeldFile

SINCE = "0023"
"""The revision before which workers know nothing of held files, and would write over them."""

HELD = """(
    SELECT jsonb_agg(jsonb_build_array(h.name, h.sha256, h.cause, h.job_id, h.held_by, h.since, h.sources,
        EXISTS (SELECT FROM provisioner.jobs j
                WHERE j.id = h.job_id AND h.cause = 'roll_out' AND j.status IN ('queued', 'running'))))
    FROM provisioner.held_files h WHERE h.agent_id = a.id AND h.gateway_id = a.gateway_id
)"""
"""SQL of the files that an agent ``a`` keeps on its gateway, for `held_of`; null if there are none."""


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


def texts_of(connection: Connection, gateway_id: UUID, hashes: Collection[str]) -> dict[str, str]:
    """The texts with these hashes, as far as the gateway's store has them."""
    if not hashes:
        return {}
    rows = connection.execute(_TEXTS, {"gateway_id": gateway_id, "hashes": sorted(hashes)})
    return {row.sha256: zlib.decompress(row.body).decode() for row in rows}


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


def release_holds(
    connection: Connection, agent_ids: Collection[UUID], *, job_id: UUID | None = None
) -> list[UUID]:
    """Have agents follow their templates again; returns which of them kept anything.

    ``job_id``: end only the holds that this job made; None for all.
    """
    values = {"agents": list(agent_ids), "job_id": job_id}
    return sorted(set(connection.execute(_RELEASE, values).scalars()))


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


def all_held(connection: Connection) -> Sequence[Row[Any]]:
    """What is held, by gateway, agent and name: with the names of both, the job and who asked for it."""
    return connection.execute(_ALL).all()


_TEXTS = text("""
    SELECT sha256, body FROM provisioner.file_texts
    WHERE gateway_id = :gateway_id AND sha256 = ANY(:hashes)
""")
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
_RELEASE = text("""
    DELETE FROM provisioner.held_files
    WHERE agent_id = ANY(:agents) AND (CAST(:job_id AS uuid) IS NULL OR job_id = :job_id)
    RETURNING agent_id
""")
_RELEASE_NAMES = text("""
    DELETE FROM provisioner.held_files
    WHERE agent_id = :agent_id AND gateway_id = :gateway_id AND name = ANY(:names)
""")
_RELEASE_SUPERSEDED = text("""
    DELETE FROM provisioner.held_files h
    WHERE h.agent_id = ANY(:agents) AND h.name = ANY(:names) AND NOT EXISTS (
        SELECT FROM provisioner.jobs j
        WHERE j.id = h.job_id AND h.cause = 'roll_out' AND j.status IN ('queued', 'running'))
""")
_ALL = text("""
    SELECT h.gateway_id, g.name AS gateway, h.agent_id, coalesce(a.name, CAST(h.agent_id AS text)) AS agent,
        h.name, h.cause, h.job_id, h.held_by, h.since
    FROM provisioner.held_files h
    LEFT JOIN agents a ON a.id = h.agent_id
    LEFT JOIN gateways g ON g.id = h.gateway_id
    ORDER BY gateway, agent, h.agent_id, h.name
""")
