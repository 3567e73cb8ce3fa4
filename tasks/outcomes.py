"""How the outcome of a turn looks to Celery: ended, failed with a sentence, or to come again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from celery import Task
from celery.exceptions import Ignore, Reject
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from worker.agents.execution import take_seat_and_turn
from worker.app import services, tell
from worker.database import DATABASE_AWAY
from worker.database_errors import DatabaseNotNow, Meaning
from worker.errors import PermanentError, reason_of
from worker.gate import gate
from worker.jobs.executor import Ended, Outcome
from worker.jobs.intake import AgentOf, Begun, Queued, Refused, accept, accept_agent_job, target_of
from worker.jobs.kinds import KINDS
from worker.jobs.messages import Message
from worker.jobs.requests import job_id
from worker.jobs.retry_policy import Snooze, jittered
from worker.jobs.states import ReasonCode
from worker.jobs.store.jobs import ending_of, refuse
from worker.jobs.store.leases import NotClaimed
from worker.log_context import about
from worker.masking import mask
from worker.messages.envelope import expiry_refusal
from worker.shutdown import shutting_down

log = logging.getLogger(__name__)

_STATEMENT_AGAIN_S = 1.0
"""How long a message is held after a statement that was not served, in seconds, before it comes again."""
NOTHING_TO_DO = "nothing to do"
"""What a message comes to whose row is leased, parked or ended, and whose task is nobody's job."""
_NO_ROWS = Meaning("it takes no rows in provisioner.jobs", "look for a trigger or a constraint there")


class JobFailed(Exception):
    """The job has ended without success; its row says the same. Shown without a traceback."""

    def __init__(self, reason: str) -> None:
        super().__init__(mask(reason))


def run_agent_job(
    task: Task[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    agent_of: AgentOf = target_of,
) -> str:
    """Serve one message of a single-agent task: its job's row, then one turn with the agent.

    Returns the status of a job that succeeded. Raises JobFailed for one that did not, and Ignore where
    there is nothing to report: the row is parked, taken, or ended before.
    """
    with outliving_the_database(task):
        return _serve(task, positional, arguments, agent_of)


def run_job(
    task: Task[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    begin: Callable[[Connection, Queued], Sequence[Message]],
    *,
    then: Callable[[UUID], Outcome | None] | None = None,
) -> str:
    """Serve one message of a job that is not about one agent. In one transaction ``begin`` carries it out or
    sets it going, and returns what is to be sent after the commit. ``then`` takes a job that has not ended on
    from there; it returns None if it has told of the outcome itself.

    Returns the status of a job that succeeded. Raises JobFailed and Ignore as run_agent_job does.
    """
    kind = str(task.name).removeprefix("tasks.")
    task_id = str(task.request.id)
    messages: Sequence[Message] = ()
    with (
        outliving_the_database(task),
        about(job=task_id),
        failing_for_faults(kind, task_id, arguments),
    ):
        with services().engine.begin() as connection:
            job = accept(connection, kind, task_id, positional, arguments, _refusal(task))
            if isinstance(job, Queued):
                try:
                    messages = begin(connection, job)
                except PermanentError as error:
                    refuse(connection, job.job_id, kind, str(error), arguments)
            elif not (isinstance(job, Begun) and job.status == "running") and (
                not isinstance(job, Refused) or job.reason is None
            ):
                raise Ignore
            ending = ending_of(connection, job.job_id)
        services().publish(messages)
        if ending is not None:
            return report(task, job.job_id, Ended(*ending))
        outcome = None if then is None else then(job.job_id)
        if outcome is not None:
            return report(task, job.job_id, outcome)
        raise Ignore


@contextmanager
def outliving_the_database(task: Task[..., Any]) -> Iterator[None]:
    """Hands the message back to its queue while the database says "not now", and has this process take no
    more until it serves us again: for a job by send_task the message is all there is. Where one statement
    alone was not served, other work goes on. Raises Reject then."""
    if gate.because is not None:
        raise Reject(gate.because, requeue=True)
    try:
        yield
    except DATABASE_AWAY as error:
        gate.shut(error)
        if gate.because is None:
            shutting_down.wait(jittered(_STATEMENT_AGAIN_S))
        tell("task-retried", [task.request.id], exception=str(error), traceback="")
        raise Reject(str(error), requeue=True) from None


@contextmanager
def failing_for_faults(kind: str, task_id: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """What nobody expected, before a job has begun, ends it: it would come again for ever, or be lost."""
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
    """Write the refusal, without what was asked for if that is what cannot be written. Raises DatabaseNotNow
    where nothing can be: then the message is not acknowledged."""
    failure: SQLAlchemyError | None = None
    for said in (arguments, {}):
        try:
            with services().engine.begin() as connection:
                refuse(connection, job_id(task_id), kind, reason, said, code=ReasonCode.INTERNAL_ERROR)
        except DATABASE_AWAY:
            raise
        except SQLAlchemyError as error:
            failure = error
        else:
            return
    assert failure is not None
    raise DatabaseNotNow(_NO_ROWS, getattr(failure, "orig", None) or failure)


def _serve(
    task: Task[..., Any], positional: tuple[Any, ...], arguments: dict[str, Any], agent_of: AgentOf
) -> str:
    kind = str(task.name).removeprefix("tasks.")
    task_id = str(task.request.id)
    with about(job=task_id):
        with failing_for_faults(kind, task_id, arguments):
            accepted = accept_agent_job(
                services().engine, kind, task_id, positional, arguments, agent_of, _refusal(task)
            )
        if isinstance(accepted, Refused):
            if accepted.reason is None:
                raise Ignore
            log.warning("refused: %s", accepted.reason)
            raise JobFailed(accepted.reason)
        with about(agent=accepted.agent_id):
            target = KINDS[kind].target
            kwargs = {target: str(arguments[target])} if target in arguments else {}
            message = Message(str(task.name), kwargs, accepted.job_id, accepted.agent_id)
            outcome = take_seat_and_turn(services(), accepted.gateway_id, message)
            return report(task, accepted.job_id, outcome)


def _refusal(task: Task[..., Any]) -> str | None:
    """Why the message cannot be served, as `worker.messages.envelope` found, or because it is late by now."""
    refusal: str | None = getattr(task.request, "refusal", None)
    return refusal or expiry_refusal(str(task.name), getattr(task.request, "use_by", None))


def report(task: Task[..., Any], job_id: UUID, outcome: Outcome) -> str:
    """Tell Celery, and the log, how a turn went."""
    if isinstance(outcome, NotClaimed):
        log.debug("nothing to do: %s", outcome.value)
        raise Ignore
    if isinstance(outcome, Snooze):
        log.info("parked: %s", outcome.reason)
        tell("task-retried", [task.request.id], exception=outcome.reason, traceback="")
        raise Ignore
    assert isinstance(outcome, Ended)
    if outcome.status != "succeeded":
        log.warning("%s: %s", outcome.status, outcome.reason)
        raise JobFailed(outcome.reason or outcome.status)
    log.info("succeeded")
    return outcome.status
