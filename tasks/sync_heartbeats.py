from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import Task
from sqlalchemy import Connection

from tasks.outcomes import JobFailed, run_job
from worker.app import app, services
from worker.jobs.executor import Outcome
from worker.jobs.intake import Queued
from worker.jobs.messages import Message
from worker.jobs.requests import SyncHeartbeats
from worker.sync.heartbeat_job import begin, execute_heartbeats


def _begin(connection: Connection, job: Queued) -> list[Message]:
    assert isinstance(job.request, SyncHeartbeats)
    return begin(connection, job.job_id, job.request, services().settings.retry_timeout_s)


def _execute(job_id: UUID) -> Outcome:
    return execute_heartbeats(services(), job_id)


@app.task(name="tasks.sync_heartbeats", bind=True, throws=(JobFailed,))
def sync_heartbeats(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Write agents' heartbeat settings into their gateway's config (interfaces.md 3 has the arguments)."""
    return run_job(self, positional, arguments, _begin, then=_execute)
