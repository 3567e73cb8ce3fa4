"""Since when workers have served without a gap. Waits that have a budget count from then at the earliest: a
database that took no writes, or a fleet of workers that was stopped, used none of it up."""

from __future__ import annotations

SERVED_SINCE = """(
    SELECT greatest(min(w.started_at), max(w.last_pause_at)) FROM provisioner.workers w
    WHERE w.seen_at > now() - interval '1 minute'
)"""
"""SQL: the latest start of the oldest worker that is there, or end of a pause; null where none has signed. A
worker writes ``last_pause_at`` when its pause ends, since it cannot earlier."""
