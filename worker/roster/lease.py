"""The lease that lets one roster writer at a time write a gateway's config; it runs on Postgres's clock.

The writer renews it before each write, and a thread renews it meanwhile. A session advisory lock would not
do: connection poolers break such locks, and dead hosts keep them (decisions.md D1).
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, TextClause, text

from worker.errors import TransientError
from worker.jobs.lease_renewal import lease_renewed
from worker.jobs.store.wake_batches import make_wakes_due, wakes_in_flight

LONGEST_LEASE_S = 15.0
"""Upper limit on the lease: a writer that died blocks its gateway for no longer than this."""


class RosterLeaseLostError(TransientError):
    """Another writer has taken over the gateway: this one must not write again."""


_ACQUIRE = text("""
    INSERT INTO provisioner.gateway_states AS s (gateway_id, writer_owner, writer_generation, writer_until)
    VALUES (:gateway_id, :owner, 1, now() + make_interval(secs => :lease_s))
    ON CONFLICT (gateway_id) DO UPDATE
    SET writer_owner = excluded.writer_owner, writer_generation = s.writer_generation + 1,
        writer_until = excluded.writer_until, writer_queued_at = NULL, writer_not_before = NULL
    WHERE (s.writer_until IS NULL OR s.writer_until < now())
      AND coalesce(s.rate_limited_until, '-infinity') <= now()
      AND coalesce(s.writer_not_before, '-infinity') <= now()
    RETURNING writer_generation
""")
_RENEW = text("""
    UPDATE provisioner.gateway_states SET writer_until = now() + make_interval(secs => :lease_s)
    WHERE gateway_id = :gateway_id AND writer_generation = :generation AND writer_until > now()
    RETURNING writer_generation
""")
_ABOUT_TO_WRITE = text("""
    WITH before AS (
        SELECT gateway_id, restart_expected_at FROM provisioner.gateway_states
        WHERE gateway_id = :gateway_id FOR UPDATE
    )
    UPDATE provisioner.gateway_states s
    SET writer_until = now() + make_interval(secs => :lease_s),
        restart_expected_at =
            greatest(s.restart_expected_at, now() + make_interval(secs => :restart_s))
    FROM before
    WHERE s.gateway_id = before.gateway_id AND s.writer_generation = :generation AND s.writer_until > now()
    RETURNING before.restart_expected_at
""")
_RESTART_EXPECTED = text("""
    UPDATE provisioner.gateway_states
    SET writer_until = now() + make_interval(secs => :lease_s), restart_expected_at = :expected_at
    WHERE gateway_id = :gateway_id AND writer_generation = :generation AND writer_until > now()
    RETURNING coalesce(restart_expected_at <= now(), true)
""")
_RELEASE = text("""
    UPDATE provisioner.gateway_states
    SET writer_owner = NULL, writer_until = NULL, writer_queued_at = NULL,
        writer_not_before = now() + make_interval(secs => CAST(:again_in_s AS float)),
        rate_limited_until = CASE WHEN :rate_limited
            THEN now() + make_interval(secs => CAST(:again_in_s AS float)) ELSE rate_limited_until END,
        last_error = coalesce(:trouble, last_error)
    WHERE gateway_id = :gateway_id AND writer_generation = :generation
""")


@dataclass
class RosterLease:
    """A held lease on a gateway's roster.

    The writer sets ``again_in_s`` to be called again after that many seconds, ``rate_limited`` if it must
    wait because the gateway limits our rate, and ``trouble`` to the reason, which becomes the gateway's last
    error. ``expected_before``: the restart that was expected before `about_to_write` was last called.
    """

    engine: Engine
    gateway_id: UUID
    generation: int
    lease_s: float
    again_in_s: float | None = None
    rate_limited: bool = False
    trouble: str | None = None
    expected_before: datetime | None = None

    def about_to_write(self, restart_s: float) -> float:
        """Renew the lease and record that the gateway may restart within ``restart_s`` seconds from now.

        Returns the time, on the monotonic clock, by which the write must have been sent. Later the lease may
        have run out and be another writer's, if this thread slept or the database was unreachable. Raises
        RosterLeaseLostError or a database error; in either case nothing may be sent.
        """
        asked_at = time.monotonic()
        self.expected_before = self._update(_ABOUT_TO_WRITE, restart_s=restart_s)
        return asked_at + self.lease_s

    def restart_over(self) -> None:
        """Record that no restart of the gateway is expected. Raises RosterLeaseLostError."""
        self._restart_expected(None)

    def not_written(self) -> None:
        """Undo what `about_to_write` recorded, because the write was refused or not sent and so causes no
        restart. Raises RosterLeaseLostError."""
        self._restart_expected(self.expected_before)

    def _restart_expected(self, at: datetime | None) -> None:
        """Record when a restart is expected, or None for no restart.

        If no restart is still to come, the wakes that were held back because of it are due now.
        """
        if self._update(_RESTART_EXPECTED, expected_at=at):
            with self.engine.begin() as connection:
                make_wakes_due(connection, self.gateway_id)

    def wakes_in_flight(self) -> bool:
        """Whether a worker is still at work on a wake message that it has sent to the gateway."""
        with self.engine.connect() as connection:
            return wakes_in_flight(connection, self.gateway_id)

    def renew(self) -> float:
        """Renew the lease for ``lease_s`` seconds. Returns when it ends, on the monotonic clock. Raises
        RosterLeaseLostError."""
        asked_at = time.monotonic()
        self._update(_RENEW)
        return asked_at + self.lease_s

    def hold(self, connection: Connection) -> None:
        """Renew the lease in ``connection``'s transaction, so that no other writer can take it before the
        commit. Raises RosterLeaseLostError."""
        self._require(connection, _RENEW)

    def release(self) -> None:
        """Release the lease; another writer may take it at once, or after ``again_in_s`` seconds if set."""
        with self.engine.begin() as connection:
            connection.execute(
                _RELEASE,
                {
                    "gateway_id": self.gateway_id,
                    "generation": self.generation,
                    "again_in_s": self.again_in_s,
                    "rate_limited": self.rate_limited,
                    "trouble": self.trouble,
                },
            )

    def _update(self, statement: TextClause, **values: object) -> Any:
        with self.engine.begin() as connection:
            return self._require(connection, statement, **values)

    def _require(self, connection: Connection, statement: TextClause, **values: object) -> Any:
        """Execute the statement on the gateway's row and return the first column that it returns. Raises
        RosterLeaseLostError if it returns no row, because the lease is another writer's."""
        parameters = {
            "gateway_id": self.gateway_id,
            "generation": self.generation,
            "lease_s": self.lease_s,
            **values,
        }
        row = connection.execute(statement, parameters).one_or_none()
        if row is None:
            raise RosterLeaseLostError(
                f"Another writer has taken over the roster of gateway {self.gateway_id}."
            )
        return row[0]


@contextmanager
def roster_lease(engine: Engine, gateway_id: UUID, lease_s: float) -> Iterator[RosterLease | None]:
    """Hold the lease on the gateway's roster during the block, while a thread renews it. Yields None if
    another writer holds it, or if the gateway's row says that writing must wait."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
    with engine.begin() as connection:
        generation = connection.execute(
            _ACQUIRE, {"gateway_id": gateway_id, "owner": owner, "lease_s": lease_s}
        ).scalar_one_or_none()
    if generation is None:
        yield None
        return
    lease = RosterLease(engine, gateway_id, generation, lease_s)
    try:
        with lease_renewed(lease.renew, lease_s, f"the roster of gateway {gateway_id}"):
            yield lease
    finally:
        lease.release()
