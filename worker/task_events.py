"""Sends Flower events about tasks, in addition to Celery's own (celery.md 3).

`tasks.outcomes`, `tasks.sync_progress` and `worker.app` decide what the events say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from worker.app import app
from worker.jobs.outbox import PUBLISH_ERRORS
from worker.masking import mask_all

log = logging.getLogger(__name__)


def send_task_event(event: str, task_ids: Iterable[object], **fields: Any) -> None:
    """Send Flower an event for each of the tasks with these ids.

    Events are lost while the broker is unreachable; the jobs' rows hold the same information.
    """
    task = app.current_worker_task
    hostname = task.request.hostname if task is not None else None
    shown = mask_all(fields)
    try:
        with app.events.default_dispatcher(hostname=hostname) as dispatcher:
            for task_id in task_ids:
                dispatcher.send(event, uuid=str(task_id), **shown)
    except PUBLISH_ERRORS as error:
        log.debug("nobody was told of %s: %s", event, type(error).__name__)
