"""Creates and repairs the rows of a gateway's main agent and of a board's lead (rules.md 41, 43).

Newer Mission Controls have columns that we do not map: one that is NOT NULL without a default gets its type's
zero, and the log says so (interfaces.md 6).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, text

from worker.gateway.heartbeats import DEFAULT_HEARTBEAT
from worker.jobs.requests import BadRequestError, EnsureBoardLead, ProvisionGatewayMain
from worker.rights import require_for
from worker.workspace.context import PROFILE_DEFAULTS
from worker.workspace.identity import main_session_key, session_key

log = logging.getLogger(__name__)

LEAD_NAME = "Lead Agent"
LEAD_ROLE = "Board Lead"


def ensure_main_agent(connection: Connection, gateway_id: UUID) -> UUID:
    """Create or repair the row of the gateway's main agent, and return the agent's id.

    Concurrent callers get the same agent. Raises PermanentError.
    """
    gateway = _locked(connection, "gateways", _GATEWAY, gateway_id)
    if gateway is None:
        raise BadRequestError(f"There is no gateway with gateway_id {gateway_id}.")
    found: UUID | None = connection.execute(_MAIN, {"gateway_id": gateway_id}).scalar_one_or_none()
    values = {
        "name": f"{gateway.name} Gateway Agent",
        "is_board_lead": False,
        "openclaw_session_id": main_session_key(gateway_id),
    }
    if found is not None:
        _repair(connection, found, values, renames=False)
        return found
    profile = {key: value for key, value in PROFILE_DEFAULTS.items() if value}
    values |= {"gateway_id": gateway_id, "identity_profile": json.dumps(profile)}
    return _insert(connection, values, ProvisionGatewayMain.kind)


def ensure_board_lead(connection: Connection, request: EnsureBoardLead) -> tuple[UUID, bool]:
    """Create or repair the row of the board's lead; return the agent's id and whether it was created.

    Concurrent callers get the same agent. Raises PermanentError.
    """
    board = _locked(connection, "boards", _BOARD, request.board_id)
    if board is None:
        raise BadRequestError(f"There is no board with board_id {request.board_id}.")
    if board.gateway_id is None:
        raise BadRequestError(f"Board {board.name!r} ({board.id}) has no gateway: set boards.gateway_id.")
    values = {
        "name": (request.agent_name or "").strip() or LEAD_NAME,
        "gateway_id": board.gateway_id,
    }
    found: UUID | None = connection.execute(_LEAD, {"board_id": board.id}).scalar_one_or_none()
    if found is not None:
        key = session_key(found, board.id, True)
        given_name = bool((request.agent_name or "").strip())
        _repair(connection, found, {**values, "openclaw_session_id": key}, renames=given_name)
        return found, False
    profile = {key: PROFILE_DEFAULTS[key] for key in ("communication_style", "emoji")}
    given = {key: value for key, value in (request.identity_profile or {}).items() if _is_given(value)}
    values |= {
        "board_id": board.id,
        "is_board_lead": True,
        "openclaw_session_id": session_key(board.id, board.id, True),
        "identity_profile": json.dumps({"role": LEAD_ROLE, **profile, **given}),
    }
    return _insert(connection, values, request.kind), True


@dataclass(frozen=True)
class NewAgent:
    """A row of ``agents`` to be made for an agent that is on its gateway already."""

    id: UUID
    name: str
    board_id: UUID
    gateway_id: UUID
    session_key: str
    heartbeat: Mapping[str, Any] | None


def add_found_agent(connection: Connection, agent: NewAgent, kind: str) -> None:
    """Insert the row unless it is there. ``kind``: of the job that asks. Raises PermanentError if the
    database role may not."""
    if connection.execute(_IS_THERE, {"id": agent.id}).one_or_none() is not None:
        return
    values: dict[str, Any] = {
        "id": agent.id,
        "name": agent.name,
        "board_id": agent.board_id,
        "gateway_id": agent.gateway_id,
        "is_board_lead": False,
        "openclaw_session_id": agent.session_key,
    }
    if agent.heartbeat is not None:
        values["heartbeat_config"] = json.dumps(agent.heartbeat)
    _insert(connection, values, kind)


def _locked(connection: Connection, table: str, query: str, key: UUID) -> Row[Any] | None:
    """Read the row, locked until the transaction ends, so that concurrent callers create one agent.

    The lock is an advisory one, which needs no right on the table; FOR UPDATE needs UPDATE. A role with that
    right locks the row as well, because workers of v0.1.0 at the same database know no other lock.
    """
    parameters = {"id": str(key), "place": _PLACE, "table": table}
    lock = connection.execute(_LOCK, parameters).one()
    suffix = " FOR UPDATE" if lock.may_lock_rows else ""
    return connection.execute(text(query + suffix), {"id": key}).one_or_none()


def _is_given(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _repair(connection: Connection, agent_id: UUID, values: Mapping[str, Any], *, renames: bool) -> None:
    """Set the columns that differ. An agent that was adopted keeps its session key, and its name unless the
    request ``renames`` it (rules.md 48)."""
    wanted = {name: f":{name}" for name in values}
    wanted["openclaw_session_id"] = f"coalesce({_ADOPTED_KEY}, :openclaw_session_id)"
    if not renames:
        wanted["name"] = f"CASE WHEN {_ADOPTED_KEY} IS NULL THEN :name ELSE name END"
    columns = ", ".join(f"{name} = {value}" for name, value in wanted.items())
    differs = " OR ".join(f"{name} IS DISTINCT FROM {value}" for name, value in wanted.items())
    statement = f"UPDATE agents SET {columns}, updated_at = {_NOW} WHERE id = :id AND ({differs})"
    connection.execute(text(statement), {**values, "id": agent_id})


def _insert(connection: Connection, values: Mapping[str, Any], kind: str) -> UUID:
    require_for(connection, kind)
    given: dict[str, Any] = {
        "id": uuid4(),
        "status": "offline",
        "heartbeat_config": json.dumps(DEFAULT_HEARTBEAT),
        **values,
    }
    agent_id: UUID = given["id"]
    zeros = zeros_for(connection, {*given, "created_at", "updated_at"})
    columns = [*given, "created_at", "updated_at", *(f'"{name}"' for name in zeros)]
    parameters = [f":{name}" for name in given] + [_NOW, _NOW] + list(zeros.values())
    statement = f"INSERT INTO agents ({', '.join(columns)}) VALUES ({', '.join(parameters)})"
    connection.execute(text(statement), given)
    return agent_id


def zeros_for(connection: Connection, known: Collection[str]) -> dict[str, str]:
    """By name, SQL of a zero for each column that must be given and is not among the ``known`` ones."""
    zeros = {row.name: row.zero for row in connection.execute(_UNKNOWN_REQUIRED) if row.name not in known}
    if zeros:
        log.warning(
            "agents has columns that we do not know; a zero is put into: %s", ", ".join(sorted(zeros))
        )
    return zeros


_ADOPTED_KEY = """(
    SELECT p.session_key FROM provisioner.agent_places p
    WHERE p.agent_id = agents.id AND p.gateway_id = agents.gateway_id AND p.adopted AND p.until IS NULL
)"""
_NOW = "now() AT TIME ZONE 'utc'"
_LOCK = text("""
    SELECT pg_advisory_xact_lock(hashtextextended(CAST(:id AS text), :place)),
        has_table_privilege(CAST(:table AS text), 'UPDATE') AS may_lock_rows
