"""``provisioner jobs|job|cancel|retry``."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.console import Json, complain, emit, err, note, out, say, short, show_list
from worker.cli.environment import engine
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.job_summary import document, newest_jobs, read_jobs
from worker.cli.lookup import find_job, find_job_of_request
from worker.cli.options import REQUESTED_BY
from worker.cli.submit import NoWait, follow, present, watch_one
from worker.cli.views.jobs import list_of_jobs
from worker.jobs.states import JOB_STATUSES
from worker.jobs.store import cancelling, retrying


def jobs(
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help=f"Only jobs that are {', '.join(JOB_STATUSES)}.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="List at most this many.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    if status is not None and status not in JOB_STATUSES:
        raise WrongUseError(f"--status is one of {', '.join(JOB_STATUSES)}, not {status!r}.")
    with engine().connect() as connection:
        found = newest_jobs(connection, status=status, limit=limit)
    documents = [document(job, with_agents=False) for job in found]
    nothing = f"No job is {status}." if status else "No job yet."
    show_list(documents, list_of_jobs(found), nothing=nothing, as_json=as_json)


def job(
    identity: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="The job's id, or its first digits.", show_default=False),
    ] = None,
    request: Annotated[str | None, typer.Option(metavar="ID", help="The job of this request.")] = None,
    follow: Annotated[bool, typer.Option("--watch", help="Wait until it ends; exits 1 if it fails.")] = False,
    as_json: Json = False,
) -> None:
    """Show one job: how far it is, what it did, what went wrong. Exits 1 if it ended without success."""
    if (identity is None) == (request is None):
        raise WrongUseError("Name the job: by its id, or by --request ID.")
    database = engine()
    with database.connect() as connection:
        key = (
            find_job(connection, identity)
            if identity is not None
            else find_job_of_request(connection, request or "")
        )
        found = read_jobs(connection, [key])[0]
    if follow:
        found = watch_one(database, key, err if as_json else out)
    emit(document(found)) if as_json else present(found)
    if found.ended and found.status != "succeeded":
        raise typer.Exit(FAILED)


def cancel(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its first digits.")],
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Cancel a job: at once, or as soon as the workers that have it are done.

    Exits 1 if the job ended otherwise.
    """
    database = engine()
    with database.connect() as connection:
        key = find_job(connection, identity)
    with database.begin() as connection:
        ended = cancelling.cancel(connection, key)
    if not ended and not no_wait:
        note(f"Job {short(key)} will be cancelled once the workers that have it are done.")
        job = watch_one(database, key, err if as_json else out)
    else:
        with database.connect() as connection:
            job = read_jobs(connection, [key])[0]
    if as_json:
        emit(document(job))
    elif not job.ended:
        say(str(job.id))
    elif ended:
        say(f"Job {short(key)} is cancelled: nothing of it was at work.")
    else:
        present(job)
    if job.ended and job.status != "cancelled":
        complain("The job finished before it could be cancelled.")
        raise typer.Exit(FAILED)


def retry(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its first digits.")],
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Retry what an ended job left undone, as a new job. Exits 1 if that fails, or if nothing is left.

    For a sync, that is every agent that failed, was skipped for an error, was not attempted or was cancelled.
    """
    database = engine()
    with database.connect() as connection:
        old = find_job(connection, identity)
    with database.begin() as connection:
        new = retrying.retry(connection, old, requested_by=REQUESTED_BY)
    note(f"Job {short(new)} does again what job {short(old)} left undone.")
    if not no_wait:
        follow(new, as_json=as_json)
        return
    with database.connect() as connection:
        job = read_jobs(connection, [new])[0]
    emit(document(job)) if as_json else say(str(new))
