"""Rows about workspace files: what we last wrote into each (decisions.md D2), one statement per agent, the
renderings that were delivered, and whose each file is (rules.md 47)."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.records.places import Place
from worker.worker_row import OLDER_WORKERS
from worker.workspace.plan import RecordedFile
from worker.workspace.three_sides import Owner, Unmerged

MOST_TEXT_BYTES = 64 * 1024 * 1024
"""Limit on the compressed renderings that are kept of one gateway; what is rendered beyond it is not kept, so
that files which both sides change become conflicts."""

_RECORD = text("""
    WITH shown AS (
        UPDATE provisioner.agent_places SET resolved_workspace = CAST(:shown AS text)
        WHERE CAST(:shown AS text) IS NOT NULL AND agent_id = :agent_id AND gateway_id = :gateway_id
          AND openclaw_id = :openclaw_id AND until IS NULL
    ), texts AS (
        INSERT INTO provisioner.file_texts (gateway_id, sha256, body)
        SELECT :gateway_id, t.sha256, decode(t.body, 'base64')
        FROM jsonb_to_recordset(:texts) AS t (sha256 text, body text)
        WHERE CASE WHEN t.sha256 IS NOT NULL THEN
            (SELECT coalesce(sum(length(f.body)), 0) FROM provisioner.file_texts f
             WHERE f.gateway_id = :gateway_id) < :most_bytes END
        ORDER BY t.sha256
        ON CONFLICT DO NOTHING
    )
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
    bodies = [{"sha256": digest, "body": _packed(body)} for digest, body in texts.items()]
    values = {"shown": shown, "job_id": job_id, "files": rows, "texts": bodies, "most_bytes": MOST_TEXT_BYTES}
    connection.execute(_RECORD, {**place, **values})


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
        row.sha256: Unmerged.OLDER_WORKERS if row.too_early else zlib.decompress(row.body).decode()
        for row in connection.execute(_TEXTS, values)
    }


def _packed(body: str) -> str:
    return base64.b64encode(zlib.compress(body.encode())).decode()


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


def forget_texts(connection: Connection, older_than: timedelta, *, dry_run: bool = False) -> int:
    """Delete the texts that were kept longer ago than that and that no file's record, hold or change names.
    Returns how many; a dry run counts them and deletes nothing."""
    statement = _COUNT_TEXTS if dry_run else _FORGET_TEXTS
    return int(connection.execute(statement, {"older_than": older_than}).scalar_one())


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
_SPARE_TEXTS = """
    t.stored_at < now() - CAST(:older_than AS interval) AND NOT EXISTS (
        SELECT FROM provisioner.agent_files f
        WHERE (f.gateway_id, f.source_sha256) = (t.gateway_id, t.sha256))
    AND NOT EXISTS (
        SELECT FROM provisioner.held_files h WHERE (h.gateway_id, h.sha256) = (t.gateway_id, t.sha256))
    AND NOT EXISTS (
        SELECT FROM provisioner.file_changes c
        WHERE c.gateway_id = t.gateway_id
          AND t.sha256 IN (c.former_sha256, c.written_sha256, c.text_sha256))
"""
_COUNT_TEXTS = text(f"SELECT count(*) FROM provisioner.file_texts t WHERE {_SPARE_TEXTS}")
_FORGET_TEXTS = text(f"""
    WITH gone AS (DELETE FROM provisioner.file_texts t WHERE {_SPARE_TEXTS} RETURNING 1)
    SELECT count(*) FROM gone
""")