""")
_PLACE = 7_201
"""Seed that keeps our advisory locks apart from those of other programs on the database."""
_IS_THERE = text("SELECT id FROM agents WHERE id = :id")
_GATEWAY = "SELECT id, name FROM gateways WHERE id = :id"
_BOARD = "SELECT id, name, gateway_id FROM boards WHERE id = :id"
_MAIN = text("""
    SELECT id FROM agents WHERE gateway_id = :gateway_id AND board_id IS NULL
    ORDER BY created_at, id LIMIT 1
""")
_LEAD = text("""
    SELECT id FROM agents WHERE board_id = :board_id AND is_board_lead ORDER BY created_at, id LIMIT 1
""")
_UNKNOWN_REQUIRED = text("""
    SELECT a.attname AS name, CASE
            WHEN t.typcategory = 'N' THEN '0'
            WHEN t.typcategory = 'B' THEN 'false'
            WHEN t.typname = 'uuid' THEN '''00000000-0000-0000-0000-000000000000'''
            WHEN t.typname IN ('json', 'jsonb') THEN '''{}'''
            WHEN t.typcategory = 'D' THEN 'now()'
            WHEN t.typcategory = 'A' THEN '''{}'''
            WHEN t.typcategory = 'E' THEN quote_literal((
                SELECT enumlabel FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder LIMIT 1))
            ELSE '''''' END AS zero
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass('agents') AND a.attnum > 0 AND a.attnotnull AND NOT a.atthasdef
      AND a.attidentity = '' AND a.attgenerated = '' AND NOT a.attisdropped
""")
