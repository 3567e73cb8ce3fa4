from __future__ import annotations

from typing import Any

from celery import Task

from tasks.arguments import ids_of
from tasks.outcomes import NOTHING_TO_DO, JobFailed, outliving_the_database
from tasks.runs import report_run
from worker.app import app, services
from worker.log_context import about
from worker.sync.parent import take_run_turn


@app.task(name="tasks.finish_sync", bind=True, throws=(JobFailed,))
def finish_sync(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str | None:
    """Execute a sync's own row after its agents: the main agent, then the end. Sent by the sync and by the
    dispatcher."""
    (job_id,) = ids_of(self, positional, arguments, "job_id")
    with outliving_the_database(self), about(job=job_id):
        ended = report_run(job_id, take_run_turn(services(), job_id))
    return None if ended else NOTHING_TO_DO  # its id is no job's: Flower would show it as started for ever
