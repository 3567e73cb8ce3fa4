from __future__ import annotations

from typing import Any

from tasks.outcomes import outlived_by_its_cause
from worker.app import app, services
from worker.jobs.schedules import run_due


@app.task(name="tasks.run_due_schedules")
def run_due_schedules(**_: Any) -> None:
    """Enqueue the syncs that are due. Sent by beat, by as many as there are, as often as they like."""
    with outlived_by_its_cause("schedules wait"):
        run_due(services().engine)
