from __future__ import annotations

from typing import Any

from celery import Task
from sqlalchemy import Connection

from tasks.outcomes import JobFailed, run_job
from worker.app import app
from worker.jobs.intake import Queued
from worker.jobs.messages import Message
from worker.jobs.requests import EnsureBoardLead, ProvisionAgent
from worker.jobs.store.jobs import (
    Enqueued,
    enqueue,
    finish_queued,
    open_job_of,
)
from worker.records.agent_rows import ensure_board_lead as ensure


def _ensure(connection: Connection, job: Queued) -> list[Message]:
    assert isinstance(job.request, EnsureBoardLead)
    agent_id, created = ensure(connection, job.request)
    asked = job.request
    provision = ProvisionAgent(agent_id=agent_id, user_id=asked.user_id, webhook=asked.webhook, now=asked.now)
    under_way = open_job_of(connection, agent_id, provision.kind)
    enqueued = under_way or enqueue(connection, provision, parent=job.job_id)
    assert isinstance(enqueued, Enqueued)
    result = {
        "agent_id": str(agent_id),
        "created": created,
        "provision_job_id": str(enqueued.job_id),
    }
    finish_queued(connection, job.job_id, result)
    return []


@app.task(name="tasks.ensure_board_lead", bind=True, throws=(JobFailed,))
def ensure_board_lead(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Create or repair a board's lead and enqueue its provisioning (interfaces.md 3 has the arguments)."""
    return run_job(self, positional, arguments, _ensure)
