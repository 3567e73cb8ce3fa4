"""Rows of `provisioner.agent_bundles`, and what our tables hold of an agent that goes into its bundle
(rules.md 52)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.masking import mask_all
from worker.records.places import Place
from worker.workspace.bundle import Bundle, BundleError, read_tar, to_tar
from worker.workspace.display_text import one_line
from worker.workspace.sealing import seal, unseal

Reason = Literal["delete", "export", "import", "orphan"]
KEPT_FOR = timedelta(days=30)
"""How long a bundle is kept."""


@dataclass(frozen=True)
class AgentRows:
    """What our tables hold of an agent. ``row``: its row of ``agents`` without hashes of tokens, empty if it
    has none; ``delivered``: by file name, the rendering that was delivered last; ``layers``: the names of
    its own templates."""

    row: Mapping[str, Any] = field(default_factory=dict)
    board: str | None = None
    gateway: str | None = None
    organization_id: UUID | None = None
    settings: Sequence[Mapping[str, Any]] = ()
    delivered: Mapping[str, str] = field(default_factory=dict)
    layers: Sequence[str] = ()


def rows_of(connection: Connection, agent_id: UUID, place: Place | None) -> AgentRows:
    """Read what our tables hold of an agent that lives, or last lived, in ``place``."""
    gateway_id = place.gateway_id if place is not None else None
    row = connection.execute(_ROWS, {"agent_id": agent_id, "gateway_id": gateway_id}).one()
    texts = connection.execute(_DELIVERED, {"agent_id": agent_id, "gateway_id": gateway_id})
    found = json.loads(row.agent) if row.agent is not None else {}
    return AgentRows(
        {name: value for name, value in found.items() if not name.endswith("_token_hash")},
        row.board,
        row.gateway,
        row.organization_id,
        json.loads(row.settings or "[]"),
        {one.name: zlib.decompress(one.body).decode() for one in texts},
        row.layers or (),
    )


@dataclass(frozen=True)
class StoredBundle:
    """A row of ``agent_bundles`` without its body; ``manifest``: what may be shown of it."""

    id: UUID
    agent_id: UUID
    gateway_id: UUID | None
    organization_id: UUID | None
    openclaw_id: str | None
    agent_name: str | None
    reason: str
    job_id: UUID | None
    whole: bool
    encrypted: bool
    manifest: Mapping[str, Any]
    size: int
    made_at: Any
    expires_at: Any
    now: Any


def keep(
    connection: Connection,
    agent_id: UUID,
    bundle: Bundle,
    reason: Reason,
    keys: Sequence[str],
    *,
    job_id: UUID | None = None,
) -> UUID:
    """Store a bundle for `KEPT_FOR`, delete those whose time is over, and return its id. ``keys``: those of
    BUNDLE_KEY, the newest first; without any the bundle must be masked."""
    key = uuid4()
    agent = bundle.agent
    values = {
        "id": key,
        "agent_id": agent_id,
        "gateway_id": _uuid(agent.get("gateway_id")),
        "organization_id": _uuid(agent.get("organization_id")),
        "openclaw_id": agent.get("openclaw_id"),
        "agent_name": one_line(str(agent.get("name") or ""))[:200] or None,
        "made_for": reason,
        "job_id": job_id,
        "whole": bundle.whole,
        "encrypted": bool(keys),
        "manifest": mask_all(bundle.summary()),
        "body": seal(to_tar(bundle), keys, str(key)),
        "kept_for": KEPT_FOR,
    }
    connection.execute(_KEEP, values)
    return key


def find_bundle(connection: Connection, agent_id: UUID, bundle_id: UUID | None = None) -> StoredBundle | None:
    """The bundle of that id, or else the best one of the agent: the newest for which its gateway showed its
    files, or, if there is none, the newest. None if there is none."""
    values = {"agent_id": agent_id, "bundle_id": bundle_id}
    row = connection.execute(_FIND, values).one_or_none()
    return None if row is None else StoredBundle(**row._mapping)


def bundle_of_job(connection: Connection, job_id: UUID) -> UUID | None:
    """The bundle that the job made, if it made one."""
    found: UUID | None = connection.execute(_OF_JOB, {"job_id": job_id}).scalars().first()
    return found


def all_bundles(connection: Connection) -> list[StoredBundle]:
    """All bundles, the newest first."""
    return [StoredBundle(**row._mapping) for row in connection.execute(_LIST)]


def open_bundle(connection: Connection, stored: StoredBundle, keys: Sequence[str]) -> Bundle:
    """Read and unpack a bundle. Raises BundleError."""
    body: bytes | None = connection.execute(_BODY, {"id": stored.id}).scalar_one_or_none()
    if body is None:
        raise BundleError(f"Bundle {stored.id} is not kept any more.")
    return read_tar(unseal(bytes(body), keys, str(stored.id), encrypted=stored.encrypted))


def forget_bundles(connection: Connection, *, dry_run: bool = False) -> int:
    """Delete the bundles whose time is over, and return how many; a dry run counts them."""
    return int(connection.execute(_COUNT_OLD if dry_run else _FORGET).scalar_one())


def agents_of_bundles(connection: Connection, given: str) -> Sequence[Row[Any]]:
    """The ids of agents that have a bundle and are meant by a name or an id, and whether they have a row."""
    return connection.execute(_NAMED, {"given": given}).all()


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None


_ROWS = text("""
    SELECT CAST(to_jsonb(a) AS text) AS agent, b.name AS board, g.name AS gateway, g.organization_id,
        (SELECT CAST(jsonb_agg(jsonb_build_object('field', s.field, 'value', s.value, 'locked', s.locked)
                               ORDER BY s.field) AS text)
         FROM provisioner.agent_settings s WHERE s.scope = 'agent' AND s.target_id = asked.id) AS settings,
        (SELECT array_agg(DISTINCT t.name) FROM provisioner.template_promotions t
         WHERE t.scope = 'agent' AND t.target_id = CAST(asked.id AS text) AND t.until IS NULL) AS layers
    FROM (SELECT CAST(:agent_id AS uuid) AS id) AS asked
    LEFT JOIN agents a ON a.id = asked.id
    LEFT JOIN boards b ON b.id = a.board_id
    LEFT JOIN gateways g ON g.id = coalesce(a.gateway_id, CAST(:gateway_id AS uuid))
