"""Leases a job's own row, for jobs that are not about one agent; agents' rows are leased likewise
(decisions.md D5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, bindparam, text

from worker.jobs.messages import Message, finisher_message
from worker.jobs.service_time import FAILING_SINCE, failing_s
from worker.jobs.states import ReasonCode
from worker.jobs.store.leases import LeaseLostError, NotClaimed, count_crash
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedText


@dataclass(frozen=True)
class JobClaim:
    """A worker's hold on a job's own row. ``crashes``: how many workers died while they held it;
    ``failing_s``: for how many seconds its current step has been failing, 0 if it is not."""

    job_id: UUID
    gateway_id: UUID
    options: Mapping[str, Any]
    phase: str
    generation: int
    crashes: int
    cancel_requested: bool
    failing_s: float = 0.0
    requested_by: str | None = None

    def option(self, name: str) -> bool:
        """A boolean option of the request; absent is false."""
        return self.options.get(name) is True


CLAIMED = f"""id AS job_id, gateway_id, options, phase, generation, crashes, requested_by,
        cancel_requested_at IS NOT NULL AS cancel_requested, {failing_s()} AS failing_s"""
"""SQL: what a statement that leases a job's own row returns, for `JobClaim`."""
_CLAIM = text(f"""
    UPDATE provisioner.jobs
    SET generation = generation + 1, {count_crash()},
        lease_until = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s), published_at = NULL, updated_at = now()
    WHERE id = :job_id AND kind = :kind AND status = 'running' AND published_at IS NOT NULL
      AND (lease_until IS NULL OR lease_until < now())
    RETURNING {CLAIMED}
""")


def claim_job(engine: Engine, job_id: UUID, kind: str, *, lease_s: float) -> JobClaim | NotClaimed:
    """Lease the job's own row for ``lease_s`` seconds, if the job is running and of that kind, and the row is
    published and not leased."""
    parameters = {"job_id": job_id, "kind": kind, "lease_s": lease_s}
    with engine.begin() as connection:
        row = connection.execute(_CLAIM, parameters).one_or_none()
    return NotClaimed.NOTHING_TO_DO if row is None else JobClaim(**row._mapping)


HELD = "id = :job_id AND generation = :generation AND status = 'running' AND lease_until IS NOT NULL"
_RENEW = text(f"""
    UPDATE provisioner.jobs SET lease_until = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s)
    WHERE {HELD}
""")
_PARK = text(f"""
    UPDATE provisioner.jobs
    SET lease_until = NULL, published_at = NULL, phase = coalesce(:phase, phase), updated_at = now(),
        error = :reason, wait_reason = :reason, reason_code = :code,
        failing_since = {FAILING_SINCE}, tries = tries + CAST(:failed AS boolean)::int,
        next_attempt_at = CASE
            WHEN coalesce(:phase, phase) = 'agents' AND agents_done >= agents_total
            OR coalesce(:phase, phase) IN ('look', 'roster', 'compare') AND cancel_requested_at IS NOT NULL
            THEN now() ELSE now() + make_interval(secs => :delay_s) END
    WHERE {HELD}
""").bindparams(bindparam("reason", type_=MaskedText))


def renew_job(connection: Connection, held: JobClaim, *, lease_s: float) -> None:
    """Hold the row for another ``lease_s`` seconds. Raises LeaseLostError."""
    require_held(connection.execute(_RENEW, {**key_of(held), "lease_s": lease_s}).rowcount, held)


def park_job(
    connection: Connection,
    held: JobClaim,
    delay_s: float,
    phase: str | None = None,
    reason: str | None = None,
    failing_s: float | None = None,
    *,
    code: ReasonCode | None = None,
    failed: bool = False,
) -> None:
    """Give the lease back. Raises LeaseLostError.

    The row is due in ``delay_s`` seconds, at once if there is nothing left to wait for, or when another
    transaction makes it due. ``reason``: what the row waits for, with ``code`` for programs; ``failing_s``:
    for how many seconds its step has been failing, None if it is not; ``failed``: this try failed.
    """
    parameters = {
        **key_of(held),
        "delay_s": delay_s,
        "phase": phase,
        "reason": reason,
        "code": code,
        "failing_s": failing_s,
        "failed": failed,
    }
    require_held(connection.execute(_PARK, parameters).rowcount, held)


_HAND_ON = text(f"""
    UPDATE provisioner.jobs
    SET lease_until = NULL, published_at = now(), updated_at = now(),
        error = NULL, wait_reason = NULL, reason_code = NULL, failing_since = NULL,
        next_attempt_at = now() + make_interval(secs => :republish_s)
    WHERE {HELD}
""")


def hand_on(connection: Connection, held: JobClaim) -> list[Message]:
    """Give the lease back in the middle of a step, for whoever takes the row next to go on; returns the
    message to send after the commit. Raises LeaseLostError."""
    parameters = {**key_of(held), "republish_s": LOST_AFTER_S}
    require_held(connection.execute(_HAND_ON, parameters).rowcount, held)
    return [finisher_message(held.job_id)]


_FAILING = text(f"SELECT {failing_s()} FROM provisioner.jobs WHERE id = :job_id")


def job_failing_s(connection: Connection, held: JobClaim) -> float:
    """For how many seconds the job's current step has been failing; 0 if it is not."""
    return float(connection.execute(_FAILING, key_of(held)).scalar_one_or_none() or 0)


def key_of(held: JobClaim) -> dict[str, Any]:
    """The parameters of the condition `HELD`."""
    return {"job_id": held.job_id, "generation": held.generation}


def require_held(rows: int, held: JobClaim) -> None:
    """Raise LeaseLostError unless the statement with the condition `HELD` changed exactly one row."""
    if rows != 1:
        raise LeaseLostError(f"Another worker has taken over job {held.job_id}.")
