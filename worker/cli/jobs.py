"""``provisioner jobs`` and ``provisioner job``."""

from __future__ import annotations

from typing import Annotated

import typer

from models.jobs import JOB_STATUSES
from worker.cli.ask import present
from worker.cli.console import Json, emit, err, out, say
from worker.cli.environment import engine
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.job_records import document, newest_jobs, read_jobs
from worker.cli.job_view import list_of_jobs
from worker.cli.lookup import find_job, find_job_of_request
from worker.cli.watch import watch_one


def jobs(
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help=f"Only those that are {', '.join(JOB_STATUSES)}.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    if status is not None and status not in JOB_STATUSES:
        raise WrongUseError(f"--status is one of {', '.join(JOB_STATUSES)}, not {status!r}.")
    with engine().connect() as connection:
        found = newest_jobs(connection, status=status, limit=limit)
    if as_json:
        emit([document(job, with_agents=False) for job in found])
    elif found:
        say(list_of_jobs(found))
    else:
        say(f"No job is {status}." if status else "No job yet.")


def job(
    identity: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The job's id, or its first digits.", show_default=False),
    ] = None,
    request: Annotated[str | None, typer.Option(metavar="ID", help="The job of this request.")] = None,
    follow: Annotated[
        bool, typer.Option("--watch", help="Wait for its end; exit code 1 if it fails.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show one job: how far it is, what it did, what went wrong. Exit code 1 if it ended without success."""
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
