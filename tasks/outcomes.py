"""Serves a job's message and reports the outcome to Celery: succeeded, failed with a sentence, or retried."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from celery import Task
from celery.exceptions import Ignore, Reject
from sqlalchemy import Connection

from worker.agents.execution import Handler, execute_in_slot
from worker.app import services
from worker.database import DATABASE_AWAY
from worker.database_errors import DatabaseNotNow, Meaning
from worker.database_gate import gate
from worker.errors import PermanentError, reason_of
from worker.jobs.executor import Ended, Outcome
from worker.jobs.intake import AgentOf, Queued, Refused, Started, accept, accept_agent_job, target_of
from worker.jobs.kinds import KINDS
from worker.jobs.messages import Message
from worker.jobs.requests import job_id
from worker.jobs.retry_policy import Snooze, jittered
from worker.jobs.states import ReasonCode
from worker.jobs.store.jobs import ending_of, refuse
from worker.jobs.store.leases import NotClaimed
from worker.jobs.store.sync_jobs import OvertakenError
from worker.log_context import log_context
from worker.masking import mask
from worker.messages.envelope import expiry_refusal
from worker.shutdown_flag import shutting_down
from worker.task_events import send_task_event

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_STATEMENT_AGAIN_S = 1.0
"""Seconds for which a message is held before it is requeued, if the database refused only one statement."""
_MOST_STARTS = 10
"""How often a sync tries to start, or to wait behind another one. Each time that it can do neither, yet
another one has started since it looked."""
NOTHING_TO_DO = "nothing to do"
"""Result of a task that ended no row and whose id is not a job's: without a result, Flower would show it as
started for ever."""
_NO_ROWS = Meaning("it takes no rows in provisioner.jobs", "look for a trigger or a constraint there")


class JobFailed(Exception):
    """The job has ended without success, as its row also records. Celery shows it without a traceback."""

    def __init__(self, reason: str) -> None:
        super().__init__(mask(reason))


def run_agent_job(
    task: Task[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    handler: Handler,
    agent_of: AgentOf = target_of,
) -> str:
    """Serve one message of a task about one agent: find or create the job, then execute the agent's row with
    ``handler``.

    Returns the job's status if it succeeded. Raises JobFailed if it did not, Ignore if there is no outcome to
    report (the row is parked, was not claimed, or had ended before; or the message started no work), and
    Reject if the database is away (`worker.database.DATABASE_AWAY`).
    """
    with retry_on_database_outage(task):
        return _serve(task, positional, arguments, handler, agent_of)


def run_job(
    task: Task[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    begin: Callable[[Connection, Queued], Sequence[Message]],
    *,
    then: Callable[[UUID], Outcome | None] | None = None,
    only_starts: bool = False,
) -> str:
    """Serve one message of a job that is not about one agent.

    ``begin`` completes or starts the job in one transaction and returns the messages to send after the
    commit; ``only_starts``: it never completes one. ``then`` executes a job that ``begin`` did not complete;
    it returns None if it has reported the outcome itself. Returns and raises what `run_agent_job` does.
    """
    kind = str(task.name).removeprefix("tasks.")
    task_id = str(task.request.id)
    with (
        retry_on_database_outage(task),
        log_context(job=task_id),
        fail_on_unexpected(kind, task_id, arguments),
    ):
        begun = partial(_begun, task, positional, arguments, begin, only_starts=only_starts)
        job, messages, ending = _unless_overtaken(begun)
        services().publish(messages)
        if ending is not None:
            return report(task, job.job_id, Ended(*ending))
        outcome = None if then is None else then(job.job_id)
        if outcome is not None:
            return report(task, job.job_id, outcome)
        raise Ignore


def _unless_overtaken(begin: Callable[[], _T]) -> _T:
    """What ``begin`` returns, which is repeated while another sync starts in the same moment."""
    for _ in range(_MOST_STARTS - 1):
        with suppress(OvertakenError):
            return begin()
    return begin()


def _begun(
    task: Task[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    begin: Callable[[Connection, Queued], Sequence[Message]],
    *,
    only_starts: bool,
) -> tuple[Queued | Started | Refused, Sequence[Message], tuple[str, str | None] | None]:
    """Find or create the message's job and start it, in one transaction; returns the job, the messages to
    send, and how it has ended, if it has. Raises Ignore, and OvertakenError."""
    kind, task_id = str(task.name).removeprefix("tasks."), str(task.request.id)
    messages: Sequence[Message] = ()
    with services().engine.begin() as connection:
        job = accept(connection, kind, task_id, positional, arguments, _refusal(task))
        refused = isinstance(job, Refused)
        if isinstance(job, Queued):
            try:
                messages = begin(connection, job)
            except PermanentError as error:
                refuse(connection, job.job_id, kind, str(error), arguments)
                refused = True
        elif job.status != "running" if isinstance(job, Started) else job.reason is None:
            raise Ignore
        ending = ending_of(connection, job.job_id) if refused or not only_starts else None
    return job, messages, ending


@contextmanager
def retry_on_database_outage(task: Task[..., Any]) -> Iterator[None]:
    """Requeue the message if the database is away, because its job may have no row yet.

    The process also stops consuming messages until the database is back, unless only this one statement was
    refused. Raises Reject.
    """
    if gate.closed_by is not None:
        raise Reject(gate.closed_by, requeue=True)
    try:
        yield
    except DATABASE_AWAY as error:
        gate.close(error)
        if gate.closed_by is None:
            shutting_down.wait(jittered(_STATEMENT_AGAIN_S))
        send_task_event("task-retried", [task.request.id], exception=str(error), traceback="")
        raise Reject(str(error), requeue=True) from None


@contextmanager
def fail_on_unexpected(kind: str, task_id: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Record an unexpected exception before the job starts as a failed job, and raise JobFailed.

    Otherwise the message would be delivered again for ever, or be lost.
    """
    try:
        yield
    except (Ignore, JobFailed, *DATABASE_AWAY):
        raise
    except Exception as error:
        log.exception("failed by a fault of our own")
        reason = reason_of(error)
        _put_on_record(kind, task_id, reason, arguments)
        raise JobFailed(reason) from None


