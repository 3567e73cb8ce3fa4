"""The right to write one gateway's roster: a lease on Postgres's clock, renewed, checked before each write.

Not a session advisory lock, which poolers break and dead hosts keep (design D1).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine, text

from worker.errors import TransientError
from worker.jobs.keeper import kept_alive

LONGEST_LEASE_S = 15.0
"""A writer that died holds a gateway up for no longer than this."""


class RosterLeaseLostError(TransientError):
    """Another writer has the gateway by now: this one must not write again."""


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
""")
_ABOUT_TO_WRITE = text("""
    UPDATE provisioner.gateway_states
    SET writer_until = now() + make_interval(secs => :lease_s),
        restart_expected_at = now() + make_interval(secs => :restart_s)
    WHERE gateway_id = :gateway_id AND writer_generation = :generation AND writer_until > now()
""")
_RELEASE = text("""
    UPDATE provisioner.gateway_states
    SET writer_owner = NULL, writer_until = NULL, writer_queued_at = NULL,
        writer_not_before = now() + make_interval(secs => CAST(:again_in_s AS float)),
        rate_limited_until = CASE WHEN :rate_limited
            THEN now() + make_interval(secs => CAST(:again_in_s AS float)) ELSE rate_limited_until END
    WHERE gateway_id = :gateway_id AND writer_generation = :generation
""")


@dataclass
class RosterLease:
    """A held lease. ``again_in_s``: set it to be called again so much later, instead of waiting."""

    engine: Engine
    gateway_id: UUID
    generation: int
    lease_s: float
    again_in_s: float | None = None
    rate_limited: bool = False

    def about_to_write(self, restart_s: float) -> None:
        """Renew, and note that the gateway may restart within ``restart_s`` seconds of now; the write must
        follow at once. Raises RosterLeaseLostError, or what the database raises: then nothing may be sent."""
        self._update(_ABOUT_TO_WRITE, restart_s=restart_s)

    def renew(self) -> None:
        """Hold the gateway for another ``lease_s`` seconds. Raises RosterLeaseLostError."""
        self._update(_RENEW)

    def release(self) -> None:
        """Let another writer in, at once or after ``again_in_s``."""
        with self.engine.begin() as connection:
            connection.execute(
                _RELEASE,
                {
                    "gateway_id": self.gateway_id,
                    "generation": self.generation,
                    "again_in_s": self.again_in_s,
                    "rate_limited": self.rate_limited,
                },
            )

    def _update(self, statement: object, **values: float) -> None:
        parameters = {
            "gateway_id": self.gateway_id,
            "generation": self.generation,
            "lease_s": self.lease_s,
            **values,
        }
        with self.engine.begin() as connection:
            rows = connection.execute(statement, parameters).rowcount  # type: ignore[call-overload]
        if rows != 1:
            raise RosterLeaseLostError(
                f"Another writer has taken over the roster of gateway {self.gateway_id}."
            )


@contextmanager
def roster_lease(engine: Engine, gateway_id: UUID, lease_s: float) -> Iterator[RosterLease | None]:
    """Hold the gateway's roster, kept alive from a thread; None where it is not free or not yet due."""
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
        with kept_alive(lease.renew, lease_s, f"the roster of gateway {gateway_id}"):
            yield lease
    finally:
        lease.release()
