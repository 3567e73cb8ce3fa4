"""A sync's own row, leased for the sync's first and last steps, as an agent's row is (decisions.md D5).

In between, the ends of its agents' rows drive the sync (`worker.jobs.store.sync_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from worker.jobs.messages import Message, job_message
from worker.jobs.requests import SyncGateway
from worker.jobs.service_time import FAILING_SINCE, failing_s
from worker.jobs.states import ReasonCode
from worker.jobs.store.leases import LeaseLostError, NotClaimed
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedJson, MaskedText

SWEEP_S = 15.0
"""Seconds between two looks that a sync takes at its rows on its own."""


@dataclass(frozen=True)
class SyncClaim:
    """A worker's hold on a sync's own row. ``failing_s``: seconds since its current step first failed, 0 if
    it has not."""

    job_id: UUID
    gateway_id: UUID
    options: Mapping[str, Any]
    phase: str
    generation: int
    attempts: int
    cancel_requested: bool
    failing_s: float = 0.0

    def option(self, name: str) -> bool:
        """A boolean option of the request; absent is false."""
        return self.options.get(name) is True


_START = text("""
    UPDATE provisioner.jobs
    SET status = 'running', phase = 'look', started_at = now(), updated_at = now(), published_at = now(),
        next_attempt_at = now() + make_interval(secs => :republish_s), options = :options,
        organization_id = :organization_id, board_id = :board_id
    WHERE id = :job_id AND status = 'queued'
""").bindparams(bindparam("options", type_=JSONB))


def start_sync(
    connection: Connection, job_id: UUID, request: SyncGateway, organization_id: UUID | None
) -> bool:
    """Start a queued sync. Returns false if another sync of the gateway is running: this one then waits for
    it."""
    try:
        with connection.begin_nested():
            connection.execute(
                _START,
                {
                    "job_id": job_id,
                    "organization_id": organization_id,
                    "options": request.options(),
                    "board_id": request.board_id,
                    "republish_s": LOST_AFTER_S,
                },
            )
    except IntegrityError:  # the index that lets one sync at a time have a gateway
        wait_behind(connection, job_id)
        return False
    return True


_CLAIM = text(f"""
    UPDATE provisioner.jobs
    SET generation = generation + 1, attempts = attempts + (lease_until IS NOT NULL)::int,
        lease_until = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s), published_at = NULL, updated_at = now()
    WHERE id = :job_id AND kind = 'sync_gateway' AND status = 'running' AND published_at IS NOT NULL
      AND (lease_until IS NULL OR lease_until < now())
    RETURNING id AS job_id, gateway_id, options, phase, generation, attempts,
        cancel_requested_at IS NOT NULL AS cancel_requested, {failing_s()} AS failing_s
""")


def claim_sync(engine: Engine, job_id: UUID, *, lease_s: float) -> SyncClaim | NotClaimed:
    """Lease the sync's own row for ``lease_s`` seconds, if it was published."""
    with engine.begin() as connection:
        row = connection.execute(_CLAIM, {"job_id": job_id, "lease_s": lease_s}).one_or_none()
    return NotClaimed.NOTHING_TO_DO if row is None else SyncClaim(**row._mapping)


_HELD = "id = :job_id AND generation = :generation AND status = 'running' AND lease_until IS NOT NULL"
_RENEW = text(f"""
    UPDATE provisioner.jobs SET lease_until = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s)
    WHERE {_HELD}
""")
_PARK = text(f"""
    UPDATE provisioner.jobs
    SET lease_until = NULL, published_at = NULL, phase = coalesce(:phase, phase), updated_at = now(),
        error = :reason, wait_reason = :reason, reason_code = :code,
        failing_since = {FAILING_SINCE},
        next_attempt_at = CASE
            WHEN coalesce(:phase, phase) = 'agents' AND agents_done >= agents_total
            OR coalesce(:phase, phase) IN ('look', 'roster') AND cancel_requested_at IS NOT NULL
            THEN now() ELSE now() + make_interval(secs => :delay_s) END
    WHERE {_HELD}
""").bindparams(bindparam("reason", type_=MaskedText))


