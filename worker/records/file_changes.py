"""Rows of `provisioner.file_changes`: what each job replaced in agents' files, so that it can be taken back
(rules.md 51)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.jobs.requests import BadRequestError, RollOut
from worker.records.file_texts import KEEP_TEXTS, texts_to_keep

Unkept = Literal["secret", "long", "not_text"]
MOST_CHANGES = 50
"""How many changes of one file of an agent are kept; older ones are pruned before their time."""


@dataclass(frozen=True)
class FileChange:
    """What a job replaced in one file: columns of ``file_changes``, in this order."""

    name: str
    former_sha256: str | None
    written_sha256: str
    text_sha256: str | None = None
    unkept: Unkept | None = None


@dataclass(frozen=True)
class EntryChange:
    """What a job replaced in an agent's roster entry.

    ``fields``: former values by field, None where there was none; ``unkept``: fields whose values were not
    kept, since they hold a secret or a variable.
    """

    job_id: UUID
    agent_id: UUID
    fields: Mapping[str, Any]
    unkept: tuple[str, ...] = ()


def record_changes(
    connection: Connection,
    agent_id: UUID,
    gateway_id: UUID,
    job_id: UUID,
    changes: Collection[FileChange],
    texts: Mapping[str, str],
) -> None:
    """Record what a job is about to replace; what an earlier try of the job recorded stays as it is.

    ``texts``: those to keep, by hash, as far as the gateway's share of the store reaches.
    """
    rows = [vars(change) for change in changes]
    values = {"agent_id": agent_id, "gateway_id": gateway_id, "job_id": job_id, "changes": rows}
    connection.execute(_RECORD, {**values, **texts_to_keep(texts)})


def record_entry_changes(connection: Connection, gateway_id: UUID, changes: Collection[EntryChange]) -> None:
    """Record what a patch is about to replace in roster entries; what an earlier try recorded stays."""
    rows = [
        {
            "gateway_id": gateway_id,
            "job_id": each.job_id,
            "agent_id": each.agent_id,
            "fields": dict(each.fields),
            "unkept": list(each.unkept),
        }
        for each in changes
    ]
    if rows:
        connection.execute(_RECORD_ENTRIES, rows)


def entry_change_of(
    connection: Connection, agent_id: UUID, gateway_id: UUID, job_id: UUID
) -> EntryChange | None:
    """What the job, or a job that it enqueued, replaced first in the agent's entry on the gateway."""
    values = {"agent_id": agent_id, "gateway_id": gateway_id, "job_id": job_id}
    row = connection.execute(_ENTRY_CHANGE, values).one_or_none()
    return None if row is None else EntryChange(row.job_id, agent_id, row.fields, tuple(row.unkept))


def changes_of(connection: Connection, agent_id: UUID, gateway_id: UUID, job_id: UUID) -> list[FileChange]:
    """What the job, or a job that it enqueued, replaced in the agent's files on the gateway, by file name.

    If several of them changed a file, the first counts: it replaced what was there before the job.
    """
    values = {"agent_id": agent_id, "gateway_id": gateway_id, "job_id": job_id}
    return [FileChange(*row) for row in connection.execute(_CHANGES, values)]


def last_writes(
    connection: Connection, agent_id: UUID, gateway_id: UUID, names: Collection[str]
) -> dict[str, FileChange | None]:
    """What the last write on record has replaced, by name, of those of these files of which that is known.
    None: the write was by the job that made the agent, so that it replaced what came with its workspace."""
    values = {"agent_id": agent_id, "gateway_id": gateway_id, "names": sorted(names)}
    return {
        row.name: None if row.written_sha256 is None else FileChange(*row[:-1])
        for row in connection.execute(_LAST_WRITES, values)
        if row.written_sha256 is not None or row.first_provision
    }


def last_change(connection: Connection, agent_id: UUID, gateway_id: UUID) -> Row[Any] | None:
    """The job that changed the agent's files or entry last and was no rollback: its id, kind and time."""
    return connection.execute(_LAST, {"agent_id": agent_id, "gateway_id": gateway_id}).one_or_none()