""")
_DELIVERED = text("""
    SELECT f.name, t.body FROM provisioner.agent_files f
    JOIN provisioner.file_texts t ON (t.gateway_id, t.sha256) = (f.gateway_id, f.source_sha256)
    WHERE f.agent_id = :agent_id AND f.gateway_id = :gateway_id AND f.kind <> 'section'
""")
_KEEP = text("""
    WITH old AS (DELETE FROM provisioner.agent_bundles WHERE expires_at < now())
    INSERT INTO provisioner.agent_bundles
        (id, agent_id, gateway_id, organization_id, openclaw_id, agent_name, reason, job_id, whole, encrypted,
         manifest, body, expires_at)
    VALUES (:id, :agent_id, :gateway_id, :organization_id, :openclaw_id, :agent_name, :made_for, :job_id,
    :whole, :encrypted, :manifest, :body, now() + CAST(:kept_for AS interval))
""").bindparams(bindparam("manifest", type_=JSONB))
_COLUMNS = """
    id, agent_id, gateway_id, organization_id, openclaw_id, agent_name, reason, job_id, whole, encrypted,
    manifest, length(body) AS size, made_at, expires_at, now() AS now
"""
_FIND = text(f"""
    SELECT {_COLUMNS} FROM provisioner.agent_bundles
    WHERE expires_at >= now() AND CASE WHEN CAST(:bundle_id AS uuid) IS NULL THEN agent_id = :agent_id
        ELSE id = :bundle_id END
    ORDER BY whole DESC, made_at DESC, id LIMIT 1
""")
_LIST = text(
    f"SELECT {_COLUMNS} FROM provisioner.agent_bundles WHERE expires_at >= now() ORDER BY made_at DESC, id"
)
_OF_JOB = text("SELECT id FROM provisioner.agent_bundles WHERE job_id = :job_id")
_BODY = text("SELECT body FROM provisioner.agent_bundles WHERE id = :id")
_NAMED = text("""
    SELECT DISTINCT b.agent_id, a.id IS NOT NULL AS has_row
    FROM provisioner.agent_bundles b LEFT JOIN agents a ON a.id = b.agent_id
    WHERE b.expires_at >= now()
      AND (lower(b.agent_name) = lower(:given) OR starts_with(CAST(b.agent_id AS text), lower(:given)))
""")
_COUNT_OLD = text("SELECT count(*) FROM provisioner.agent_bundles WHERE expires_at < now()")
_FORGET = text("""
    WITH gone AS (DELETE FROM provisioner.agent_bundles WHERE expires_at < now() RETURNING 1)
    SELECT count(*) FROM gone
""")
