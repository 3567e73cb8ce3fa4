"""Starts and ends syncs, one at a time per gateway: further ones wait behind the running one.

In between, each agent's row that ends moves the sync on (`worker.jobs.store.sync_rows`), and the sync's own
row is leased for its first and last steps (`worker.jobs.store.job_leases`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from worker.jobs.messages import Message, job_message
from worker.jobs.requests import SyncGateway
from worker.jobs.states import ReasonCode
from worker.jobs.store.job_leases import HELD, JobClaim, key_of, require_held
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedJson, MaskedText

SWEEP_S = 15.0
"""Seconds after which a running sync checks its rows, in case the end of one was missed, and after which a
waiting sync tries to start."""


_START = text("""
    UPDATE provisioner.jobs
    SET status = 'running', phase = 'look', started_at = now(), updated_at = now(), published_at = now(),
        next_attempt_at = now() + make_interval(secs => :republish_s), options = :options,
        organization_id = :organization_id, board_id = :board_id,
        error = NULL, wait_reason = NULL, reason_code = NULL
    WHERE id = :job_id AND status = 'queued'
""").bindparams(bindparam("options", type_=JSONB))


def start_sync(
    connection: Connection, job_id: UUID, request: SyncGateway, organization_id: UUID | None
) -> bool:
    """Start a queued sync. If another sync of the gateway is running, have it wait for that and return
    false."""
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


_END = text(f"""
    UPDATE provisioner.jobs
    SET status = :status, phase = 'ended', error = :error, reason_code = :code, wait_reason = NULL,
        result = :result, warnings = :warnings,
        finished_at = now(), updated_at = now(), lease_until = NULL, next_attempt_at = NULL,
        published_at = NULL
    WHERE {HELD}
""").bindparams(
    bindparam("error", type_=MaskedText),
    bindparam("result", type_=MaskedJson),
    bindparam("warnings", type_=MaskedJson),
)


def end_sync(
    connection: Connection,
    held: JobClaim,
    status: str,
    error: str | None,
    result: Mapping[str, Any],
    warnings: Sequence[str],
    code: ReasonCode | None = None,
) -> list[Message]:
    """End the sync, and mark the next sync of the gateway as published. ``code``: ``error`` for programs.
    Raises LeaseLostError."""
    ending = {
        "status": status,
        "error": error,
        "code": code,
        "result": dict(result),
        "warnings": list(warnings),
    }
    require_held(connection.execute(_END, {**key_of(held), **ending}).rowcount, held)
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
    """Mark the oldest sync of the gateway that waits behind another one as published."""
    rows = connection.execute(_NEXT_SYNC, {"gateway_id": gateway_id, "republish_s": LOST_AFTER_S})
    return [job_message(row) for row in rows]


def wait_behind(connection: Connection, job_id: UUID) -> None:
    """Have a queued sync wait until the running one ends; it also tries to start every SWEEP_S seconds."""
    connection.execute(_WAIT_BEHIND, {"job_id": job_id, "sweep_s": SWEEP_S})


_SET_BACK = text(f"""
    UPDATE provisioner.jobs
    SET status = 'queued', phase = NULL, lease_until = NULL, published_at = NULL, started_at = NULL,
        updated_at = now(), agents_total = 0, agents_done = 0, compared_to = NULL, failing_since = NULL,
        error = :reason, wait_reason = :reason, reason_code = :code,
        next_attempt_at = now() + make_interval(secs => CASE WHEN cancel_requested_at IS NULL
            THEN :delay_s ELSE 0 END)
    WHERE {HELD}
""").bindparams(bindparam("reason", type_=MaskedText))


def set_back_sync(
    connection: Connection, held: JobClaim, delay_s: float, reason: str, code: ReasonCode
) -> list[Message]:
    """Queue a sync again that has touched nothing, and mark the gateway's next one as published. Its agents'
    rows are made anew when it starts, in ``delay_s`` seconds. Raises LeaseLostError.

    ``reason``: what it waits for, with ``code`` for programs.
    """
    wait = {"delay_s": delay_s, "reason": reason, "code": code}
    require_held(connection.execute(_SET_BACK, {**key_of(held), **wait}).rowcount, held)
    return mark_next_sync(connection, held.gateway_id)
