"""Fires the schedules that are due; beat sends this task every ten seconds (worker/beat.py).

`worker.jobs.schedule_firing.fire_due` locks the due rows, enqueues a sync for each under a request_id made of
the schedule and its time, and stores the next time.
"""

from __future__ import annotations

from typing import Any

from celery import Task

from tasks.outcomes import retry_on_database_outage
from worker.app import app, services
from worker.jobs.schedule_firing import fire_due


@app.task(name="tasks.run_due_schedules", bind=True)
def run_due_schedules(self: Task[..., Any], /, *_: Any, **__: Any) -> None:
    """Enqueue the syncs that are due. Sent by beat; sending it more often, or from several beats, is safe."""
    with retry_on_database_outage(self):
        fire_due(services().engine)
