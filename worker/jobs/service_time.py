"""Since when workers have served without a gap, and how long a step has been failing. Waits that have a
budget count from then at the earliest: a database that took no writes, or a fleet of workers that was
stopped, used none of it up."""

from __future__ import annotations

SERVED_SINCE = """(
    SELECT greatest(min(w.started_at), max(w.last_pause_at)) FROM provisioner.workers w
    WHERE w.seen_at > now() - interval '1 minute'
)"""
"""SQL: the latest start of the oldest worker that is there, or end of a pause; null where none has signed. A
worker writes ``last_pause_at`` when its pause ends, since it cannot earlier."""

FAILING_SINCE = """CASE WHEN coalesce(:phase, phase) IS NOT DISTINCT FROM phase
            THEN coalesce(failing_since, now() - make_interval(secs => :failing_s)) END"""
"""SQL: since when the step of a row that is parked has been failing; null where a new one begins, or where
``:failing_s`` is null and none was."""


def failing_s(column: str = "failing_since") -> str:
    """SQL: the seconds since a step failed for the first time, 0 where it has not."""
    return f"""CASE WHEN {column} IS NULL THEN 0
        ELSE extract(epoch FROM now() - greatest({column}, {SERVED_SINCE})) END::float"""
