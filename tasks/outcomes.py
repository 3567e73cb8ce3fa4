"""How the outcome of a turn looks to Celery: ended, failed with a sentence, or to come again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import structlog
from celery import Task
from celery.exceptions import Ignore
from sqlalchemy import Connection

from worker.app import services
from worker.database import DATABASE_AWAY
from worker.errors import PermanentError
from worker.gateway.retry import jittered
from worker.jobs.intake import AgentOf, Queued, Refused, accept, accept_agent_job, target_of
from worker.jobs.ledger import NotClaimed, refuse
from worker.provisioning.turn import Ended, Outcome, take_turn
from worker.provisioning.work import Parked

log = logging.getLogger(__name__)


class JobFailed(Exception):
    """The job has ended without success; its row says the same. Shown without a traceback."""


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
    with _outliving_the_database(task):
        return _serve(task, positional, arguments, agent_of)


def run_short_job(
    task: Task[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    work: Callable[[Connection, Queued], None],
) -> str:
    """Serve one message of a job that ``work`` carries out, or sets going, in one transaction.

    Raises JobFailed and Ignore as run_agent_job does.
    """
    kind = str(task.name).removeprefix("tasks.")
    task_id = str(task.request.id)
    with _outliving_the_database(task), structlog.contextvars.bound_contextvars(job=task_id):
        with services().engine.begin() as connection:
            job = accept(connection, kind, task_id, positional, arguments)
            if isinstance(job, Queued):
                try:
                    work(connection, job)
                except PermanentError as error:
                    refuse(connection, job.job_id, kind, str(error), arguments)
                    job = Refused(job.job_id, str(error))
        if isinstance(job, Refused) and job.reason is not None:
            log.warning("refused: %s", job.reason)
            raise JobFailed(job.reason)
        if not isinstance(job, Queued):
            raise Ignore
        return "accepted"


@contextmanager
def _outliving_the_database(task: Task[..., Any]) -> Iterator[None]:
    """The message must outlive the database's absence: for a job by send_task it is all there is."""
    try:
        yield
    except DATABASE_AWAY as error:
        log.warning("the database is away, trying again: %s", type(error).__name__)
        wait_s = jittered(min(30.0, 2.0 ** min(task.request.retries, 5)))
        raise task.retry(exc=error, countdown=wait_s, max_retries=None) from None


def _serve(
    task: Task[..., Any], positional: tuple[Any, ...], arguments: dict[str, Any], agent_of: AgentOf
) -> str:
    kind = str(task.name).removeprefix("tasks.")
    task_id = str(task.request.id)
    with structlog.contextvars.bound_contextvars(job=task_id):
        accepted = accept_agent_job(services().engine, kind, task_id, positional, arguments, agent_of)
        if isinstance(accepted, Refused):
            if accepted.reason is None:
                raise Ignore
            log.warning("refused: %s", accepted.reason)
            raise JobFailed(accepted.reason)
        with structlog.contextvars.bound_contextvars(agent=str(accepted.agent_id)):
            outcome = take_turn(services(), accepted.job_id, accepted.agent_id)
            return report(task, accepted.job_id, outcome)


def report(task: Task[..., Any], job_id: UUID, outcome: Outcome) -> str:
    """Tell Celery, and the log, how a turn went."""
    if isinstance(outcome, NotClaimed):
        log.debug("nothing to do: %s", outcome.value)
        raise Ignore
    if isinstance(outcome, Parked):
        log.info("parked: %s", outcome.reason)
        task.send_event("task-retried", exception=outcome.reason, traceback="")
        raise Ignore
    assert isinstance(outcome, Ended)
    if outcome.status != "succeeded":
        log.warning("%s: %s", outcome.status, outcome.reason)
        raise JobFailed(outcome.reason or outcome.status)
    log.info("succeeded")
    return outcome.status
