"""Rows of `provisioner.file_texts`: the one store of texts of workspace files, by gateway and hash (rules.md
47, 50, 51)."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

MOST_TEXT_BYTES = 64 * 1024 * 1024
"""Limit on the compressed texts that are kept of one gateway; what comes beyond it is not kept, so that files
which both sides change become conflicts."""

KEEP_TEXTS = """
        INSERT INTO provisioner.file_texts (gateway_id, sha256, body)
        SELECT :gateway_id, t.sha256, decode(t.body, 'base64')
        FROM jsonb_to_recordset(:texts) AS t (sha256 text, body text)
        WHERE CASE WHEN t.sha256 IS NOT NULL THEN
            (SELECT coalesce(sum(length(f.body)), 0) FROM provisioner.file_texts f
             WHERE f.gateway_id = :gateway_id) < :most_bytes END
        ORDER BY t.sha256
        ON CONFLICT DO NOTHING
"""
"""SQL, part of a statement, that keeps the texts of `texts_to_keep`, as far as the share reaches."""


def texts_to_keep(texts: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of `KEEP_TEXTS` for these texts, by hash; ``texts`` is JSON."""
    bodies = [
        {"sha256": digest, "body": base64.b64encode(zlib.compress(body.encode())).decode()}
        for digest, body in texts.items()
    ]
    return {"texts": bodies, "most_bytes": MOST_TEXT_BYTES}


def text_in(row: Row[Any]) -> str:
    """The text of a row with its ``body``."""
    return zlib.decompress(row.body).decode()


def texts_of(connection: Connection, gateway_id: UUID, hashes: Collection[str]) -> dict[str, str]:
    """The texts with these hashes, as far as the gateway's store has them."""
    if not hashes:
        return {}
    rows: Sequence[Row[Any]] = connection.execute(
        _TEXTS, {"gateway_id": gateway_id, "hashes": sorted(hashes)}
    ).all()
    return {row.sha256: text_in(row) for row in rows}


def forget_texts(
    connection: Connection, older_than: timedelta, *, dry_run: bool = False, most: int | None = None
) -> int:
    """Delete the texts that were kept longer ago than that and that no file's record, hold or change names,
    at most so many. Returns how many; a dry run counts them and deletes nothing."""
    statement = _COUNT if dry_run else _FORGET
    return int(connection.execute(statement, {"older_than": older_than, "most": most}).scalar_one())


_TEXTS = text("""
    SELECT sha256, body FROM provisioner.file_texts
    WHERE gateway_id = :gateway_id AND sha256 = ANY(:hashes)
""")
_SPARE = """
    t.stored_at < now() - CAST(:older_than AS interval) AND NOT EXISTS (
        SELECT FROM provisioner.agent_files f
        WHERE (f.gateway_id, f.source_sha256) = (t.gateway_id, t.sha256))
    AND NOT EXISTS (
        SELECT FROM provisioner.held_files h WHERE (h.gateway_id, h.sha256) = (t.gateway_id, t.sha256))
    AND NOT EXISTS (SELECT FROM provisioner.file_changes c
        WHERE (c.gateway_id, c.former_sha256) = (t.gateway_id, t.sha256))
    AND NOT EXISTS (SELECT FROM provisioner.file_changes c
        WHERE (c.gateway_id, c.written_sha256) = (t.gateway_id, t.sha256))
    AND NOT EXISTS (SELECT FROM provisioner.file_changes c
        WHERE (c.gateway_id, c.text_sha256) = (t.gateway_id, t.sha256))
    LIMIT CAST(:most AS int)
"""
_COUNT = text(f"SELECT count(*) FROM (SELECT FROM provisioner.file_texts t WHERE {_SPARE}) spare")
_FORGET = text(f"""
    WITH gone AS (
        DELETE FROM provisioner.file_texts WHERE (gateway_id, sha256) IN (
            SELECT t.gateway_id, t.sha256 FROM provisioner.file_texts t WHERE {_SPARE})
        RETURNING 1
    ) SELECT count(*) FROM gone
""")
