"""Reads everything that a job needs to know about one agent, in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.database import DATABASE_AWAY
from worker.errors import PermanentError
from worker.gateway.address import GatewayAddress
from worker.gateway.roster_plan import RosterEntry
from worker.jobs.states import ReasonCode
from worker.records.agent_settings import HELD_FIELDS, SETTINGS, WRITTEN, with_settings
from worker.records.holds import HELD, HELD_ENTRY, held_entry_of, held_of
from worker.records.places import (
    LIVE_PLACES,
    Belonging,
    Place,
    former_places_of,
    home_of,
    keeps,
    owns_entry,
    places_of,
    taken,
)
from worker.records.sync_windows import NO_WINDOWS, GatewayWindows, windows_of, windows_sql
from worker.records.template_layers import LAYERS, PLAIN_OVERRIDES, LayerNames, layers_of
from worker.workspace.context import AgentFacts, BoardFacts, GatewayFacts, UserFacts
from worker.workspace.display_text import one_line, shown_name
from worker.workspace.held import HeldEntry, HeldFile
from worker.workspace.identity import plain_path, workspace_path
from worker.workspace.layers import NO_LAYERS, Layers
from worker.workspace.plan import RecordedFile
from worker.workspace.three_sides import Owner


def workspace_of(home: Place, gateway: GatewayFacts) -> str:
    """The folder of an agent that lives in ``home``: as assigned, or as found where it was adopted. Raises
    PermanentError for an invalid workspace root (rules.md 4)."""
    if home.adopted and (found := home.workspace or home.resolved_workspace):
        return found
    made = home.workspace
    if made is None:
        made = workspace_path(gateway.workspace_root, home.openclaw_id, gateway=gateway.name)
    return plain_path(made, gateway.name)


class DeletedAgentError(PermanentError):
    """The agent has no row, or no longer has one."""

    reason_code = ReasonCode.AGENT_DELETED


class MovedAgentError(PermanentError):
    """The agent was moved to another gateway while a job was at work on it."""

    reason_code = ReasonCode.AGENT_MOVED


@dataclass(frozen=True)
class GatewayCondition:
    """The condition in which workers last found a gateway (`worker.roster.circuit_breaker`).

    ``down_for_s``: seconds since it went down, None while it is up; ``down_at``: fingerprint of the address
    at which it was down.
    """

    down_for_s: float | None
    refused_token_fingerprint: str | None
    last_error: str | None
    down_at: str | None = None


@dataclass(frozen=True)
class AgentRecord:
    """An agent with its board (None for a gateway's main agent), gateway, user, credentials and records.

    ``provisioned_before``: one of our jobs has succeeded for the agent on this gateway; ``places``: the
    places where it lives according to ``agent_places``; ``files``: what we last wrote there, by file name;
    ``owners``: whose its files are, where that differs from the default;
    ``settings`` and ``written``: its settings and what is on record of its entry's fields, as read;
    ``layers``: the templates of all layers that concern it; ``held``: the files that it keeps as they were;
    ``held_fields``: the values that its entry keeps, as read; ``held_entry``: who holds them; ``windows``:
    the sync windows of the gateways where it lives; ``version``: names this version of its row in ``agents``.
    """

    agent: AgentFacts
    status: str
    token_hash: str | None
    stored_session_key: str | None
    board: BoardFacts | None
    gateway: GatewayFacts
    address: GatewayAddress
    organization_id: UUID
    user: UserFacts | None
    condition: GatewayCondition
    verified_hash: str | None
    pending_hash: str | None
    replaces_hash: str | None
    credential_job_id: UUID | None
    provisioned_before: bool
    places: tuple[Place, ...] = ()
    files: Mapping[str, RecordedFile] = field(default_factory=dict)
    owners: Mapping[str, Owner] = field(default_factory=dict)
    settings: str | None = None
    written: str | None = None
    layers: Layers = NO_LAYERS
    held: Mapping[str, HeldFile] = field(default_factory=dict)
    held_fields: str | None = None
    held_entry: HeldEntry | None = None
    windows: GatewayWindows = NO_WINDOWS
    version: str | None = None

    @property
    def gateway_id(self) -> UUID:
        """The gateway's primary key."""
        return UUID(str(self.gateway.id))

    @cached_property
    def home(self) -> Place:
        """The place where the agent should live."""
        return home_of(self._belonging, self.gateway.workspace_root, self.places)

    @property
    def _belonging(self) -> Belonging:
        board_id = self.board.id if self.board else None
        return Belonging(self.agent.id, board_id, self.agent.is_board_lead, self.gateway_id)

    @property
    def former_places(self) -> tuple[Place, ...]:
        """The places where the agent still lives but should not, so that it has to be removed there."""
        return former_places_of(self.home, self.places)

    @property
    def session_key(self) -> str:
        """The agent's session key (rules.md 1, 2)."""
        return self.home.session_key

    @property
    def openclaw_id(self) -> str:
        """The agent's id on its gateway (rules.md 3)."""
        return self.home.openclaw_id

    @property
    def workspace(self) -> str:
        """The agent's folder on the gateway (rules.md 4)."""
        return workspace_of(self.home, self.gateway)

    @property
    def roster_entry(self) -> RosterEntry:
        """The entry that the gateway's roster should have for the agent."""
        ours = owns_entry(self._belonging, self.home)
        entry = RosterEntry(
            self.openclaw_id, self.shown_name, self.workspace, self.heartbeat, settings_only=not ours
        )
        return with_settings(entry, self.settings, self.written, self.held_fields)

    @property
    def shown_name(self) -> str:
        """The agent's name on one line, cut if it is very long."""
        return shown_name(self.agent.name, self.openclaw_id)

    @property
    def heartbeat(self) -> Mapping[str, Any]:
        """The agent's own heartbeat settings; a value that is no object counts as none (rules.md 15)."""
        config = self.agent.heartbeat_config
        return config if isinstance(config, Mapping) else {}


_WINDOWS = windows_sql("""SELECT a.gateway_id UNION ALL SELECT p.gateway_id FROM provisioner.agent_places p
            WHERE p.agent_id = a.id AND p.until IS NULL""")
_LOAD = text(f"""
    SELECT a.id, CAST(a.xmin AS text) AS version, a.name, a.status, a.is_board_lead, a.identity_profile,
        a.identity_template, a.soul_template, a.heartbeat_config, a.agent_token_hash, a.openclaw_session_id,
        a.board_id, a.gateway_id,
        b.id AS board_key, b.name AS board_name, b.board_type, b.objective, b.success_metrics, b.target_date,
        b.goal_confirmed, b.gateway_id AS board_gateway_id,
        a.board_id IS NULL AND a.id = (
            SELECT id FROM agents WHERE gateway_id = a.gateway_id AND board_id IS NULL
            ORDER BY created_at, id LIMIT 1
        ) AS is_main,
        g.id AS gateway_key, g.name AS gateway_name, g.url, g.token, g.workspace_root, g.organization_id,
        coalesce((to_jsonb(g) ->> 'allow_insecure_tls')::boolean, false) AS allow_insecure_tls,
        extract(epoch FROM now() - s.down_since)::float AS down_for_s,
        s.refused_token_fingerprint, s.last_error, s.down_at,
        c.verified_hash, c.pending_hash, c.replaces_hash, c.job_id AS credential_job_id,
        coalesce(c.gateway_id = a.gateway_id, false) AS provisioned_before,
        {LIVE_PLACES} AS places,
        (SELECT jsonb_agg(jsonb_build_array(p.openclaw_id, h.id, h.name, h.status, h.board_id,
                                            h.is_board_lead, h.gateway_id, p.adopted))
         FROM provisioner.agent_places p JOIN agents h ON h.id = p.agent_id
         WHERE p.gateway_id = a.gateway_id AND p.until IS NULL AND p.agent_id <> a.id
           AND p.openclaw_id IN ('lead-' || a.board_id, 'mc-gateway-' || a.gateway_id)) AS rivals,
        u.id AS user_id, u.name AS user_name, u.preferred_name, u.pronouns, u.timezone, u.notes,
        u.context AS user_context,
        (SELECT jsonb_object_agg(f.name, jsonb_build_array(f.kind, f.source_sha256, f.size, f.updated_at_ms,
                                                           f.locator, f.mixed, t.sha256 IS NOT NULL))
         FROM provisioner.agent_files f
         LEFT JOIN provisioner.file_texts t ON (t.gateway_id, t.sha256) = (f.gateway_id, f.source_sha256)
         WHERE f.agent_id = a.id AND f.gateway_id = a.gateway_id) AS files,
        (SELECT jsonb_object_agg(o.name, o.owner ORDER BY o.scope DESC) FROM provisioner.file_owners o
         WHERE (o.scope, o.target_id) IN (('gateway', a.gateway_id), ('board', a.board_id))) AS owners,
        {SETTINGS} AS settings, {WRITTEN} AS written,
        {LAYERS} AS layers, {PLAIN_OVERRIDES} AS plain_overrides, {HELD} AS held,
        {HELD_FIELDS} AS held_fields, {HELD_ENTRY} AS held_entry, {_WINDOWS} AS windows
    FROM agents a
    LEFT JOIN boards b ON b.id = a.board_id
    LEFT JOIN gateways g ON g.id = a.gateway_id
    LEFT JOIN provisioner.gateway_states s ON s.gateway_id = a.gateway_id
    LEFT JOIN provisioner.agent_credentials c ON c.agent_id = a.id
    LEFT JOIN LATERAL (
        SELECT users.* FROM organization_members m JOIN users ON users.id = m.user_id
        WHERE m.organization_id = g.organization_id
          AND CASE WHEN CAST(:user_id AS uuid) IS NULL THEN m.role = 'owner' ELSE users.id = :user_id END
        ORDER BY m.created_at LIMIT 1
    ) u ON true
    WHERE a.id = ANY(:agents)
""")


def load_agent(
    connection: Connection, agent_id: UUID, user_id: UUID | None = None, *, main: bool = False
) -> AgentRecord:
    """Read a board's agent or, if ``main`` is true, also a gateway's main agent.

    ``user_id``: the user that the workspace is rendered for, None for the organization's owner. Raises
    PermanentError for an unusable agent, board, gateway or user (rules.md 13, 21, 22), for an invalid URL or
    workspace root (rules.md 4), and if the OpenClaw id belongs to another agent.
    """
    try:
        row = connection.execute(_LOAD, {"agents": [agent_id], "user_id": user_id}).one_or_none()
    except (RecursionError, ValueError) as error:
        raise PermanentError(
            f"Agent {agent_id} cannot be read ({type(error).__name__}): agents.identity_profile,"
            " agents.heartbeat_config or boards.success_metrics is nested too deep, or holds a number of"
            " thousands of digits: write it more simply."
        ) from None
    if row is None:
        raise DeletedAgentError(f"There is no agent with agent_id {agent_id}.")
    return _record_of(connection, row, user_id, main=main)


def load_agents(
    connection: Connection, agent_ids: Sequence[UUID], user_id: UUID | None = None
) -> dict[UUID, AgentRecord]:
    """Read boards' agents in one statement, by id, those left out of which `load_agent` would raise.

    If the driver cannot read one of them, none is returned, since it does not say which.
    """
    try:
        rows = connection.execute(_LOAD, {"agents": list(agent_ids), "user_id": user_id}).all()
    except (RecursionError, ValueError):
        return {}
    records = {}
    for row in rows:
        try:
            records[row.id] = _record_of(connection, row, user_id, main=False)
        except DATABASE_AWAY:
            raise
        except Exception:  # of any class: it is one agent's, whose own row fails with it
            continue
    return records


def _record_of(connection: Connection, row: Any, user_id: UUID | None, *, main: bool) -> AgentRecord:
    _check(row, user_id, main=main)
    record = AgentRecord(
        agent=AgentFacts(
            id=row.id,
            name=row.name,
            is_board_lead=row.is_board_lead,
            identity_profile=row.identity_profile,
            identity_template=row.identity_template,
            soul_template=row.soul_template,
            heartbeat_config=row.heartbeat_config,
        ),
        status=row.status,
        token_hash=row.agent_token_hash,
        stored_session_key=row.openclaw_session_id,
        board=_board(row),
        gateway=GatewayFacts(
            id=row.gateway_key, name=row.gateway_name, url=row.url, workspace_root=row.workspace_root
        ),
        address=GatewayAddress(row.url, row.token, row.allow_insecure_tls),
        organization_id=row.organization_id,
        user=_user(row),
        condition=GatewayCondition(
            row.down_for_s, row.refused_token_fingerprint, row.last_error, row.down_at
        ),
        verified_hash=row.verified_hash,
        pending_hash=row.pending_hash,
        replaces_hash=row.replaces_hash,
        credential_job_id=row.credential_job_id,
        provisioned_before=row.provisioned_before,
        places=places_of(row.places),
        files={name: RecordedFile(*values) for name, values in (row.files or {}).items()},
        owners=row.owners or {},
        settings=row.settings,
        written=row.written,
        layers=_layers(connection, row),
        held=held_of(connection, row.gateway_key, row.held),
        held_fields=row.held_fields,
        held_entry=held_entry_of(row.held_entry),
        windows=windows_of(row.windows),
        version=row.version,
    )
    _ = record.workspace  # an unusable root is refused before anything is touched
    _require_no_rival(record, row.rivals or ())
    return record


@dataclass(frozen=True)
class _Rival(Belonging):
    """Another agent that holds an id on the gateway which this one may need."""

    openclaw_id: str
    name: str
    status: str
    adopted: bool


def _require_no_rival(record: AgentRecord, rivals: Sequence[Any]) -> None:
    """Raise PermanentError if another agent lives under the id that this one needs, as the other of two
    leads of a board may."""
    for held_id, key, name, status, board_id, is_board_lead, gateway_id, adopted in rivals:
        holder = _Rival(UUID(key), board_id, is_board_lead, UUID(gateway_id), held_id, name, status, adopted)
        if held_id == record.openclaw_id and keeps(holder, record.gateway_id, held_id, adopted=adopted):
            owner = f"agent {one_line(name)!r} ({key})"
            raise PermanentError(f"Agent {one_line(record.agent.name)!r}: {taken(held_id, owner)}")


def _check(row: Any, user_id: UUID | None, *, main: bool) -> None:
    who = f"Agent {one_line(row.name)!r} ({row.id})"
    if row.gateway_key is None:
        raise PermanentError(f"{who} belongs to gateway {row.gateway_id}, which does not exist.")
    if not (row.url or "").strip():
        raise PermanentError(
            f"Gateway {row.gateway_name!r} ({row.gateway_key}) has no URL: set gateways.url."
        )
    if row.board_id is None and not (main and row.is_main):
        raise PermanentError(f"{who} has no board: only a gateway's main agent may have none.")
    if row.board_id is not None and row.board_key is None:
        raise PermanentError(f"{who} belongs to board {row.board_id}, which does not exist.")
    if row.board_id is not None and row.board_gateway_id != row.gateway_id:
        elsewhere = f"is on gateway {row.board_gateway_id}" if row.board_gateway_id else "has no gateway"
        raise PermanentError(
            f"{who} is on gateway {row.gateway_id}, but its board {row.board_name!r} ({row.board_id})"
            f" {elsewhere}: put both on one gateway."
        )
    if user_id is not None and row.user_id is None:
        raise PermanentError(
            f"The user_id {user_id} is not a member of the organization of gateway {row.gateway_name!r}."
        )


def _layers(connection: Connection, row: Any) -> Layers:
    names = LayerNames(row.gateway_name, row.board_name, row.name)
    return layers_of(connection, row.layers, names, plain_overrides=row.plain_overrides is True)


def _board(row: Any) -> BoardFacts | None:
    if row.board_id is None:
        return None
    return BoardFacts(
        id=row.board_id,
        name=row.board_name,
        board_type=row.board_type,
        objective=row.objective,
        success_metrics=row.success_metrics,
        target_date=row.target_date,
        goal_confirmed=row.goal_confirmed,
    )


def _user(row: Any) -> UserFacts | None:
    if row.user_id is None:
        return None
    return UserFacts(
        name=row.user_name,
        preferred_name=row.preferred_name,
        pronouns=row.pronouns,
        timezone=row.timezone,
        notes=row.notes,
        context=row.user_context,
    )
