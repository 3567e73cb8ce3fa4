from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from celery import Task
from sqlalchemy import Connection

from tasks.outcomes import JobFailed, run_job
from worker.app import app, services
from worker.jobs.executor import Outcome
from worker.jobs.intake import Queued
from worker.jobs.messages import Message
from worker.jobs.requests import RollOut
from worker.jobs.retry_policy import Snooze
from worker.sync.roll_outs.execution import begin, execute_roll_out
from worker.task_events import send_task_event

log = logging.getLogger(__name__)


def _begin(connection: Connection, job: Queued) -> list[Message]:
    assert isinstance(job.request, RollOut)
    return begin(connection, job.job_id, job.request)


@app.task(name="tasks.roll_out", bind=True, throws=(JobFailed,))
def roll_out(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Roll a change out to agents of gateways ring by ring (interfaces.md 3 has the arguments)."""

    def look(job_id: UUID) -> Outcome | None:
        outcome = execute_roll_out(services(), job_id)
        if not isinstance(outcome, Snooze):
            return outcome
        log.info("parked: %s", outcome.reason)
        send_task_event("task-progress", [job_id], result=outcome.reason)
        return None

    return run_job(self, positional, arguments, _begin, then=look)
