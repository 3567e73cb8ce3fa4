"""Submits a request as a job, waits until it has ended, and shows its progress and result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from sqlalchemy import Engine

from worker.cli.console import emit, err, note, out, say, short
from worker.cli.environment import engine
from worker.cli.errors import FAILED, STOPPED, WrongUseError
from worker.cli.job_summary import JobSummary, document, read_jobs
from worker.cli.options import Make
from worker.cli.views.jobs import show_job
from worker.cli.views.live import view_on
from worker.cli.views.plans import show_plan
from worker.cli.views.roll_outs import show_roll_out
from worker.cli.views.rollbacks import rollbacks_of, show_rollbacks
from worker.cli.views.syncs import show_sync
from worker.jobs.requests import BadRequestError, Request, RollbackJob, RollOut
from worker.jobs.store.jobs import enqueue

POLL_S = 0.25
SHARE = 0.1
"""The share of the time that database reads may take: slow reads are made less often."""

NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")]


def ask(make: Make[Request], *, no_wait: bool, as_json: bool) -> JobSummary:
    """Enqueue the request and, unless ``no_wait``, wait until its job has ended; show the job.

    Exits 1 if the job does not succeed. Raises WrongUseError, RequestConflictError.
    """
    database = engine()
    with database.begin() as connection:
        request = make(connection)
        try:
            enqueued = enqueue(connection, request)
        except BadRequestError as error:
            raise WrongUseError(str(error)) from None
    if not enqueued.created:
        note(f"Request {request.request_id!r} was made before: this is its job.")
    if no_wait:
        with database.connect() as connection:
            job = read_jobs(connection, [enqueued.job_id])[0]
        emit(document(job)) if as_json else say(str(job.id))
        return job
    return follow(enqueued.job_id, as_json=as_json)


def ask_for_many(
    make: Make[Request],
    *,
    children_of: Callable[[JobSummary], Sequence[UUID]],
    called: str,
    show: Callable[[JobSummary, list[JobSummary]], None],
    as_json: bool,
) -> None:
    """Enqueue a request whose job enqueues one for each agent, and wait until all have ended; show them.

    ``children_of``: the ids of those jobs; ``called``: their key in the JSON document. Exits 1 if a job does
    not succeed. Raises WrongUseError.
    """
    database, console = engine(), err if as_json else out
    with database.begin() as connection:
        try:
            job_id = enqueue(connection, make(connection)).job_id
        except BadRequestError as error:
            raise WrongUseError(str(error)) from None
    whole = watch_one(database, job_id, console)
    ids = children_of(whole)
    jobs = watch(database, ids, console) if ids else []
    if as_json:
        emit({**document(whole), called: [document(job) for job in jobs]})
    elif whole.status != "succeeded":
        present(whole)
    else:
        show(whole, jobs)
    if any(job.status != "succeeded" for job in (whole, *jobs)):
        raise typer.Exit(FAILED)


def follow(job_id: UUID, *, as_json: bool, quiet: bool = False) -> JobSummary:
    """Wait until the job has ended and, unless ``quiet``, show it. Exits 1 if it does not succeed."""
    console = err if as_json else out
    job = watch_one(engine(), job_id, console)
    if not (as_json or quiet):
        present(job)
    back = _watch_its_rollback(job, console)
    if as_json and not quiet:
        emit({**document(job), **({"rollbacks": [document(each) for each in back[1]]} if back else {})})
    elif back is not None and not quiet:
        show_rollbacks(*back)
    if job.status != "succeeded":
        raise typer.Exit(FAILED)
    return job


def _watch_its_rollback(job: JobSummary, console: Console) -> tuple[JobSummary, list[JobSummary]] | None:
    """Wait until what a roll-out has changed is taken back: the job that does so, and those of its agents.
    None if nothing is taken back."""
    back = (job.result or {}).get("rollback_job_id")
    if back is None:
        return None
    whole = watch_one(engine(), UUID(str(back)), console)
    ids = rollbacks_of(whole)
    return whole, watch(engine(), ids, console) if ids else []


def present(job: JobSummary) -> None:
    """Show a job on a page, or the plan of a dry run that succeeded."""
    if job.is_sync:
        show_sync(job)
    elif job.kind == RollOut.kind:
        show_roll_out(job)
    elif job.kind == RollbackJob.kind and job.status == "succeeded":
        with engine().connect() as connection:
            jobs = read_jobs(connection, rollbacks_of(job))
        show_rollbacks(job, jobs)
    elif job.status == "succeeded" and (job.result or {}).get("dry_run") is True:
        show_plan(job)
    else:
        show_job(job)


def watch_one(engine: Engine, job_id: UUID, console: Console) -> JobSummary:
    """Show the job until it has ended. Ctrl-C stops the watching, not the job, and says so."""
    try:
        return watch(engine, [job_id], console)[0]
    except KeyboardInterrupt:
        note(f"Not watched any more; the job goes on: provisioner job {short(job_id)} --watch")
        raise typer.Exit(STOPPED) from None


def watch(
    engine: Engine, ids: Sequence[UUID], console: Console, *, check: Callable[[], None] = lambda: None
) -> list[JobSummary]:
    """Show the jobs on ``console`` until every one has ended; return them as they ended.

    ``check`` is called before each wait; what it raises ends the watching.
    """
    view = view_on(console)

    def read() -> tuple[list[JobSummary], float]:
        began = time.monotonic()
        with engine.connect() as connection:
            jobs = read_jobs(connection, ids, whole=False, failures=view.failures)
        return jobs, time.monotonic() - began

    jobs, cost_s = read()
    if not all(job.ended for job in jobs):
        with view:
            view.show(jobs)
            while not all(job.ended for job in jobs):
                check()
                time.sleep(max(POLL_S, cost_s / SHARE))
                jobs, cost_s = read()
                view.show(jobs)
    with engine.connect() as connection:
        return read_jobs(connection, ids)
