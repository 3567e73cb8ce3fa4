"""An organization with its owner, a gateway, a board and agents: what a job needs to stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, Row, text

from tests.fleet import Fleet as Base
from tests.fleet import make_fleet

NOWHERE = "ws://127.0.0.1:9"
TOKEN = "gateway-token-that-nobody-may-see"


@dataclass(frozen=True)
class Fleet(Base):
    """A fleet with its agents, in the order of their names."""

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
    base = make_fleet(engine, url=url, token=token, workspace_root=workspace_root)
    keys = tuple(base.add_agent(f"Agent {n:02}", **(agent or {})) for n in range(agents))
    return Fleet(engine, base.organization_id, base.user_id, base.gateway_id, base.board_id, keys)


def one(engine: Engine, statement: str, **parameters: Any) -> Row[Any]:
    """The one row of a query; it is committed too, so it may be an UPDATE ... RETURNING."""
    with engine.begin() as connection:
        return connection.execute(text(statement), parameters).one()


def execute(engine: Engine, statement: str, **parameters: Any) -> int:
    """Run one statement; how many rows it touched."""
    with engine.begin() as connection:
        return connection.execute(text(statement), parameters).rowcount


def besides_first_block(warnings: list[str]) -> list[str]:
    """Warnings but the one that goes with a gateway's first heartbeat block, which one job of all carries."""
    return [warning for warning in warnings if "first heartbeat block" not in warning]


def main_with_block(release: str) -> dict[str, Any]:
    """The config of an owner whose default agent has a heartbeat block, so that ours silences nobody."""
    if release < "2026.8":
        return {"agents": {"list": [{"id": "main", "heartbeat": {}}]}}
    return {"agents": {"ownership": "explicit", "entries": {"main": {"heartbeat": {}}}}}


def job(engine: Engine, job_id: UUID) -> Row[Any]:
    """A job's row."""
    return one(engine, "SELECT * FROM provisioner.jobs WHERE id = :id", id=job_id)


def job_agent(engine: Engine, job_id: UUID) -> Row[Any]:
    """The one agent's row of a single-agent job."""
    return one(engine, "SELECT * FROM provisioner.job_agents WHERE job_id = :id", id=job_id)


def agent_row(engine: Engine, agent_id: UUID) -> Row[Any]:
    """An agent's row."""
    return one(engine, "SELECT * FROM agents WHERE id = :id", id=agent_id)


def insert_job(engine: Engine, agent_id: UUID | None, **columns: Any) -> UUID:
    """Enqueue a job, by default a provision, as a service does it: a bare row."""
    key = columns.pop("id", None) or uuid4()
    values = {"id": key, "kind": "provision_agent", "agent_id": agent_id, **columns}
    names = ", ".join(values)
    holes = ", ".join(f"CAST(:{n} AS jsonb)" if n == "options" else f":{n}" for n in values)
    execute(engine, f"INSERT INTO provisioner.jobs ({names}) VALUES ({holes})", **values)
    return UUID(str(key))
