from __future__ import annotations

from typing import Any

from celery import Task

from tasks.arguments import ids_of
from tasks.outcomes import NOTHING_TO_DO, JobFailed, retry_on_database_outage
from tasks.sync_progress import report_sync
from worker.app import app, services
from worker.log_context import log_context
from worker.sync.execution import execute_sync


@app.task(name="tasks.finish_sync", bind=True, throws=(JobFailed,))
def finish_sync(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str | None:
    """Move a sync forward: open the next agents' rows, then its main agent's row, then end it.

    Sent by the sync, when an agent's row ends, and by the dispatcher.
    """
    (job_id,) = ids_of(self, positional, arguments, "job_id")
    with retry_on_database_outage(self), log_context(job=job_id):
        ended = report_sync(job_id, execute_sync(services(), job_id))
    return None if ended else NOTHING_TO_DO  # its id is no job's: Flower would show it as started for ever
