from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import Task
from sqlalchemy import Connection

from tasks.outcomes import JobFailed, run_job
from worker.app import app, services
from worker.jobs.intake import Queued
from worker.jobs.messages import Message
from worker.jobs.requests import SyncHeartbeats
from worker.provisioning.heartbeats import begin, go_on


def _begin(connection: Connection, job: Queued) -> list[Message]:
    assert isinstance(job.request, SyncHeartbeats)
    return begin(connection, job.job_id, job.request, services().settings.retry_budget_s)


def _go_on(connection: Connection, job_id: UUID) -> None:
    go_on(connection, job_id, services().settings.retry_budget_s)


@app.task(name="tasks.sync_heartbeats", bind=True, throws=(JobFailed,))
def sync_heartbeats(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Bring heartbeat settings to the config of their gateway (docs/enqueue.md has the arguments)."""
    return run_job(self, positional, arguments, _begin, go_on=_go_on)