def _put_on_record(kind: str, task_id: str, reason: str, arguments: Mapping[str, Any]) -> None:
    """Store the refusal, without the arguments if they are what cannot be stored. Raises DatabaseNotNow if
    that fails too, so that the message is not acknowledged."""
    failure: Exception | None = None
    for payload in (arguments, {}):
        try:
            with services().engine.begin() as connection:
                refuse(connection, job_id(task_id), kind, reason, payload, code=ReasonCode.INTERNAL_ERROR)
        except DATABASE_AWAY:
            raise
        except Exception as error:  # half a surrogate in a name, say, comes as the driver's UnicodeError
            failure = error
        else:
            return
    assert failure is not None
    raise DatabaseNotNow(_NO_ROWS, getattr(failure, "orig", None) or failure)


def _serve(
    task: Task[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    handler: Handler,
    agent_of: AgentOf,
) -> str:
    kind = str(task.name).removeprefix("tasks.")
    task_id = str(task.request.id)
    with log_context(job=task_id):
        with fail_on_unexpected(kind, task_id, arguments):
            accepted = accept_agent_job(
                services().engine, kind, task_id, positional, arguments, agent_of, _refusal(task)
            )
        if isinstance(accepted, Refused):
            if accepted.reason is None:
                raise Ignore
            log.warning("refused: %s", accepted.reason)
            raise JobFailed(accepted.reason)
        with log_context(agent=accepted.agent_id):
            target = KINDS[kind].target
            kwargs = {target: str(arguments[target])} if target in arguments else {}
            message = Message(str(task.name), kwargs, accepted.job_id, accepted.agent_id)
            outcome = execute_in_slot(services(), accepted.gateway_id, message, kind, handler)
            return report(task, accepted.job_id, outcome)


def _refusal(task: Task[..., Any]) -> str | None:
    """Why the message cannot be served: what `worker.messages.envelope` found, or that it has expired."""
    refusal: str | None = getattr(task.request, "refusal", None)
    return refusal or expiry_refusal(str(task.name), getattr(task.request, "use_by", None))


def report(task: Task[..., Any], job_id: UUID, outcome: Outcome) -> str:
    """Report the outcome of one execution to Celery and the log.

    Returns the status of a success; raises JobFailed for a failure, and Ignore if the row is parked or was
    not claimed.
    """
    if isinstance(outcome, NotClaimed):
        log.debug("nothing to do: %s", outcome.value)
        raise Ignore
    if isinstance(outcome, Snooze):
        log.info("parked: %s", outcome.reason)
        send_task_event("task-retried", [task.request.id], exception=outcome.reason, traceback="")
        raise Ignore
    assert isinstance(outcome, Ended)
    if outcome.status != "succeeded":
        log.warning("%s: %s", outcome.status, outcome.reason)
        raise JobFailed(outcome.reason or outcome.status)
    log.info("succeeded")
    return outcome.status
