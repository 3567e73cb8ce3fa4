from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from celery import Task
from sqlalchemy import Connection

from tasks.outcomes import JobFailed, run_agent_job
from worker.agents.agent_job import PROVISION_MAIN, reconcile
from worker.app import app
from worker.jobs.requests import Request
from worker.records.agent_rows import ensure_main_agent


def _main_agent(connection: Connection, request: Request) -> UUID:
    return ensure_main_agent(connection, request.target_id)


@app.task(name="tasks.provision_gateway_main", bind=True, throws=(JobFailed,))
def provision_gateway_main(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Create or repair a gateway's main agent and provision it (interfaces.md 3 has the arguments)."""
    return run_agent_job(self, positional, arguments, partial(reconcile, profile=PROVISION_MAIN), _main_agent)
