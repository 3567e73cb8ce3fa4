"""Rows about workspace files: what we last wrote into each (decisions.md D2), one statement per agent, the
renderings that were delivered, and whose each file is (rules.md 47)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.records.file_texts import KEEP_TEXTS, text_in, texts_to_keep
from worker.records.places import Place
from worker.worker_row import OLDER_WORKERS
from worker.workspace.plan import RecordedFile
from worker.workspace.three_sides import Owner, Unmerged

_RECORD = text(f"""
    WITH shown AS (
        UPDATE provisioner.agent_places SET resolved_workspace = CAST(:shown AS text)
        WHERE CAST(:shown AS text) IS NOT NULL AND agent_id = :agent_id AND gateway_id = :gateway_id
          AND openclaw_id = :openclaw_id AND until IS NULL
    ), texts AS ({KEEP_TEXTS}    )
    INSERT INTO provisioner.agent_files
        (agent_id, gateway_id, name, kind, source_sha256, size, updated_at_ms, locator, mixed, job_id,
         applied_at)
    SELECT :agent_id, :gateway_id, f.name, f.kind, f.source_sha256, f.size, f.updated_at_ms, f.locator,
        f.mixed, :job_id, now()
    FROM jsonb_to_recordset(:files) AS f
        (name text, kind text, source_sha256 text, size int, updated_at_ms bigint, locator text,
         mixed boolean)
    ON CONFLICT (agent_id, gateway_id, name) DO UPDATE
    SET kind = excluded.kind, source_sha256 = excluded.source_sha256, size = excluded.size,
        updated_at_ms = excluded.updated_at_ms, locator = excluded.locator, mixed = excluded.mixed,
        job_id = excluded.job_id, applied_at = now()
""").bindparams(bindparam("files", type_=JSONB), bindparam("texts", type_=JSONB))


def record_files(
    connection: Connection,
    agent_id: UUID,
    home: Place,
    job_id: UUID,
    files: Mapping[str, RecordedFile],
    texts: Mapping[str, str],
    shown: str | None = None,
) -> None:
    """Record what was written into these files. ``texts``: renderings to keep, by hash, as far as the
    gateway's share of the store reaches; ``shown``: the workspace folder as the gateway shows it, to be
    recorded too; None if it is recorded already or unknown."""
    if not files:
        return
    rows = [
        {
            "name": name,
            "kind": file.kind,
            "source_sha256": file.source_sha256,
            "size": file.size,
            "updated_at_ms": file.updated_at_ms,
            "locator": file.locator,
            "mixed": file.mixed,
        }
        for name, file in files.items()
    ]
    place = {"agent_id": agent_id, "gateway_id": home.gateway_id, "openclaw_id": home.openclaw_id}
    values = {"shown": shown, "job_id": job_id, "files": rows}
    connection.execute(_RECORD, {**place, **values, **texts_to_keep(texts)})


MERGES_SINCE = "0020"
"""The revision whose workers know that a file may hold what both sides wrote: older ones would write over
it."""

_TEXTS = text(f"""
    SELECT sha256, body, {OLDER_WORKERS} AS too_early FROM provisioner.file_texts
    WHERE gateway_id = :gateway_id AND sha256 = ANY(:hashes)
""")


def read_texts(
    connection: Connection, gateway_id: UUID, hashes: Collection[str]
) -> dict[str, str | Unmerged]:
    """The renderings with these hashes, as far as they were kept. While workers run that cannot merge, each
    is ``Unmerged.OLDER_WORKERS``."""
    values = {"gateway_id": gateway_id, "hashes": list(hashes), "revision": MERGES_SINCE}
    return {
        row.sha256: Unmerged.OLDER_WORKERS if row.too_early else text_in(row)
        for row in connection.execute(_TEXTS, values)
    }


_FORGET = text("DELETE FROM provisioner.agent_files WHERE agent_id = :agent_id AND gateway_id = :gateway_id")


def forget_files(connection: Connection, agent_id: UUID, gateway_id: UUID) -> None:
    """Delete the records of an agent's files on a gateway that the agent has left."""
    connection.execute(_FORGET, {"agent_id": agent_id, "gateway_id": gateway_id})


_TOUCHED = text("""
    SELECT EXISTS (SELECT FROM provisioner.agent_files WHERE agent_id = :agent_id AND job_id = :job_id)
""")


def touched_by(connection: Connection, agent_id: UUID, job_id: UUID) -> bool:
    """Whether the job has written any of the agent's files."""
    return bool(connection.scalar(_TOUCHED, {"agent_id": agent_id, "job_id": job_id}))


def set_owner(connection: Connection, scope: str, target_id: UUID, name: str, owner: Owner) -> None:
    """Say whose a file is on a gateway or a board (rules.md 47)."""
    place = {"scope": scope, "target_id": target_id, "name": name}
    connection.execute(_SET_OWNER, {**place, "owner": owner})


def unset_owner(connection: Connection, scope: str, target_id: UUID, name: str) -> bool:
    """Go back to what a wider row or the default says; False if there was no row."""
    place = {"scope": scope, "target_id": target_id, "name": name}
    return bool(connection.execute(_UNSET_OWNER, place).rowcount)


def all_owners(connection: Connection) -> Sequence[Row[Any]]:
    """The rows of ``file_owners``, with the name of each row's target (None if it is gone)."""
    return connection.execute(_OWNERS).all()


_SET_OWNER = text("""
    INSERT INTO provisioner.file_owners (scope, target_id, name, owner)
    VALUES (:scope, :target_id, :name, :owner)
    ON CONFLICT (scope, target_id, name) DO UPDATE SET owner = excluded.owner, updated_at = now()
""")
_UNSET_OWNER = text("""
    DELETE FROM provisioner.file_owners WHERE scope = :scope AND target_id = :target_id AND name = :name
""")
_OWNERS = text("""
    SELECT o.scope, o.target_id, o.name, o.owner, o.updated_at, CASE o.scope
            WHEN 'gateway' THEN (SELECT g.name FROM gateways g WHERE g.id = o.target_id)
            ELSE (SELECT b.name FROM boards b WHERE b.id = o.target_id) END AS target
    FROM provisioner.file_owners o ORDER BY o.scope DESC, target, o.target_id, o.name
""")
