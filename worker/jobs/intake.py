"""A message becomes a job: by its row where a service wrote one, else by its arguments."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from worker.jobs.ledger import (
    RequestConflictError,
    enqueue,
    refuse,
    start_single,
    stored_job,
)
from worker.jobs.requests import BadRequestError, job_id, parse_request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Accepted:
    """The job that the message is for, and the agent whose row to claim."""

    job_id: UUID
    agent_id: UUID


@dataclass(frozen=True)
class Refused:
    """The job has ended with this sentence; None where there was nothing left to do."""

    job_id: UUID
    reason: str | None


def accept_agent_job(
    engine: Engine, kind: str, task_id: str, positional: tuple[Any, ...], arguments: Mapping[str, Any]
) -> Accepted | Refused:
    """Find or make the job of a message for a single-agent task, and give it its row.

    What cannot be served becomes a failed job whose sentence names the argument.
    """
    key = job_id(task_id)
    if str(key) != task_id.lower():
        log.info("task id %s is not a UUID: its job is %s", task_id, key)
    with engine.begin() as connection:
        stored = stored_job(connection, key)
        if stored is not None and stored.status != "queued":
            return Accepted(key, stored.agent_id) if stored.agent_id else Refused(key, None)
        given = stored.arguments if stored is not None else arguments
        try:
            if positional:
                raise BadRequestError(f"tasks.{kind}: send keyword arguments, not positional ones.")
            request, unknown = parse_request(kind, given)
            if unknown:
                log.warning("tasks.%s: unknown arguments are ignored: %s", kind, ", ".join(unknown))
            if stored is None:
                enqueued = enqueue(connection, request, job_id=key, published=True)
                if enqueued.job_id != key:
                    log.info("request %s is served by job %s", request.request_id, enqueued.job_id)
                    return Refused(enqueued.job_id, None)
        except (BadRequestError, RequestConflictError) as error:
            refuse(connection, key, kind, str(error), given)
            return Refused(key, str(error))
        start_single(connection, key, request)
        return Accepted(key, request.target_id)
