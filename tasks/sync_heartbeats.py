from __future__ import annotations

from typing import Any

from celery import Task
from sqlalchemy import Connection

from tasks.outcomes import JobFailed, run_short_job
from worker.app import app
from worker.jobs.intake import Queued
from worker.jobs.requests import SyncHeartbeats
from worker.provisioning.heartbeats import begin


def _begin(connection: Connection, job: Queued) -> None:
    assert isinstance(job.request, SyncHeartbeats)
    begin(connection, job.job_id, job.request)


@app.task(name="tasks.sync_heartbeats", bind=True, throws=(JobFailed,))
def sync_heartbeats(self: Task[..., Any], *positional: Any, **arguments: Any) -> str:
    """Bring the heartbeat settings of a gateway's agents to its config (contract.md has the arguments)."""
    return run_short_job(self, positional, arguments, _begin)
