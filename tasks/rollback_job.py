from __future__ import annotations

from typing import Any

from celery import Task
from sqlalchemy import Connection

from tasks.outcomes import JobFailed, run_job
from worker.app import app
from worker.jobs.intake import Queued
from worker.jobs.messages import Message
from worker.jobs.requests import RollbackJob
from worker.sync.rollback_job import enqueue_rollbacks


def _enqueue(connection: Connection, job: Queued) -> list[Message]:
    assert isinstance(job.request, RollbackJob)
    enqueue_rollbacks(connection, job.job_id, job.request)
    return []


@app.task(name="tasks.rollback_job", bind=True, throws=(JobFailed,))
def rollback_job(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Roll back all agents whose files a job changed (interfaces.md 3 has the arguments)."""
    return run_job(self, positional, arguments, _enqueue)
