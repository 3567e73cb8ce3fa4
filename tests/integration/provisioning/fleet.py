"""An organization with its owner, a gateway, a board and agents: what a job needs to stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, Row, insert, text

from models import Agent, Board, Gateway, Organization, OrganizationMember, User

_LONG_AGO = datetime(2026, 2, 1, 12, 0)
NOWHERE = "ws://127.0.0.1:9"
TOKEN = "gateway-token-that-nobody-may-see"


@dataclass(frozen=True)
class Fleet:
    """The keys of what was seeded, the agents in the order of their names."""

    organization_id: UUID
    owner_id: UUID
    gateway_id: UUID
    board_id: UUID
    agents: tuple[UUID, ...]

    @property
    def agent_id(self) -> UUID:
        """The first agent."""
        return self.agents[0]


def seed_fleet(
    engine: Engine,
    *,
    agents: int = 1,
    url: str = NOWHERE,
    token: str | None = TOKEN,
    workspace_root: str = "~/.openclaw",
    agent: Mapping[str, Any] | None = None,
) -> Fleet:
    """Write one fleet; ``agent`` holds columns that all its agents get."""
    fleet = Fleet(uuid4(), uuid4(), uuid4(), uuid4(), tuple(uuid4() for _ in range(agents)))
    with engine.begin() as connection:
        connection.execute(insert(Organization).values(_stamped(id=fleet.organization_id, name="Acme")))
        owner = {"clerk_user_id": f"user_{fleet.owner_id.hex}", "name": "Grace Hopper", "timezone": "UTC"}
        connection.execute(insert(User).values(id=fleet.owner_id, is_super_admin=False, **owner))
        add_member(connection, fleet.organization_id, fleet.owner_id, "owner")
        connection.execute(
            insert(Gateway).values(
                _stamped(
                    id=fleet.gateway_id,
                    organization_id=fleet.organization_id,
                    name="Office",
                    url=url,
                    token=token,
                    workspace_root=workspace_root,
                )
            )
        )
        connection.execute(
            insert(Board).values(
                _stamped(
                    id=fleet.board_id,
                    organization_id=fleet.organization_id,
                    gateway_id=fleet.gateway_id,
                    name="Spring catalogue",
                    slug="spring",
                    board_type="goal",
                    objective="Sell it.",
                    goal_confirmed=True,
                )
            )
        )
        for number, key in enumerate(fleet.agents):
            add_agent(connection, fleet, key, f"Agent {number:02}", **(agent or {}))
    return fleet


def add_member(connection: Connection, organization_id: UUID, user_id: UUID, role: str) -> None:
    """Make a user a member of an organization."""
    member = {"organization_id": organization_id, "user_id": user_id, "role": role}
    rights = {"all_boards_read": True, "all_boards_write": True}
    connection.execute(insert(OrganizationMember).values(_stamped(id=uuid4(), **member, **rights)))


def add_agent(connection: Connection, fleet: Fleet, key: UUID, name: str, **columns: Any) -> None:
    """Write one more agent of the fleet's board."""
    values = {
        "id": key,
        "board_id": fleet.board_id,
        "gateway_id": fleet.gateway_id,
        "name": name,
        "status": "offline",
        "is_board_lead": False,
        **columns,
    }
    connection.execute(insert(Agent).values(_stamped(**values)))


def _stamped(**columns: Any) -> dict[str, Any]:
    return {**columns, "created_at": _LONG_AGO, "updated_at": _LONG_AGO}


def one(engine: Engine, statement: str, **parameters: Any) -> Row[Any]:
    """The one row of a query; it is committed too, so it may be an UPDATE ... RETURNING."""
    with engine.begin() as connection:
        return connection.execute(text(statement), parameters).one()


def execute(engine: Engine, statement: str, **parameters: Any) -> int:
    """Run one statement; how many rows it touched."""
    with engine.begin() as connection:
        return connection.execute(text(statement), parameters).rowcount


def job(engine: Engine, job_id: UUID) -> Row[Any]:
    """A job's row."""
    return one(engine, "SELECT * FROM provisioner.jobs WHERE id = :id", id=job_id)


def job_agent(engine: Engine, job_id: UUID) -> Row[Any]:
    """The one agent's row of a single-agent job."""
    return one(engine, "SELECT * FROM provisioner.job_agents WHERE job_id = :id", id=job_id)


def agent_row(engine: Engine, agent_id: UUID) -> Row[Any]:
    """An agent's row."""
    return one(engine, "SELECT * FROM agents WHERE id = :id", id=agent_id)


def insert_job(engine: Engine, agent_id: UUID, **columns: Any) -> UUID:
    """Enqueue a provision as a service does it: a bare row."""
    key = columns.pop("id", None) or uuid4()
    values = {"id": key, "kind": "provision_agent", "agent_id": agent_id, **columns}
    names = ", ".join(values)
    holes = ", ".join(f"CAST(:{n} AS jsonb)" if n == "options" else f":{n}" for n in values)
    execute(engine, f"INSERT INTO provisioner.jobs ({names}) VALUES ({holes})", **values)
    return UUID(str(key))
