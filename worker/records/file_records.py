"""Records in ``agent_files`` what we last wrote into each file, one statement per agent (decisions.md D2)."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.records.places import Place
from worker.workspace.plan import RecordedFile

_RECORD = text("""
    WITH shown AS (
        UPDATE provisioner.agent_places SET resolved_workspace = CAST(:shown AS text)
        WHERE CAST(:shown AS text) IS NOT NULL AND agent_id = :agent_id AND gateway_id = :gateway_id
          AND openclaw_id = :openclaw_id AND until IS NULL
    )
    INSERT INTO provisioner.agent_files
        (agent_id, gateway_id, name, kind, source_sha256, size, updated_at_ms, locator, job_id, applied_at)
    SELECT :agent_id, :gateway_id, f.name, f.kind, f.source_sha256, f.size, f.updated_at_ms, f.locator,
        :job_id, now()
    FROM jsonb_to_recordset(:files) AS f
        (name text, kind text, source_sha256 text, size int, updated_at_ms bigint, locator text)
    ON CONFLICT (agent_id, gateway_id, name) DO UPDATE
    SET kind = excluded.kind, source_sha256 = excluded.source_sha256, size = excluded.size,
        updated_at_ms = excluded.updated_at_ms, locator = excluded.locator, job_id = excluded.job_id,
        applied_at = now()
""").bindparams(bindparam("files", type_=JSONB))


def record_files(
    connection: Connection,
    agent_id: UUID,
    home: Place,
    job_id: UUID,
    files: Mapping[str, RecordedFile],
    shown: str | None = None,
) -> None:
    """Record what was written into these files. ``shown``: the workspace folder as the gateway shows it, to
    be recorded too; None if it is recorded already or unknown."""
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
        }
        for name, file in files.items()
    ]
    place = {"agent_id": agent_id, "gateway_id": home.gateway_id, "openclaw_id": home.openclaw_id}
    connection.execute(_RECORD, {**place, "shown": shown, "job_id": job_id, "files": rows})


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