def renew_sync(connection: Connection, held: SyncClaim, *, lease_s: float) -> None:
    """Hold the row for another ``lease_s`` seconds. Raises LeaseLostError."""
    _require(connection.execute(_RENEW, {**_key(held), "lease_s": lease_s}).rowcount, held)


def park_sync(
    connection: Connection,
    held: SyncClaim,
    delay_s: float,
    phase: str | None = None,
    reason: str | None = None,
    failing_s: float | None = None,
    *,
    code: ReasonCode | None = None,
) -> None:
    """Give the lease back. The row is due in ``delay_s`` seconds, at once if there is nothing left to wait
    for, or when another transaction calls it. ``reason``: the trouble it waits out, if any, with its
    ``code``; ``failing_s``: for how many seconds its step has been failing, None if it is not. Raises
    LeaseLostError."""
    parameters = {
        **_key(held),
        "delay_s": delay_s,
        "phase": phase,
        "reason": reason,
        "code": code,
        "failing_s": failing_s,
    }
    _require(connection.execute(_PARK, parameters).rowcount, held)


_FAILING = text(f"SELECT {failing_s()} FROM provisioner.jobs WHERE id = :job_id")


def sync_failing_s(connection: Connection, held: SyncClaim) -> float:
    """Seconds since the sync's current step first failed; 0 if it has not."""
    return float(connection.execute(_FAILING, _key(held)).scalar_one_or_none() or 0)


_END = text(f"""
    UPDATE provisioner.jobs
    SET status = :status, phase = 'ended', error = :error, reason_code = :code, wait_reason = NULL,
        result = :result, warnings = :warnings,
        finished_at = now(), updated_at = now(), lease_until = NULL, next_attempt_at = NULL,
        published_at = NULL
    WHERE {_HELD}
""").bindparams(
    bindparam("error", type_=MaskedText),
    bindparam("result", type_=MaskedJson),
    bindparam("warnings", type_=MaskedJson),
)


def end_sync(
    connection: Connection,
    held: SyncClaim,
    status: str,
    error: str | None,
    result: Mapping[str, Any],
    warnings: Sequence[str],
    code: ReasonCode | None = None,
) -> list[Message]:
    """End the sync, and mark the one that waits for it. ``code``: what ``error`` says, for programs. Raises
    LeaseLostError."""
    ending = {
        "status": status,
        "error": error,
        "code": code,
        "result": dict(result),
        "warnings": list(warnings),
    }
    _require(connection.execute(_END, {**_key(held), **ending}).rowcount, held)
    return mark_next_sync(connection, held.gateway_id)


_NEXT_SYNC = text("""
    UPDATE provisioner.jobs
    SET published_at = now(), next_attempt_at = now() + make_interval(secs => :republish_s)
    WHERE id = (
        SELECT id FROM provisioner.jobs
        WHERE gateway_id = :gateway_id AND kind = 'sync_gateway' AND status = 'queued'
          AND published_at IS NULL AND phase = 'waiting'
        ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, kind, phase, status, agent_id, board_id, gateway_id
""")
_WAIT_BEHIND = text("""
    UPDATE provisioner.jobs
    SET published_at = NULL, phase = 'waiting', updated_at = now(),
        next_attempt_at = now() + make_interval(secs => :sweep_s)
    WHERE id = :job_id AND status = 'queued'
""")


def mark_next_sync(connection: Connection, gateway_id: UUID) -> list[Message]:
    """Mark the oldest sync that waits for another one of the gateway."""
    rows = connection.execute(_NEXT_SYNC, {"gateway_id": gateway_id, "republish_s": LOST_AFTER_S})
    return [job_message(row) for row in rows]


def wait_behind(connection: Connection, job_id: UUID) -> None:
    """Have a queued sync wait for the running one; it also tries again every SWEEP_S seconds."""
    connection.execute(_WAIT_BEHIND, {"job_id": job_id, "sweep_s": SWEEP_S})


def _key(held: SyncClaim) -> dict[str, Any]:
    return {"job_id": held.job_id, "generation": held.generation}


def _require(rows: int, held: SyncClaim) -> None:
    if rows != 1:
        raise LeaseLostError(f"Another worker has taken over job {held.job_id}.")
