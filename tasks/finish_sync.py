from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import Task
from celery.exceptions import Ignore

from tasks.outcomes import outliving_the_database
from tasks.runs import report_run
from worker.about import about
from worker.app import app, services
from worker.provisioning.sync.parent import take_run_turn


@app.task(name="tasks.finish_sync", bind=True)
def finish_sync(self: Task[..., Any], /, job_id: str, **_: Any) -> None:
    """A sync's last steps: its gateway's main agent, and its end. Sent by the sync and by the clock."""
    with outliving_the_database(self), about(job=job_id):
        if not report_run(UUID(job_id), take_run_turn(services(), UUID(job_id))):
            raise Ignore
