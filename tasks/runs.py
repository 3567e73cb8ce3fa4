"""How a sync looks to Celery and to Flower: one task that is in PROGRESS until its last agent is done.

The task of the request ends long before its job does, so it reports nothing itself: its agents' tasks say in
its name how far it is, and the finisher how it ended (celery.md 3).
"""

from __future__ import annotations

import logging
from uuid import UUID

from worker.app import tell
from worker.jobs.retry_policy import Snooze
from worker.jobs.store.leases import NotClaimed
from worker.jobs.store.sync_rows import Progress
from worker.sync.parent import shown
from worker.sync.result import Ending

log = logging.getLogger(__name__)

_STEPS = 20
"""Of a long run so many steps are told, so that Flower hears of it often enough and Redis not too often."""


def report_run(job_id: UUID, outcome: Ending | Snooze | NotClaimed) -> bool:
    """Tell Flower, and the log, how a turn of the run's own went; whether it has ended."""
    if isinstance(outcome, NotClaimed):
        log.debug("nothing to do: %s", outcome.value)
        return False
    if isinstance(outcome, Snooze):
        log.info("parked: %s", outcome.reason)
        tell("task-progress", [job_id], result=outcome.reason)
        return False
    result = shown(outcome.result)
    if outcome.status in ("succeeded", "partial"):
        log.info("%s: %s", outcome.status, result)
        said = result if outcome.status == "succeeded" else f"{outcome.error} {result}"
        tell("task-succeeded", [job_id], result=said, runtime=None)
    else:
        log.warning("%s: %s", outcome.status, outcome.error)
        tell("task-failed", [job_id], exception=outcome.error, traceback="", result=None)
    return True


def tell_progress(job_id: UUID, progress: Progress) -> None:
    """Say in the sync's name how far it is."""
    step = max(1, progress.total // _STEPS)
    if progress.done % step == 0 or progress.done >= progress.total:
        fields = {"done": progress.done, "total": progress.total}
        tell("task-progress", [job_id], result=str(progress), **fields)