def changed_after(
    connection: Connection, agent_id: UUID, gateway_id: UUID, job_id: UUID, names: Collection[str]
) -> dict[str, datetime]:
    """Of these files, those that a later job changed too that was no rollback, and when."""
    values = {"agent_id": agent_id, "gateway_id": gateway_id, "job_id": job_id, "names": sorted(names)}
    return {row.name: row.changed_at for row in connection.execute(_LATER, values)}


def agents_changed_by(
    connection: Connection, job_id: UUID, gateway_id: UUID | None = None
) -> Sequence[Row[Any]]:
    """The agents whose files or entries the job, or a job that it enqueued, changed: their ids and gateways,
    and their names as far as they have rows.

    Raises BadRequestError if there are none, and while the job has not ended, for then it will change more;
    with ``gateway_id`` also if that is neither the job's gateway nor that of any of them.
    """
    kind = connection.execute(_OPEN, {"job_id": job_id}).scalar_one_or_none()
    if kind is not None:
        end = "rollout abort" if kind == RollOut.kind else "cancel"
        raise BadRequestError(
            f"Job {job_id} has not ended, and what it still changes would not be taken back: wait for it, or"
            f" end it with `provisioner {end} {job_id}`."
        )
    changed = connection.execute(_AGENTS, {"job_id": job_id}).all()
    if not changed:
        raise BadRequestError(
            f"Job {job_id} changed no agent, or longer ago than records are kept: `provisioner job` shows"
            " what a job did."
        )
    if gateway_id is not None and gateway_id not in {row.gateway_id for row in changed}:
        own = connection.execute(_GATEWAY, {"job_id": job_id}).scalar_one_or_none()
        if own != gateway_id:
            raise BadRequestError(
                f"Job {job_id} changed no agent of gateway {gateway_id}: name a gateway of that job."
            )
    return changed


def forget_changes(
    connection: Connection, older_than: timedelta, *, dry_run: bool = False, most: int | None = None
) -> int:
    """Delete what was recorded longer ago than that, and of each file all but the latest MOST_CHANGES, at
    most so many rows of a table.

    Returns how many rows; a dry run counts them and deletes nothing.
    """
    statement = _COUNT_OLD if dry_run else _FORGET
    values = {"older_than": older_than, "changes": MOST_CHANGES, "most": most}
    return int(connection.execute(statement, values).scalar_one())


