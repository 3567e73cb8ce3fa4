"""Adds gateways, boards and agents to a standalone database, which has no Mission Control to add them.

A database that Mission Control created is refused, because its rows hold more than this program knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, insert, inspect, select, update

from models import Agent, Board, Gateway, MissionControl, Organization, OrganizationMember, User
from worker.errors import PermanentError
from worker.gateway.address import GatewayAddress
from worker.workspace.identity import workspace_path

ORGANIZATION, OWNER = "Standalone", "Owner"
NEW_AGENT_STATUS = "offline"


class CannotAddError(PermanentError):
    """The row cannot be added to the existing ones; the sentence says why."""


@dataclass(frozen=True)
class NewAgent:
    """An agent to add to a board. ``identity_profile``: its ``role`` and the like (rules.md 11)."""

    name: str
    board_id: UUID
    is_board_lead: bool = False
    identity_profile: dict[str, Any] | None = None


def add_gateway(connection: Connection, name: str, url: str, token: str | None, workspace_root: str) -> UUID:
    """Add a gateway and return its id. Raises CannotAddError, also for an unusable URL or workspace root."""
    _require_standalone(connection)
    name = _name("gateway", name)
    if any(mark in url for mark in "?@#"):
        raise CannotAddError("A gateway's URL holds no token, user or query: give the token by itself.")
    try:
        address = GatewayAddress(url, token)
        workspace_path(workspace_root, "agent", gateway=name)
    except PermanentError as error:
        raise CannotAddError(str(error)) from None
    organization = _organization(connection)
    same = select(Gateway.id).where(Gateway.organization_id == organization, Gateway.name == name)
    if connection.execute(same).first():
        raise CannotAddError(f"There is a gateway {name!r} already.")
    at_url = select(Gateway.name).where(Gateway.organization_id == organization, Gateway.url == address.url)
    if taken := connection.execute(at_url).scalar():
        raise CannotAddError(f"Gateway {taken!r} has the URL {address.url} already.")
    return _insert(
        connection,
        Gateway,
        organization_id=organization,
        name=name,
        url=address.url,
        token=address.token,
        workspace_root=workspace_root.strip(),
    )


def upsert_gateway(connection: Connection, name: str, url: str, token: str, workspace_root: str) -> None:
    """Add a gateway, or update the URL and token of the one with that name. Raises CannotAddError."""
    _require_standalone(connection)
    known = update(Gateway).where(Gateway.name == name).values(url=url, token=token)
    if not connection.execute(known).rowcount:
        add_gateway(connection, name, url, token, workspace_root)


def add_board(connection: Connection, name: str, gateway_id: UUID, objective: str | None = None) -> UUID:
    """Add a board and return its id; an objective becomes its confirmed goal. Raises CannotAddError."""
    _require_standalone(connection)
    name = _name("board", name)
    organization = connection.execute(
        select(Gateway.organization_id).where(Gateway.id == gateway_id)
    ).scalar_one()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "board"
    same = select(Board.name).where(Board.organization_id == organization, Board.name == name)
    if connection.execute(same).first():
        raise CannotAddError(f"There is a board {name!r} already.")
    objective = objective.strip() if objective else None
    return _insert(
        connection,
        Board,
        organization_id=organization,
        name=name,
        slug=slug,
        gateway_id=gateway_id,
        board_type="goal" if objective else "general",
        objective=objective,
        goal_confirmed=bool(objective),
    )


def add_agent(connection: Connection, agent: NewAgent) -> UUID:
    """Add an agent to its board, on the board's gateway, and return its id. Raises CannotAddError."""
    _require_standalone(connection)
    name = _name("agent", agent.name)
    board = connection.execute(
        select(Board.name, Board.gateway_id).where(Board.id == agent.board_id).with_for_update()
    ).one()
    if board.gateway_id is None:
        raise CannotAddError(f"Board {board.name!r} has no gateway, so nothing can run on it.")
    there = connection.execute(
        select(Agent.name, Agent.is_board_lead).where(Agent.board_id == agent.board_id)
    ).all()
    if name in {row.name for row in there}:
        raise CannotAddError(f"Board {board.name!r} has an agent {name!r} already.")
    lead = next((row.name for row in there if row.is_board_lead), None)
    if agent.is_board_lead and lead is not None:
        raise CannotAddError(f"Board {board.name!r} has a lead already, {lead!r}; a board has one.")
    return _insert(
        connection,
        Agent,
        board_id=agent.board_id,
        gateway_id=board.gateway_id,
        name=name,
        status=NEW_AGENT_STATUS,
        is_board_lead=agent.is_board_lead,
        identity_profile=agent.identity_profile or None,
    )


def _require_standalone(connection: Connection) -> None:
    """Raise CannotAddError for a database that is not standalone: its tables are missing, or have columns
    that we do not map and so are Mission Control's own."""
    inspector = inspect(connection)
    for name in ("gateways", "boards", "agents"):
        if not inspector.has_table(name):
            raise CannotAddError(
                "This database has no Mission Control tables: run `provisioner migrate --standalone`."
            )
        known = set(MissionControl.metadata.tables[name].columns.keys())
        if {column["name"] for column in inspector.get_columns(name)} - known:
            raise CannotAddError(
                "This database is Mission Control's own: add gateways, boards and agents there, in its UI"
                " or API."
            )


def _organization(connection: Connection) -> UUID:
    """The id of the oldest organization; if there is none, one is created with its owner."""
    oldest = select(Organization.id).order_by(Organization.created_at).limit(1)
    found = connection.execute(oldest).scalar_one_or_none()
    if found is not None:
        return found
    key = _insert(connection, Organization, name=ORGANIZATION)
    user = uuid4()
    connection.execute(
        insert(User).values(
            id=user,
            clerk_user_id="standalone-owner",
            name=OWNER,
            is_super_admin=True,
            active_organization_id=key,
        )
    )
    _insert(
        connection,
        OrganizationMember,
        organization_id=key,
        user_id=user,
        role="owner",
        all_boards_read=True,
        all_boards_write=True,
    )
    return key


def _insert(connection: Connection, model: type[MissionControl], **values: Any) -> UUID:
    key = uuid4()
    now = datetime.now(UTC).replace(tzinfo=None)
    connection.execute(insert(model).values(id=key, created_at=now, updated_at=now, **values))
    return key


def _name(noun: str, name: str) -> str:
    cleaned = " ".join(name.split())
    if not cleaned or not cleaned.isprintable():
        raise CannotAddError(
            f"{'An' if noun == 'agent' else 'A'} {noun} needs a name of printable characters."
        )
    return cleaned
