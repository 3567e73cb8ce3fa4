"""SQL for how long a step has been failing, counting only time in which workers could work.

A step's retry budget begins when it first failed, or when the present stretch of uninterrupted service began
if that was later. Time in which the database accepted no writes, or no worker ran, uses up none of it.
"""

from __future__ import annotations

SERVED_SINCE = """(
    SELECT greatest(min(w.started_at), max(w.last_pause_at)) FROM provisioner.workers w
    WHERE w.seen_at > now() - interval '1 minute'
)"""
"""SQL: the start of the oldest live worker or the end of the latest pause, whichever is later; null if no
worker wrote its row within the last minute. A worker writes ``last_pause_at`` when its pause ends, since it
cannot write earlier."""

FAILING_SINCE = """CASE WHEN coalesce(:phase, phase) IS NOT DISTINCT FROM phase
            THEN coalesce(failing_since, now() - make_interval(secs => :failing_s)) END"""
"""SQL: the time at which the step of the row that is being parked began to fail. Null if a new step begins,
or if ``:failing_s`` is null and the step was not failing before."""


def failing_s(column: str = "failing_since") -> str:
    """SQL: for how many seconds a step has been failing, 0 if it is not. ``column``: when it first failed."""
    return f"""CASE WHEN {column} IS NULL THEN 0
        ELSE extract(epoch FROM now() - greatest({column}, {SERVED_SINCE})) END::float"""
