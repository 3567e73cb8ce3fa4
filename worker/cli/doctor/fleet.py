"""What the database holds of one gateway: its row, its agents, and where the other agents are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Connection, text

from worker.database import DATABASE_AWAY
from worker.errors import PermanentError, reason_of
from worker.gateway.address import GatewayAddress
from worker.records.agent_repository import AgentRecord, load_agent
from worker.records.places import LIVE_PLACES, former_places_of, home_of, places_of
from worker.roster.circuit_breaker import fingerprint, forget_refused_token
from worker.workspace.display_text import shown_name


@dataclass(frozen=True)
class GatewayRow:
    """A gateway with what the workers have on record of it; times in seconds."""

    id: UUID
    name: str
    url: str
    token: str | None = field(repr=False)
    allow_insecure_tls: bool
    down_for_s: float | None
    rate_limited_for_s: float | None
    refused_token_fingerprint: str | None
    last_error: str | None

    @property
    def address(self) -> GatewayAddress:
        """Where to connect. Raises BadAddress."""
        return GatewayAddress(self.url, self.token, self.allow_insecure_tls)


@dataclass(frozen=True)
class Fleet:
    """The agents that belong on a gateway. ``refused``: one sentence for each whose rows are inconsistent.

    By OpenClaw id: ``elsewhere`` names the gateway of each agent of another gateway, ``former`` the agent of
    each entry that should have left this one. ``twins``: other rows with this gateway's URL, by name.
    ``names``: the names of all agents by id.
    """

    records: Sequence[AgentRecord] = ()
    refused: Sequence[str] = ()
    refused_ids: frozenset[str] = frozenset()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    former: Mapping[str, str] = field(default_factory=dict)
    twins: frozenset[str] = frozenset()
    names: Mapping[UUID, str] = field(default_factory=dict)


_ROW = text("""
    SELECT g.id, g.name, coalesce(g.url, '') AS url, g.token,
        coalesce((to_jsonb(g) ->> 'allow_insecure_tls')::boolean, false) AS allow_insecure_tls,
        extract(epoch FROM now() - s.down_since)::float AS down_for_s,
        extract(epoch FROM s.rate_limited_until - now())::float AS rate_limited_for_s,
        s.refused_token_fingerprint, s.last_error
    FROM gateways g LEFT JOIN provisioner.gateway_states s ON s.gateway_id = g.id
    WHERE g.id = :gateway_id
""")
_AGENTS = text(f"""
    SELECT a.id, a.name, {LIVE_PLACES} AS places, a.board_id, a.is_board_lead, a.gateway_id,
        g.name AS gateway_name, coalesce(g.url, '') AS gateway_url,
        a.gateway_id = :gateway_id OR coalesce(b.gateway_id = :gateway_id, false) AS here
    FROM agents a LEFT JOIN boards b ON b.id = a.board_id LEFT JOIN gateways g ON g.id = a.gateway_id
    ORDER BY a.created_at, a.id
""")


def read_gateway(connection: Connection, gateway_id: UUID) -> GatewayRow:
    """Read the gateway's row."""
    return GatewayRow(**connection.execute(_ROW, {"gateway_id": gateway_id}).one()._mapping)


def read_fleet(connection: Connection, gateway_id: UUID) -> Fleet:
    """Read the gateway's agents, oldest first, the main agent included."""
    server = _server_of(read_gateway(connection, gateway_id).url)
    records: list[AgentRecord] = []
    refused: list[str] = []
    refused_ids: set[str] = set()
    elsewhere: dict[str, str] = {}
    former: dict[str, str] = {}
    twins: set[str] = set()
    names: dict[UUID, str] = {}
    for row in connection.execute(_AGENTS, {"gateway_id": gateway_id}).all():
        name = shown_name(row.name, str(row.id))
        names[row.id] = name
        places = places_of(row.places)
        home = home_of(row, "", places)
        left = former_places_of(home, places)
        former |= {place.openclaw_id: name for place in left if place.gateway_id == gateway_id}
        if not row.here:
            elsewhere[home.openclaw_id] = row.gateway_name or "that does not exist"
            if server is not None and _server_of(row.gateway_url) == server:
                twins.add(row.gateway_name)
            continue
        try:
            records.append(load_agent(connection, row.id, main=True))
        except DATABASE_AWAY:
            raise
        except Exception as error:
            refused.append(
                str(error) if isinstance(error, PermanentError) else f"Agent {row.id}: {reason_of(error)}"
            )
            refused_ids.add(home.openclaw_id)
    return Fleet(
        tuple(records),
        tuple(dict.fromkeys(refused)),
        frozenset(refused_ids),
        elsewhere,
        former,
        frozenset(twins),
        names,
    )


def _server_of(url: str) -> tuple[str, int, str] | None:
    """What a stored URL leads to, None if it leads nowhere."""
    try:
        return GatewayAddress(url).server
    except PermanentError:
        return None


def forget_refusal(connection: Connection, row: GatewayRow) -> bool:
    """Record that the gateway lets us in. Returns whether the workers had this token on record as refused; an
    earlier token that was refused is forgotten as well."""
    if forget_refused_token(connection, row.id, fingerprint(row.address)):
        return True
    if row.refused_token_fingerprint is not None:
        forget_refused_token(connection, row.id, row.refused_token_fingerprint)
    return False


def shown_url(url: str) -> str:
    """A stored URL without the token that Mission Control's URLs may carry behind ``?``."""
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
