"""Shows a sync in Flower as one task that is in PROGRESS until the sync ends.

The sync's own task, tasks.sync_gateway, returns long before the sync ends. So the tasks of its agents report
progress under that task's id, and tasks.finish_sync reports the end (celery.md 3).
"""

from __future__ import annotations

import logging
from uuid import UUID

from worker.jobs.retry_policy import Snooze
from worker.jobs.store.leases import NotClaimed
from worker.jobs.store.sync_rows import Progress
from worker.sync.execution import summary
from worker.sync.result import Ending
from worker.task_events import send_task_event

log = logging.getLogger(__name__)

_STEPS = 20
"""How many progress events a long sync sends: often enough for Flower, and not too often for Redis."""


def report_sync(job_id: UUID, outcome: Ending | Snooze | NotClaimed) -> bool:
    """Tell Flower and the log how an execution of a sync's own row went; return whether the sync ended."""
    if isinstance(outcome, NotClaimed):
        log.debug("nothing to do: %s", outcome.value)
        return False
    if isinstance(outcome, Snooze):
        log.info("parked: %s", outcome.reason)
        send_task_event("task-progress", [job_id], result=outcome.reason)
        return False
    result = summary(outcome.result)
    if outcome.status in ("succeeded", "partial"):
        log.info("%s: %s", outcome.status, result)
        line = result if outcome.status == "succeeded" else f"{outcome.error} {result}"
        send_task_event("task-succeeded", [job_id], result=line, runtime=None)
    else:
        log.warning("%s: %s", outcome.status, outcome.error)
        send_task_event("task-failed", [job_id], exception=outcome.error, traceback="", result=None)
    return True


def send_progress(job_id: UUID, progress: Progress) -> None:
    """Send Flower a sync's progress under the sync's task id; a long sync sends about ``_STEPS`` events."""
    step = max(1, progress.total // _STEPS)
    if progress.done % step == 0 or progress.done >= progress.total:
        fields = {"done": progress.done, "total": progress.total}
        send_task_event("task-progress", [job_id], result=str(progress), **fields)
