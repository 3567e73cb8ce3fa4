"""A message becomes a job: by its row where a service wrote one, else by its arguments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from worker.errors import PermanentError
from worker.jobs.ledger import (
    RequestConflictError,
    enqueue,
    refuse,
    start_single,
    stored_job,
)
from worker.jobs.requests import BadRequestError, Request, job_id, parse_request

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


AgentOf = Callable[[Connection, Request], UUID]
"""Which agent a request is about; may make it. Raises PermanentError."""


def target_of(_: Connection, request: Request) -> UUID:
    """The agent that the request names."""
    return request.target_id


def accept_agent_job(
    engine: Engine,
    kind: str,
    task_id: str,
    positional: tuple[Any, ...],
    arguments: Mapping[str, Any],
    agent_of: AgentOf = target_of,
) -> Accepted | Refused:
    """Find or make the job of a message for a single-agent task, and give it its row.

    ``agent_of`` says which agent the request is about. What cannot be served becomes a failed job whose
    sentence names the argument.
    """
    with engine.begin() as connection:
        found = accept(connection, kind, task_id, positional, arguments)
        if isinstance(found, Refused):
            return found
        if isinstance(found, Begun):
            return Accepted(found.job_id, found.agent_id) if found.agent_id else Refused(found.job_id, None)
        try:
            agent_id = agent_of(connection, found.request)
        except PermanentError as error:
            refuse(connection, found.job_id, kind, str(error), arguments)
            return Refused(found.job_id, str(error))
        start_single(connection, found.job_id, agent_id, found.request)
        return Accepted(found.job_id, agent_id)


@dataclass(frozen=True)
class Queued:
    """A job that is to begin now, by this message."""

    job_id: UUID
    request: Request


@dataclass(frozen=True)
class Begun:
    """A job that has begun, and perhaps ended; ``agent_id``: of its one row, if it has one."""

    job_id: UUID
    agent_id: UUID | None
    status: str


def accept(
    connection: Connection,
    kind: str,
    task_id: str,
    positional: tuple[Any, ...],
    arguments: Mapping[str, Any],
) -> Queued | Begun | Refused:
    """Find or make the job of a message, by its row where there is one."""
    key = job_id(task_id)
    if str(key) != task_id.lower():
        log.info("task id %s is not a UUID: its job is %s", task_id, key)
    stored = stored_job(connection, key)
    if stored is not None and stored.status != "queued":
        return Begun(key, stored.agent_id, stored.status)
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
    return Queued(key, request)
