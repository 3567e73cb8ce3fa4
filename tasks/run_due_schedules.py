"""Fires the schedules that are due, and deletes what is old once an hour; beat sends this task every ten
seconds (worker/beat.py).

`worker.jobs.schedule_firing.fire_due` locks the due rows, enqueues a sync for each under a request_id made of
the schedule and its time, and stores the next time. `worker.records.upkeep` deletes.
"""

from __future__ import annotations

from typing import Any

from celery import Task

from tasks.outcomes import retry_on_database_outage
from worker.app import app, services
from worker.jobs.schedule_firing import fire_due
from worker.records.upkeep import remove_if_due


@app.task(name="tasks.run_due_schedules", bind=True)
def run_due_schedules(self: Task[..., Any], /, *_: Any, **__: Any) -> None:
    """Enqueue the syncs that are due, and delete what is old. Sent by beat; sending it more often, or from
    several beats, is safe."""
    with retry_on_database_outage(self):
        fire_due(services().engine)
        age = services().settings.prune_age
        if age is not None:
            remove_if_due(services().engine, age)
