"""Retries a job that ended: enqueues a new job, its child, for what it left undone (decisions.md D6)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import PermanentError
from worker.jobs.kinds import require_kind
from worker.jobs.requests import (
    BadRequestError,
    Request,
    SyncGateway,
    SyncHeartbeats,
)
from worker.jobs.states import OPEN_STATUSES
from worker.jobs.store.codes import outcome
from worker.jobs.store.jobs import enqueue, stored_job


def retry(connection: Connection, job_id: UUID, *, requested_by: str | None) -> UUID:
    """Enqueue a job with the same options for what the ended job left undone. Returns the new job's id.

    A job about one agent is repeated as it was. A sync is repeated for those of its agents that failed, were
    skipped because of an error, were not attempted or were cancelled; the main agent is included if it is one
    of these or had no row. Raises PermanentError if the job has not ended, if a retry of it is open, or if
    the new job would have nothing to do or would be refused.
    """
    job = connection.execute(_JOB, {"job_id": job_id}).one()
    if job.status in OPEN_STATUSES:
        raise PermanentError(f"Job {job_id} has not ended: it is {job.status}. Watch it, or cancel it.")
    if job.status == "succeeded":
        raise PermanentError(f"Job {job_id} succeeded: there is nothing to do again.")
    under_way = connection.execute(_UNDER_WAY, {"job_id": job_id, "kind": job.kind}).scalar_one_or_none()
    if under_way is not None:
        raise PermanentError(f"Job {job_id} is being done again: by job {under_way}.")
    stored = stored_job(connection, job_id)
    assert stored is not None
    try:
        request, _ = require_kind(job.kind).request.parse(stored.arguments)
        request.require_known_options(stored.options)
    except BadRequestError as error:
        raise PermanentError(f"Job {job_id} was refused, and would be again: {error}") from None
    changes: dict[str, Any] = {"request_id": None, "requested_by": requested_by}
    if isinstance(request, SyncGateway | SyncHeartbeats):
        changes |= _left_undone(connection, job_id, request)
    return enqueue(connection, request.model_copy(update=changes), parent=job_id).job_id


def _left_undone(connection: Connection, job_id: UUID, request: Request) -> dict[str, Any]:
    """The options that limit a new job to the agents left undone; empty if the ended job had no rows yet."""
    rows = connection.execute(_ROWS, {"job_id": job_id}).all()
    if not rows:
        return {}
    if isinstance(request, SyncHeartbeats):
        agents = [row.agent_id for row in rows if row.undone]
        main = False
    else:
        assert isinstance(request, SyncGateway)
        agents = [row.agent_id for row in rows if row.undone and row.position is not None]
        main_rows = [row for row in rows if row.position is None]
        main = request.include_main and (not main_rows or main_rows[0].undone)
    if not agents and not main:
        raise PermanentError(f"Job {job_id} left no agent undone: there is nothing to do again.")
    named: dict[str, Any] = {"agent_ids": agents}
    return {**named, "include_main": main} if isinstance(request, SyncGateway) else named


_JOB = text("SELECT kind, status FROM provisioner.jobs WHERE id = :job_id FOR UPDATE")
_UNDER_WAY = text("""
    SELECT id FROM provisioner.jobs
    WHERE parent_job_id = :job_id AND kind = :kind AND status IN ('queued', 'running')
    ORDER BY created_at LIMIT 1
""")
_ROWS = text(f"""
    SELECT agent_id, position,
        status IN ('failed', 'not_attempted', 'cancelled')
        OR status = 'skipped' AND {outcome("r")} IS NULL AS undone
    FROM provisioner.job_agents r WHERE job_id = :job_id ORDER BY position, agent_id
""")
