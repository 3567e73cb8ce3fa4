"""This process's row in `provisioner.workers`: that it can write, and what it counted.

Writing it is the probe that opens the gate again: nothing else shows that the database takes writes.
"""

from __future__ import annotations

import os
import socket
import threading
import time

from sqlalchemy import Connection, Engine, text

from worker import rights
from worker.gate import Gate

SIGN_EVERY_S = 15.0
NAME = f"{socket.gethostname()}:{os.getpid()}"


class Tally:
    """Counts of this process since its start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.dropped = 0
        self.moved = 0

    def drop(self) -> None:
        """One message could not be read."""
        with self._lock:
            self.dropped += 1

    def move(self, messages: int) -> None:
        """So many messages were moved out of Celery's default queue."""
        with self._lock:
            self.moved += messages


tally = Tally()


class Presence:
    """Keeps the row of this process. Used by the clock's thread alone."""

    def __init__(self, engine: Engine, gate: Gate, counted: Tally = tally) -> None:
        self._engine = engine
        self._gate = gate
        self._tally = counted
        self._signed_at = float("-inf")
        self._signed: tuple[float, ...] = ()
        self._begun = False

    def sign(self) -> None:
        """Write the row where it is due: every SIGN_EVERY_S seconds, with a look at the rights, and soon
        after something was counted. Raises what the database raises."""
        due = time.monotonic() - self._signed_at >= SIGN_EVERY_S
        if due or self._counted() != self._signed:
            with self._engine.begin() as connection:
                if due:
                    rights.require_all(connection)
                self._write(connection)

    def probe(self) -> None:
        """Write the row, if the role may do all that a worker does. Raises DatabaseNotNow, whose sentence
        names what is missing."""
        with self._engine.begin() as connection:
            rights.require_all(connection)
            self._write(connection)

    def leave(self) -> None:
        """Forget the row: this process ends. Raises what the database raises."""
        with self._engine.begin() as connection:
            connection.execute(_LEAVE, {"name": NAME})

    def _counted(self) -> tuple[float, ...]:
        return (self._gate.pauses, self._gate.paused_s, self._tally.dropped, self._tally.moved)

    def _write(self, connection: Connection) -> None:
        counted = self._counted()
        names = ("pauses", "paused_s", "dropped", "moved")
        values = {"name": NAME, "last_pause": self._gate.last_pause, **dict(zip(names, counted, strict=True))}
        connection.execute(_SIGN, {**values, "begins": not self._begun})
        self._begun = True
        self._signed, self._signed_at = counted, time.monotonic()


_SIGN = text("""
    WITH gone AS (DELETE FROM provisioner.workers WHERE seen_at < now() - interval '1 day')
    INSERT INTO provisioner.workers AS w
        (name, pauses, paused_s, last_pause, last_pause_at, messages_dropped, messages_moved)
    VALUES (:name, :pauses, :paused_s, :last_pause, CASE WHEN :pauses > 0 THEN now() END, :dropped, :moved)
    ON CONFLICT (name) DO UPDATE
    SET seen_at = now(), pauses = excluded.pauses, paused_s = excluded.paused_s,
        last_pause = excluded.last_pause, messages_dropped = excluded.messages_dropped,
        messages_moved = excluded.messages_moved,
        started_at = CASE WHEN :begins THEN now() ELSE w.started_at END,
        last_pause_at = CASE WHEN excluded.pauses <> w.pauses THEN excluded.last_pause_at
                             ELSE w.last_pause_at END
""")
_LEAVE = text("DELETE FROM provisioner.workers WHERE name = :name")
