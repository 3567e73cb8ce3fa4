"""This process's row in `provisioner.workers`, which shows that the process can write, and holds its counts.

Writing the row is also the probe that reopens the database gate (`worker.database_gate`), because only a
write shows that the database accepts writes.
"""

from __future__ import annotations

import os
import socket
import threading
import time

from sqlalchemy import Connection, Engine, text

from worker import rights
from worker.database_gate import DatabaseGate
from worker.errors import PermanentError
from worker.printable import line
from worker.schema_version import NEEDED_REVISION

REFRESH_EVERY_S = 15.0
NAME = f"{socket.gethostname()}:{os.getpid()}"


class OlderWorkersError(PermanentError):
    """Workers of an older release are running, which know nothing of what is asked for."""


def require_no_older_worker(connection: Connection, revision: str, what: str) -> None:
    """Raise OlderWorkersError if a worker whose release does not know ``revision`` has shown itself within a
    minute. ``what``: what it would not know, for the sentence."""
    older = connection.execute(_OLDER, {"revision": revision}).scalars().all()
    if older:
        named = f"{line(older[0])}" + (f" and {len(older) - 1} more" if older[1:] else "")
        raise OlderWorkersError(
            f"A worker of an older release, which knows nothing of {what}, was there within the last minute"
            f" ({named}): stop it or replace it, then try again in a minute."
        )


class MessageCounts:
    """Counts of unreadable and moved messages since this process started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.dropped = 0
        self.moved = 0

    def drop(self) -> None:
        """Count one message that could not be read."""
        with self._lock:
            self.dropped += 1

    def move(self, messages: int) -> None:
        """Count messages that were moved out of Celery's default queue."""
        with self._lock:
            self.moved += messages


message_counts = MessageCounts()


class WorkerRow:
    """Maintains the row of this process. Only the dispatcher's thread uses it."""

    def __init__(self, engine: Engine, gate: DatabaseGate, counted: MessageCounts = message_counts) -> None:
        self._engine = engine
        self._gate = gate
        self._counts = counted
        self._written_at = float("-inf")
        self._written: tuple[float, ...] = ()
        self._begun = False

    def refresh(self) -> None:
        """Write the row if a count has changed, or once every REFRESH_EVERY_S seconds.

        Every REFRESH_EVERY_S seconds the role's rights are checked as well. Raises database errors.
        """
        due = time.monotonic() - self._written_at >= REFRESH_EVERY_S
        if due or self._counted() != self._written:
            with self._engine.begin() as connection:
                if due:
                    rights.require_all(connection)
                self._write(connection)

    def probe(self) -> None:
        """Check that the role has every right that a worker needs, and write the row. Raises DatabaseNotNow,
        whose sentence names any missing rights, and other database errors."""
        with self._engine.begin() as connection:
            rights.require_all(connection)
            self._write(connection)

    def delete(self) -> None:
        """Delete the row, because this process ends. Raises database errors."""
        with self._engine.begin() as connection:
            connection.execute(_DELETE, {"name": NAME})

    def _counted(self) -> tuple[float, ...]:
        return (self._gate.pauses, self._gate.paused_s, self._counts.dropped, self._counts.moved)

    def _write(self, connection: Connection) -> None:
        counted = self._counted()
        names = ("pauses", "paused_s", "dropped", "moved")
        values = {"name": NAME, "last_pause": self._gate.last_pause, **dict(zip(names, counted, strict=True))}
        connection.execute(_UPSERT, {**values, "begins": not self._begun, "revision": NEEDED_REVISION})
        self._begun = True
        self._written, self._written_at = counted, time.monotonic()


OLDER_WORKERS = """EXISTS (
        SELECT FROM provisioner.workers
        WHERE seen_at > now() - interval '1 minute' AND coalesce(revision, '') < :revision
    )"""
"""SQL: whether a worker that needs an earlier revision of the schema than ``:revision`` has shown itself
within a minute, so that it may not know what that revision brought."""

_UPSERT = text("""
    WITH gone AS (DELETE FROM provisioner.workers WHERE seen_at < now() - interval '1 day')
    INSERT INTO provisioner.workers AS w
        (name, pauses, paused_s, last_pause, last_pause_at, messages_dropped, messages_moved, revision)
    VALUES (:name, :pauses, :paused_s, :last_pause, CASE WHEN :pauses > 0 THEN now() END, :dropped, :moved,
            :revision)
    ON CONFLICT (name) DO UPDATE
    SET seen_at = now(), pauses = excluded.pauses, paused_s = excluded.paused_s,
        last_pause = excluded.last_pause, messages_dropped = excluded.messages_dropped,
        messages_moved = excluded.messages_moved, revision = excluded.revision,
        started_at = CASE WHEN :begins THEN now() ELSE w.started_at END,
        last_pause_at = CASE WHEN excluded.pauses <> w.pauses THEN excluded.last_pause_at
                             ELSE w.last_pause_at END
""")
_OLDER = text("""
    SELECT name FROM provisioner.workers
    WHERE seen_at > now() - interval '1 minute' AND coalesce(revision, '') < :revision ORDER BY name
""")
_DELETE = text("DELETE FROM provisioner.workers WHERE name = :name")
