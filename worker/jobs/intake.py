"""Finds the job of a message by its row, or creates the job from the message's arguments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from worker.database import single
from worker.errors import PermanentError
from worker.escaped import escaped
from worker.jobs.kinds import KINDS
from worker.jobs.requests import BadRequestError, Request, job_id
from worker.jobs.store.job_agents import start_single
from worker.jobs.store.jobs import (
    RequestConflictError,
    StoredJob,
    enqueue,
    refuse,
    stored_job,
)
from worker.jobs.store.webhooks import expect_delivery, webhook_of
from worker.log_context import note_ids

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Accepted:
    """A message to serve: its job, the agent whose row to claim, and the agent's gateway, if known."""

    job_id: UUID
    agent_id: UUID
    gateway_id: UUID | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Refused:
    """A message that starts no work.

    ``reason``: why its job was recorded as failed. None if no failure is recorded: the message was dropped,
    another job serves the request (``job_id`` is then that job), or its job has no row left to claim.
    """

    job_id: UUID
    reason: str | None


AgentOf = Callable[[Connection, Request], UUID]
"""Returns the agent that a request is about, and may create it. Raises PermanentError."""


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
    refusal: str | None = None,
) -> Accepted | Refused:
    """Find or create the job of a message for a task about one agent, and create the agent's row.

    ``agent_of`` returns the agent that the request is about; ``refusal``: why the message is refused unless
    its job already has a row. A request that cannot be served becomes a failed job whose error says why.
    """
    key = job_id(task_id)
    with single(engine) as connection:
        stored = stored_job(connection, key)
    if stored is not None and stored.kind != kind:
        return _of_another_kind(key, kind, stored)
    started = None if stored is None else _as_started(key, stored)
    if started is not None:
        return _accepted(started)
    with engine.begin() as connection:
        found = accept(connection, kind, task_id, positional, arguments, refusal)
        if isinstance(found, Refused):
            return found
        if isinstance(found, Started):  # another message has just started it
            return _accepted(found)
        try:
            agent_id = agent_of(connection, found.request)
        except PermanentError as error:
            refuse(connection, found.job_id, kind, str(error), arguments)
            return Refused(found.job_id, str(error))
        gateway_id = start_single(connection, found.job_id, agent_id, found.request)
        return Accepted(found.job_id, agent_id, gateway_id)


@dataclass(frozen=True)
class Queued:
    """A queued job, for the caller to start."""

    job_id: UUID
    request: Request


@dataclass(frozen=True)
class Started:
    """A job that has started and may have ended. ``agent_id``: the agent of its row in ``job_agents``, for a
    job about one agent; None if there is no row."""

    job_id: UUID
    agent_id: UUID | None
    status: str
    gateway_id: UUID | None = None


def _of_another_kind(key: UUID, kind: str, stored: StoredJob) -> Refused:
    """Drop a message whose id belongs to a job of another kind: each id can have only one row."""
    log.warning(
        "dropped a message for tasks.%s: its id is that of a job of kind %s. Send each task with an id of"
        " its own.",
        kind,
        stored.kind,
    )
    return Refused(key, None)


def _as_started(key: UUID, stored: StoredJob) -> Started | None:
    if stored.status == "queued":
        return None
    note_ids(agent=stored.agent_id, gateway=stored.gateway_id)
    return Started(key, stored.agent_id, stored.status, stored.gateway_id)


def _accepted(started: Started) -> Accepted | Refused:
    if started.agent_id is None:
        return Refused(started.job_id, None)
    return Accepted(started.job_id, started.agent_id, started.gateway_id)


def accept(
    connection: Connection,
    kind: str,
    task_id: str,
    positional: tuple[Any, ...],
    arguments: Mapping[str, Any],
    refusal: str | None = None,
) -> Queued | Started | Refused:
    """Find the job of a message by its row, or create it from ``arguments``.

    ``refusal``: why the message is refused unless its job already has a row. A request that cannot be served
    becomes a failed job whose error says why.
    """
    key = job_id(task_id)
    if str(key) != task_id.lower():
        log.info("task id %s is not a UUID: its job is %s", escaped(task_id, 100), key)
    stored = stored_job(connection, key)
    if stored is not None and stored.kind != kind:
        return _of_another_kind(key, kind, stored)
    started = None if stored is None else _as_started(key, stored)
    if started is not None:
        return started
    given = stored.named if stored is not None else arguments
    model = KINDS[kind].request
    try:
        if refusal is not None and stored is None:
            raise BadRequestError(refusal)
        if positional:
            raise BadRequestError(f"tasks.{kind}: send keyword arguments, not positional ones.")
        given = stored.arguments if stored is not None else arguments
        request, unknown = model.parse(given)
        note_ids(**{name: getattr(request, f"{name}_id", None) for name in ("agent", "gateway")})
        if stored is not None:
            model.require_known_options(stored.options)
            expect_delivery(connection, key, webhook_of(connection, request))
        if unknown:
            names = escaped(", ".join(unknown), 500)
            log.warning("tasks.%s: unknown arguments are ignored: %s", kind, names)
        if stored is None:
            enqueued = enqueue(connection, request, job_id=key, published=True)
            if enqueued.job_id != key:
                log.info("request %s is served by job %s", request.request_id, enqueued.job_id)
                return Refused(enqueued.job_id, None)
    except (BadRequestError, RequestConflictError) as error:
        refuse(connection, key, kind, str(error), given)
        return Refused(key, str(error))
    return Queued(key, request)
