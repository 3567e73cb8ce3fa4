from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from celery import Task

from tasks.outcomes import JobFailed, report
from worker.app import app, services
from worker.provisioning.turn import take_turn


@app.task(name="tasks.sync_agent", bind=True, throws=(JobFailed,))
def sync_agent(self: Task[..., Any], /, job_id: str, agent_id: str, **_: Any) -> str:
    """One agent's turn in a job of many. Sent by the job and by the clock, not by services."""
    with structlog.contextvars.bound_contextvars(job=job_id, agent=agent_id):
        return report(self, UUID(job_id), take_turn(services(), UUID(job_id), UUID(agent_id)))
