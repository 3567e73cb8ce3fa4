"""Starts and ends jobs that adopt a whole gateway: they hold no agent, and enqueue a job for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.jobs.requests import AdoptGateway
from worker.jobs.states import ReasonCode
from worker.jobs.store.job_leases import HELD, JobClaim, key_of, require_held
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedJson, MaskedText

_START = text("""
    UPDATE provisioner.jobs
    SET status = 'running', phase = 'look', started_at = now(), updated_at = now(), published_at = now(),
        next_attempt_at = now() + make_interval(secs => :republish_s), options = :options,
        organization_id = :organization_id
    WHERE id = :job_id AND status = 'queued'
""").bindparams(bindparam("options", type_=JSONB))


def start_adoption(
    connection: Connection, job_id: UUID, request: AdoptGateway, organization_id: UUID | None
) -> None:
    """Start a queued job, and store its options with all defaults."""
    values = {"organization_id": organization_id, "options": request.options()}
    connection.execute(_START, {"job_id": job_id, **values, "republish_s": LOST_AFTER_S})


_END = text(f"""
    UPDATE provisioner.jobs
    SET status = :status, phase = 'ended', error = :error, reason_code = :code, wait_reason = NULL,
        result = :result, finished_at = now(), updated_at = now(), lease_until = NULL,
        next_attempt_at = NULL, published_at = NULL
    WHERE {HELD}
""").bindparams(bindparam("error", type_=MaskedText), bindparam("result", type_=MaskedJson))


def end_adoption(
    connection: Connection,
    held: JobClaim,
    status: str,
    *,
    result: Mapping[str, Any] | None = None,
    error: str | None = None,
    code: ReasonCode | None = None,
) -> None:
    """End the job. ``code``: ``error`` for programs. Raises LeaseLostError."""
    ending = {"status": status, "result": result, "error": error, "code": code}
    require_held(connection.execute(_END, {**key_of(held), **ending}).rowcount, held)
