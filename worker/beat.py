"""What beat sends, and when: by a clock that nobody can set.

Whether a schedule is due is for Postgres's clock to say; beat only has it looked at. So all that a host's
clock could do is to keep beat from sending, or to make stale what it sends, and neither may be.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import schedule

EVERY_S = 10.0
"""How often beat has schedules looked at: none is finer than a minute."""
EXPIRES_S = 24 * 3600.0
"""Bounds what piles up where no worker runs. The message holds it as a time by beat's clock, which workers
hold against theirs: with less, a beat whose clock is hours behind would be heard by nobody."""
_BEGAN = datetime.now(UTC), time.monotonic()


def steady_now() -> datetime:
    """The time as it was at the start, and what has passed since, whatever became of the host's clock."""
    moment, monotonic = _BEGAN
    return moment + timedelta(seconds=time.monotonic() - monotonic)


def beat_schedule(every_s: float = EVERY_S) -> dict[str, Any]:
    """Celery's setting of that name."""
    return {
        "run-due-schedules": {
            "task": "tasks.run_due_schedules",
            "schedule": schedule(timedelta(seconds=every_s), nowfun=steady_now),
            "options": {"expires": EXPIRES_S, "ignore_result": True},
        }
    }
