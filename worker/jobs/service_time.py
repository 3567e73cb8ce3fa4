"""Since when workers have served without a gap, and for how long a step has been failing.

Retry budgets count from then at the earliest: time in which the database took no writes, or all workers were
stopped, uses none of them up.
"""

from __future__ import annotations

SERVED_SINCE = """(
    SELECT greatest(min(w.started_at), max(w.last_pause_at)) FROM provisioner.workers w
    WHERE w.seen_at > now() - interval '1 minute'
)"""
"""SQL: the start of the oldest live worker or the end of the latest pause, whichever is later; null if no
worker has signed in. A worker writes ``last_pause_at`` when its pause ends, since it cannot write earlier."""

FAILING_SINCE = """CASE WHEN coalesce(:phase, phase) IS NOT DISTINCT FROM phase
            THEN coalesce(failing_since, now() - make_interval(secs => :failing_s)) END"""
"""SQL: since when the step of a row that is being parked has been failing. Null if a new step begins, or if
``:failing_s`` is null and the step was not failing before."""


def failing_s(column: str = "failing_since") -> str:
    """SQL: the seconds since a step first failed, 0 if it has not."""
    return f"""CASE WHEN {column} IS NULL THEN 0
        ELSE extract(epoch FROM now() - greatest({column}, {SERVED_SINCE})) END::float"""
