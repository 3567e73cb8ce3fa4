from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import Task
from sqlalchemy import Connection

from tasks.outcomes import JobFailed, run_agent_job
from worker.agents.adopt_job import adopt
from worker.app import app
from worker.jobs.requests import AdoptAgent, Request
from worker.records.adoption import agent_to_become


def _agent_to_become(connection: Connection, request: Request) -> UUID:
    assert isinstance(request, AdoptAgent)
    return agent_to_become(connection, request)


@app.task(name="tasks.adopt_agent", bind=True, throws=(JobFailed,))
def adopt_agent(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Take an agent under care that is on its gateway already (interfaces.md 3 has the arguments)."""
    return run_agent_job(self, positional, arguments, adopt, _agent_to_become)
