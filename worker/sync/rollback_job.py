"""Rolls back all agents whose files a job changed, by a job for each (rules.md 51)."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from worker.jobs.requests import Rollback, RollbackJob
from worker.jobs.store.jobs import enqueue, finish_queued, requester_of
from worker.records.file_changes import agents_changed_by


def enqueue_rollbacks(connection: Connection, job_id: UUID, request: RollbackJob) -> list[UUID]:
    """Enqueue the jobs, and end the queued job that asks for them. Returns their ids.

    An agent that was deleted, or moved to another gateway, since the job is left out and named in the result.
    Raises BadRequestError if the job changed nothing that is on record, or nothing of the request's gateway.
    """
    changed = agents_changed_by(connection, request.undo_job_id, request.gateway_id)
    options = {name: value for name, value in request.model_dump().items() if name in Rollback.model_fields}
    options |= {"requested_by": request.requested_by or requester_of(connection, job_id), "request_id": None}
    jobs, left = [], []
    for row in changed:
        if row.name is None or row.gateway_now != row.gateway_id:
            why = "it was deleted" if row.name is None else "it is on another gateway now"
            left.append({"agent_id": str(row.agent_id), "agent_name": row.name, "reason": why})
            continue
        child = Rollback.model_validate({**options, "agent_id": row.agent_id, "webhook": None})
        jobs.append(enqueue(connection, child, parent=job_id).job_id)
    result = {
        "dry_run": request.dry_run,
        "undo_job_id": str(request.undo_job_id),
        "jobs": [str(each) for each in jobs],
        "left_out": left,
    }
    finish_queued(connection, job_id, result)
    return jobs
