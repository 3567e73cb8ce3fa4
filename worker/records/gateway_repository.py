"""Reads a gateway's row, and the roster entries that its agents' rows call for at this moment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import PermanentError
from worker.gateway.address import GatewayAddress
from worker.gateway.roster_plan import RosterEntry
from worker.records.agent_repository import GatewayCondition, workspace_of
from worker.records.agent_settings import HELD_FIELDS, SETTINGS, WRITTEN, with_settings
from worker.records.places import LIVE_PLACES, Place, home_of, owns_entry, places_of
from worker.records.sync_windows import NO_WINDOWS, GatewayWindows, windows_of, windows_sql
from worker.workspace.context import GatewayFacts
from worker.workspace.display_text import shown_name


@dataclass(frozen=True)
class GatewayRecord:
    """A gateway, its address, the condition in which workers last found it, and its sync windows."""

    gateway: GatewayFacts
    address: GatewayAddress
    condition: GatewayCondition
    organization_id: UUID
    windows: GatewayWindows = NO_WINDOWS

    @property
    def gateway_id(self) -> UUID:
        """The gateway's primary key."""
        return UUID(str(self.gateway.id))


_GATEWAY = text(f"""
    SELECT g.id, g.name, g.url, g.token, g.workspace_root, g.organization_id,
        s.refused_token_fingerprint, s.last_error, s.down_at,
        extract(epoch FROM now() - s.down_since)::float AS down_for_s,
        coalesce((to_jsonb(g) ->> 'allow_insecure_tls')::boolean, false) AS allow_insecure_tls,
        {windows_sql("SELECT g.id")} AS windows
    FROM gateways g LEFT JOIN provisioner.gateway_states s ON s.gateway_id = g.id WHERE g.id = :gateway_id
""")
_HELD_OTHERWISE = HELD_FIELDS.replace(
    "WHERE",
    """WHERE NOT EXISTS (
        SELECT FROM provisioner.jobs j
        WHERE j.id = h.job_id AND j.kind = 'roll_out' AND j.status NOT IN ('queued', 'running')) AND""",
)
_WANTED = text(f"""
    SELECT a.id, a.name, a.board_id, a.is_board_lead, a.gateway_id,
        CAST(a.heartbeat_config AS text) AS heartbeat_config, {LIVE_PLACES} AS places,
        {SETTINGS} AS settings, {WRITTEN} AS written, CASE WHEN :past_roll_outs THEN {_HELD_OTHERWISE}
        ELSE {HELD_FIELDS} END AS held_fields
    FROM agents a WHERE a.id = ANY(:agents) AND a.gateway_id = :gateway_id ORDER BY a.created_at, a.id
""")


def load_gateway(connection: Connection, gateway_id: UUID) -> GatewayRecord | None:
    """Read the gateway, or return None if it has no row. Raises BadAddress for an invalid URL."""
    row = connection.execute(_GATEWAY, {"gateway_id": gateway_id}).one_or_none()
    if row is None:
        return None
    return GatewayRecord(
        GatewayFacts(id=row.id, name=row.name, url=row.url, workspace_root=row.workspace_root),
        GatewayAddress(row.url, row.token, row.allow_insecure_tls),
        GatewayCondition(row.down_for_s, row.refused_token_fingerprint, row.last_error, row.down_at),
        row.organization_id,
        windows_of(row.windows),
    )


def require_gateway(connection: Connection, gateway_id: UUID | None) -> GatewayRecord:
    """Read the gateway of a job that was accepted. Raises PermanentError if it has no row any more, and
    BadAddress for an invalid URL."""
    gateway = None if gateway_id is None else load_gateway(connection, gateway_id)
    if gateway is None:
        raise PermanentError(f"Gateway {gateway_id} does not exist any more.")
    return gateway


@dataclass(frozen=True)
class Wanted:
    """The roster entry that an agent should have, and the place where the agent should live."""

    entry: RosterEntry
    home: Place


def wanted_agents(
    connection: Connection, record: GatewayRecord, agents: Sequence[UUID], *, past_roll_outs: bool = False
) -> dict[UUID, Wanted]:
    """The entries and homes, by agent id, of those of ``agents`` whose rows name this gateway.

    The oldest agent comes first. ``past_roll_outs``: without what is held for roll-outs that have ended.
    Raises PermanentError for an invalid workspace root (rules.md 4).
    """
    values = {"agents": list(agents), "gateway_id": record.gateway_id, "past_roll_outs": past_roll_outs}
    rows = connection.execute(_WANTED, values)
    return {row.id: _wanted(row, record.gateway) for row in rows}


def wanted_entries(
    connection: Connection, record: GatewayRecord, agents: Sequence[UUID], *, past_roll_outs: bool = False
) -> dict[UUID, RosterEntry]:
    """Only the entries of `wanted_agents`, by agent id. Raises PermanentError."""
    wanted = wanted_agents(connection, record, agents, past_roll_outs=past_roll_outs)
    return {agent: one.entry for agent, one in wanted.items()}


def _wanted(row: Any, gateway: GatewayFacts) -> Wanted:
    home = home_of(row, gateway.workspace_root, places_of(row.places))
    name, path = shown_name(row.name, home.openclaw_id), workspace_of(home, gateway)
    entry = RosterEntry(home.openclaw_id, name, path, settings_only=not owns_entry(row, home))
    try:  # parsed here because in the driver one agent's bad JSON would fail all agents
        config = json.loads(row.heartbeat_config or "null")
    except (ValueError, RecursionError) as error:
        fault = f"agents.heartbeat_config cannot be read ({type(error).__name__}): write it more simply."
        return Wanted(replace(entry, fault=fault), home)
    entry = replace(entry, heartbeat=config if isinstance(config, Mapping) else {})
    return Wanted(with_settings(entry, row.settings, row.written, row.held_fields), home)
