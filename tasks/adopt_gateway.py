from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import Task
from sqlalchemy import Connection

from tasks.arguments import uuid_or_none
from tasks.outcomes import JobFailed, run_job
from worker.app import app, services
from worker.jobs.executor import Outcome
from worker.jobs.intake import Queued
from worker.jobs.messages import Message
from worker.jobs.requests import AdoptGateway
from worker.sync.adopt_gateway import begin, execute_adoption


def _begin(connection: Connection, job: Queued) -> list[Message]:
    assert isinstance(job.request, AdoptGateway)
    begin(connection, job.job_id, job.request)
    return []


@app.task(name="tasks.adopt_gateway", bind=True, throws=(JobFailed,))
def adopt_gateway(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Take all agents of a gateway under care that nobody cares for (interfaces.md 3 has the arguments)."""

    def look(job_id: UUID) -> Outcome:
        return execute_adoption(services(), job_id, uuid_or_none(arguments.get("gateway_id")))

    return run_job(self, positional, arguments, _begin, then=look)
