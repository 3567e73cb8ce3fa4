"""Rows of Mission Control for tests: an organization with its owner, one gateway, boards and agents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models import (
    Agent,
    Board,
    Gateway,
    MissionControl,
    Organization,
    OrganizationMember,
    Provisioner,
    User,
)

EMPTY_ALL_TABLES = ";".join(
    f"DELETE FROM {table.fullname}"
    for schema in (Provisioner, MissionControl)
    for table in reversed(schema.metadata.sorted_tables)
)
"""SQL: empties all tables in one round trip."""


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Fleet:
    """The ids of the rows that `make_fleet` added, and methods to add more."""

    engine: Engine
    organization_id: UUID
    user_id: UUID
    gateway_id: UUID
    board_id: UUID

    def add_board(self, name: str = "Launch", *, gateway_id: UUID | None = None, **columns: Any) -> UUID:
        """Add another board, by default on the fleet's gateway, and return its id."""
        return self._add(_board(self.organization_id, gateway_id or self.gateway_id, name, **columns))

    def add_agent(self, name: str, *, lead: bool = False, **columns: Any) -> UUID:
        """Add an agent that is not provisioned yet, by default to the fleet's board, and return its id."""
        values: dict[str, Any] = {
            "board_id": self.board_id,
            "gateway_id": self.gateway_id,
            "status": "offline",
            "created_at": _now(),
            "updated_at": _now(),
            **columns,
        }
        return self._add(Agent(id=uuid4(), name=name, is_board_lead=lead, **values))

    def add_gateway(self, name: str, url: str, token: str | None = None, root: str = "~/.openclaw") -> UUID:
        """Add another gateway to the organization and return its id."""
        return self._add(_gateway(self.organization_id, name, url, token, root))

    def _add(self, row: Any) -> UUID:
        with Session(self.engine) as session:
            session.add(row)
            session.flush()
            key: UUID = row.id
            session.commit()
        return key


def make_fleet(engine: Engine, *, url: str, token: str | None, workspace_root: str) -> Fleet:
    """Add an organization with an owner, a gateway and a board with a confirmed goal."""
    with Session(engine) as session:
        organization = Organization(id=uuid4(), name="Acme", created_at=_now(), updated_at=_now())
        user = User(
            id=uuid4(),
            clerk_user_id=f"user-{uuid4()}",
            name="Ada Lovelace",
            preferred_name="Ada",
            timezone="Europe/London",
            is_super_admin=False,
        )
        session.add_all([organization, user])
        session.flush()
        session.add(
            OrganizationMember(
                id=uuid4(),
                organization_id=organization.id,
                user_id=user.id,
                role="owner",
                all_boards_read=True,
                all_boards_write=True,
                created_at=_now(),
                updated_at=_now(),
            )
        )
        gateway = _gateway(organization.id, "workshop", url, token, workspace_root)
        session.add(gateway)
        session.flush()
        board = _board(organization.id, gateway.id, "Launch", objective="Ship it.", goal_confirmed=True)
        session.add(board)
        session.flush()
        fleet = Fleet(engine, organization.id, user.id, gateway.id, board.id)
        session.commit()
    return fleet


def _gateway(organization: UUID, name: str, url: str, token: str | None, root: str) -> Gateway:
    return Gateway(
        id=uuid4(),
        organization_id=organization,
        name=name,
        url=url,
        token=token,
        workspace_root=root,
        created_at=_now(),
        updated_at=_now(),
    )


def _board(organization: UUID, gateway: UUID | None, name: str, **columns: Any) -> Board:
    values: dict[str, Any] = {"board_type": "goal", "goal_confirmed": False, **columns}
    return Board(
        id=uuid4(),
        organization_id=organization,
        gateway_id=gateway,
        name=name,
        slug=name.lower(),
        created_at=_now(),
        updated_at=_now(),
        **values,
    )
