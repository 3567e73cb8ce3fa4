"""Adds the demo's rows (a gateway, a board with a goal, a lead and four agents), and requests their jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine

from worker.jobs.requests import ProvisionAgent
from worker.jobs.store.jobs import enqueue
from worker.standalone import NewAgent, add_agent, add_board, add_gateway

BOARD = "Launch"
OBJECTIVE = "Publish the release notes of version 2 by Friday, every claim in them checked."
MEMBERS = (("Ben", "Researcher"), ("Chloe", "Writer"), ("Dev", "Fact checker"), ("Ezra", "Editor"))


@dataclass(frozen=True)
class Fleet:
    """The rows that were added; the lead is the first of ``agents``."""

    gateway_id: UUID
    board: str
    agents: Sequence[UUID]


def add_fleet(engine: Engine, url: str, token: str) -> Fleet:
    """Add all rows in one transaction."""
    with engine.begin() as connection:
        gateway = add_gateway(connection, "demo", url, token, "~/.openclaw")
        board = add_board(connection, BOARD, gateway, OBJECTIVE)
        lead = add_agent(connection, NewAgent("Ada", board, True, {"role": "Board Lead"}))
        others = [
            add_agent(connection, NewAgent(name, board, False, {"role": role})) for name, role in MEMBERS
        ]
    return Fleet(gateway, BOARD, [lead, *others])


def ask_for_all(engine: Engine, fleet: Fleet) -> list[UUID]:
    """Enqueue a job for each agent, in one transaction, and return the jobs' ids."""
    with engine.begin() as connection:
        return [
            enqueue(connection, ProvisionAgent(agent_id=agent, requested_by="demo")).job_id
            for agent in fleet.agents
        ]
