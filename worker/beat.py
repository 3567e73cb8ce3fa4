"""Beat's schedule, which follows a monotonic clock, so that changes to the host's clock have no effect.

Postgres's clock decides whether one of our schedules is due; beat's message only asks a worker to look. A
wrong host clock could still stop beat from sending, or make its messages expire; this module prevents both.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import schedule

EVERY_S = 10.0
"""Seconds between beat's messages: often enough, as no schedule is finer than a minute."""
EXPIRES_S = 24 * 3600.0
"""Seconds until a message expires, which bounds the queue while no worker runs. The message holds the expiry
as a time on beat's clock, and workers compare it with their own clocks: if messages expired sooner, every
worker would discard those of a beat whose clock is hours behind."""
_BEGAN = datetime.now(UTC), time.monotonic()


def steady_now() -> datetime:
    """The time at which this process started plus the monotonic time elapsed since then."""
    moment, monotonic = _BEGAN
    return moment + timedelta(seconds=time.monotonic() - monotonic)


def beat_schedule(every_s: float = EVERY_S) -> dict[str, Any]:
    """The value of Celery's setting ``beat_schedule``. ``every_s``: seconds between messages."""
    return {
        "run-due-schedules": {
            "task": "tasks.run_due_schedules",
            "schedule": schedule(timedelta(seconds=every_s), nowfun=steady_now),
            "options": {"expires": EXPIRES_S, "ignore_result": True},
        }
    }
