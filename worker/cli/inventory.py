"""What there is: gateways, boards and agents with what is known of each, in one statement a list."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Connection, Row, text

from worker.errors import PermanentError
from worker.gateway.address import GatewayAddress
from worker.workspace.naming import shown_name


@dataclass(frozen=True)
class GatewayLine:
    """``state``: what the workers know of it; ``url`` never holds a token."""

    id: UUID
    name: str
    url: str
    has_token: bool
    workspace_root: str
    boards: int
    agents: int
    state: str
    last_error: str | None


@dataclass(frozen=True)
class BoardLine:
    """``lead``: the name of its lead agent, None without one."""

    id: UUID
    name: str
    gateway: str | None
    gateway_id: UUID | None
    lead: str | None
    agents: int
    objective: str | None


@dataclass(frozen=True)
class AgentLine:
    """``board`` is None for a gateway's main agent. ``last_job_age_s``: since its newest job."""

    id: UUID
    name: str
    is_board_lead: bool
    status: str
    board: str | None
    board_id: UUID | None
    gateway: str | None
    gateway_id: UUID
    last_job_id: UUID | None
    last_job_status: str | None
    last_job_age_s: float | None


_GATEWAYS = text("""
    SELECT g.id, g.name, g.url, coalesce(g.token, '') <> '' AS has_token, g.workspace_root,
        (SELECT count(*) FROM boards b WHERE b.gateway_id = g.id) AS boards,
        (SELECT count(*) FROM agents a WHERE a.gateway_id = g.id) AS agents,
        CASE WHEN s.down_since IS NOT NULL THEN 'down'
             WHEN s.rate_limited_until > now() THEN 'rate limited'
             WHEN s.refused_token_fingerprint IS NOT NULL THEN 'token refused'
             WHEN s.gateway_id IS NOT NULL THEN 'up' ELSE 'not tried' END AS state,
        s.last_error
    FROM gateways g LEFT JOIN provisioner.gateway_states s ON s.gateway_id = g.id
    ORDER BY g.created_at
""")

_BOARDS = text("""
    SELECT b.id, b.name, g.name AS gateway, b.gateway_id, b.objective,
        (SELECT a.name FROM agents a WHERE a.board_id = b.id AND a.is_board_lead
         ORDER BY a.created_at LIMIT 1) AS lead,
        (SELECT count(*) FROM agents a WHERE a.board_id = b.id) AS agents
    FROM boards b LEFT JOIN gateways g ON g.id = b.gateway_id
    ORDER BY g.created_at, b.created_at
""")

_AGENTS = text("""
    SELECT a.id, a.name, a.is_board_lead, a.status, b.name AS board, a.board_id, g.name AS gateway,
        a.gateway_id, j.id AS last_job_id, j.status AS last_job_status,
        extract(epoch FROM now() - j.created_at)::float AS last_job_age_s
    FROM agents a
    LEFT JOIN boards b ON b.id = a.board_id
    LEFT JOIN gateways g ON g.id = a.gateway_id
    LEFT JOIN LATERAL (
        SELECT id, status, created_at FROM provisioner.jobs
        WHERE jobs.agent_id = a.id
           OR a.board_id IS NULL AND jobs.kind = 'provision_gateway_main' AND jobs.gateway_id = a.gateway_id
        ORDER BY created_at DESC LIMIT 1
    ) j ON true
    WHERE (CAST(:board_id AS uuid) IS NULL OR a.board_id = :board_id)
      AND (CAST(:gateway_id AS uuid) IS NULL OR a.gateway_id = :gateway_id)
    ORDER BY b.created_at, a.is_board_lead DESC, a.created_at
""")


def gateways(connection: Connection) -> list[GatewayLine]:
    """All gateways, oldest first."""
    return [_gateway(row) for row in connection.execute(_GATEWAYS)]


def boards(connection: Connection) -> list[BoardLine]:
    """All boards, gateway by gateway."""
    return [BoardLine(**row._mapping) for row in connection.execute(_BOARDS)]


def agents(
    connection: Connection, *, board_id: UUID | None = None, gateway_id: UUID | None = None
) -> list[AgentLine]:
    """Agents, of one board or gateway if given; leads first on each board."""
    rows = connection.execute(_AGENTS, {"board_id": board_id, "gateway_id": gateway_id})
    return [AgentLine(**{**row._mapping, "name": shown_name(row.name, str(row.id))}) for row in rows]


def shown_url(url: str) -> str:
    """A stored URL as it may be shown: Mission Control's may carry a token behind ``?``."""
    try:
        return GatewayAddress(url).url
    except PermanentError:
        pass
    try:
        parts = urlsplit(url.strip())
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(cannot be read)"
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.hostname else "(none)"


def _gateway(row: Row[tuple[object, ...]]) -> GatewayLine:
    values = dict(row._mapping)
    return GatewayLine(**{**values, "url": shown_url(values["url"] or "")})
