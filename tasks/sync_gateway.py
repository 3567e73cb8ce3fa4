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
from worker.jobs.store.job_leases import JobClaim
from worker.sync.begin import begin
from worker.sync.execution import execute_sync

log = logging.getLogger(__name__)


@app.task(name="tasks.sync_gateway", bind=True, throws=(JobFailed,))
def sync_gateway(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Bring the agents of a gateway up to date with their templates (interfaces.md 3 has the arguments)."""
    held: JobClaim | None = None

    def start(connection: Connection, job: Queued) -> list[Message]:
        nonlocal held
        assert isinstance(job.request, SyncGateway)
        held = begin(connection, job.job_id, job.request, lease_s=services().settings.lease_s)
        if held is None:
            log.info("parked: another sync of this gateway is under way")
        return []

    def look(job_id: UUID) -> None:
        report_sync(job_id, execute_sync(services(), job_id, held))

    return run_job(self, positional, arguments, start, then=look, only_starts=True)