_RECORD = text(f"""
    WITH texts AS ({KEEP_TEXTS}    )
    INSERT INTO provisioner.file_changes
        (job_id, agent_id, gateway_id, name, former_sha256, written_sha256, text_sha256, unkept)
    SELECT :job_id, :agent_id, :gateway_id, c.name, c.former_sha256, c.written_sha256, c.text_sha256, c.unkept
    FROM jsonb_to_recordset(:changes) AS c
        (name text, former_sha256 text, written_sha256 text, text_sha256 text, unkept text)
    ON CONFLICT DO NOTHING
""").bindparams(bindparam("changes", type_=JSONB), bindparam("texts", type_=JSONB))
_GATEWAY = text("SELECT gateway_id FROM provisioner.jobs WHERE id = :job_id")
_JOBS = """(
    WITH RECURSIVE below AS (
        SELECT CAST(:job_id AS uuid) AS id
        UNION SELECT j.id FROM provisioner.jobs j JOIN below ON j.parent_job_id = below.id
    ) SELECT id FROM below
)"""
_CHANGES = text(f"""
    SELECT DISTINCT ON (name) name, former_sha256, written_sha256, text_sha256, unkept
    FROM provisioner.file_changes
    WHERE agent_id = :agent_id AND gateway_id = :gateway_id AND job_id IN {_JOBS}
    ORDER BY name, changed_at
""")
_LAST_WRITES = text("""
    SELECT DISTINCT ON (f.name)
        f.name, c.former_sha256, c.written_sha256, c.text_sha256, c.unkept, r.first_provision
    FROM provisioner.agent_files f
    LEFT JOIN provisioner.file_changes c
        ON (c.agent_id, c.gateway_id, c.name, c.written_sha256)
         = (f.agent_id, f.gateway_id, f.name, f.source_sha256)
    LEFT JOIN provisioner.job_agents r ON (r.job_id, r.agent_id) = (f.job_id, f.agent_id)
    WHERE f.agent_id = :agent_id AND f.gateway_id = :gateway_id AND f.name = ANY(:names)
    ORDER BY f.name, c.changed_at DESC
""")
_LAST = text("""
    SELECT c.job_id, j.kind, max(c.changed_at) AS changed_at
    FROM (
        SELECT job_id, agent_id, gateway_id, changed_at FROM provisioner.file_changes
        UNION ALL SELECT job_id, agent_id, gateway_id, changed_at FROM provisioner.entry_changes
    ) c LEFT JOIN provisioner.jobs j ON j.id = c.job_id
    WHERE c.agent_id = :agent_id AND c.gateway_id = :gateway_id AND j.kind IS DISTINCT FROM 'rollback'
    GROUP BY c.job_id, j.kind ORDER BY changed_at DESC LIMIT 1
""")
_LATER = text(f"""
    SELECT c.name, max(c.changed_at) AS changed_at
    FROM provisioner.file_changes c LEFT JOIN provisioner.jobs j ON j.id = c.job_id
    WHERE c.agent_id = :agent_id AND c.gateway_id = :gateway_id AND c.name = ANY(:names)
      AND j.kind IS DISTINCT FROM 'rollback' AND c.job_id NOT IN {_JOBS} AND c.changed_at > (
        SELECT max(o.changed_at) FROM provisioner.file_changes o
        WHERE o.agent_id = c.agent_id AND o.gateway_id = c.gateway_id AND o.name = c.name
          AND o.job_id IN {_JOBS})
    GROUP BY c.name
""")
_OPEN = text("SELECT kind FROM provisioner.jobs WHERE id = :job_id AND status IN ('queued', 'running')")
_AGENTS = text(f"""
    SELECT c.agent_id, c.gateway_id, a.name, a.gateway_id AS gateway_now
    FROM (
        SELECT agent_id, gateway_id FROM provisioner.file_changes WHERE job_id IN {_JOBS}
        UNION SELECT agent_id, gateway_id FROM provisioner.entry_changes WHERE job_id IN {_JOBS}
    ) c LEFT JOIN agents a ON a.id = c.agent_id
    ORDER BY a.name, c.agent_id
""")
_RECORD_ENTRIES = text("""
    INSERT INTO provisioner.entry_changes (job_id, agent_id, gateway_id, fields, unkept)
    VALUES (:job_id, :agent_id, :gateway_id, :fields, :unkept)
    ON CONFLICT DO NOTHING
""").bindparams(bindparam("fields", type_=JSONB), bindparam("unkept", type_=JSONB))
_ENTRY_CHANGE = text(f"""
    SELECT job_id, fields, unkept FROM provisioner.entry_changes
    WHERE agent_id = :agent_id AND gateway_id = :gateway_id AND job_id IN {_JOBS}
    ORDER BY changed_at LIMIT 1
""")
_OLD = """
    SELECT job_id, agent_id, name FROM (
        SELECT job_id, agent_id, name, changed_at,
            row_number() OVER (PARTITION BY agent_id, name ORDER BY changed_at DESC) AS place
        FROM provisioner.file_changes
    ) ranked WHERE place > :changes OR changed_at < now() - CAST(:older_than AS interval)
    LIMIT CAST(:most AS int)
"""
_OLD_ENTRIES = """
    SELECT job_id, agent_id FROM (
        SELECT job_id, agent_id, changed_at,
            row_number() OVER (PARTITION BY agent_id ORDER BY changed_at DESC) AS place
        FROM provisioner.entry_changes
    ) ranked WHERE place > :changes OR changed_at < now() - CAST(:older_than AS interval)
    LIMIT CAST(:most AS int)
"""
_COUNT_OLD = text(
    f"SELECT (SELECT count(*) FROM ({_OLD}) old) + (SELECT count(*) FROM ({_OLD_ENTRIES}) entries)"
)
_FORGET = text(f"""
    WITH gone AS (
        DELETE FROM provisioner.file_changes WHERE (job_id, agent_id, name) IN ({_OLD}) RETURNING 1
    ), entries AS (
        DELETE FROM provisioner.entry_changes WHERE (job_id, agent_id) IN ({_OLD_ENTRIES}) RETURNING 1
    ) SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM entries)
""")
