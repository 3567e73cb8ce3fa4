from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from celery import Task
from sqlalchemy import Connection

from tasks.outcomes import JobFailed, run_job
from tasks.sync_progress import report_sync
from worker.app import app, services
from worker.jobs.intake import Queued
from worker.jobs.messages import Message
from worker.jobs.requests import SyncGateway
from worker.sync.begin import begin
from worker.sync.execution import execute_sync

log = logging.getLogger(__name__)


def _begin(connection: Connection, job: Queued) -> list[Message]:
    assert isinstance(job.request, SyncGateway)
    if not begin(connection, job.job_id, job.request):
        log.info("parked: another sync of this gateway is under way")
    return []


@app.task(name="tasks.sync_gateway", bind=True, throws=(JobFailed,))
def sync_gateway(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Bring the agents of a gateway up to date with their templates (interfaces.md 3 has the arguments)."""

    def look(job_id: UUID) -> None:
        report_sync(job_id, execute_sync(services(), job_id))

    return run_job(self, positional, arguments, _begin, then=look)
