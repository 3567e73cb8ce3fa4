"""``provisioner provision``: a request, written as a row, and the wait for its outcome."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.environment import engine
from worker.cli.faults import FAILED, WrongUseError
from worker.cli.job_records import document, read_jobs
from worker.cli.job_view import show_job
from worker.cli.lookup import find
from worker.cli.screen import Json, emit, err, note, out, say
from worker.cli.watch import watch_one
from worker.jobs.ledger import enqueue
from worker.jobs.requests import ProvisionAgent

REQUESTED_BY = "cli"


def provision(
    agent: Annotated[str, typer.Argument(help="Name or id of a board agent.")],
    no_wake: Annotated[bool, typer.Option("--no-wake", help="Do not wake the agent at the end.")] = False,
    no_reset: Annotated[bool, typer.Option("--no-reset", help="Keep the agent's session.")] = False,
    force_bootstrap: Annotated[
        bool, typer.Option("--force-bootstrap", help="Write BOOTSTRAP.md again.")
    ] = False,
    request: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Make it once: the same ID again finds the same job."),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")] = False,
    as_json: Json = False,
) -> None:
    """Bring an agent to life on its gateway, and wait until it is. Exit code 1 where that fails."""
    if request is not None and not request.strip():
        raise WrongUseError("--request needs an id that is not blank.")
    database = engine()
    with database.begin() as connection:
        asked = ProvisionAgent(
            agent_id=find(connection, "agent", agent),
            request_id=request,
            requested_by=REQUESTED_BY,
            wake=not no_wake,
            reset_session=not no_reset,
            force_bootstrap=force_bootstrap,
        )
        enqueued = enqueue(connection, asked)
    if not enqueued.created:
        note(f"Request {request!r} was made before: this is its job.")
    if no_wait:
        with database.connect() as connection:
            job = read_jobs(connection, [enqueued.job_id])[0]
        emit(document(job)) if as_json else say(str(job.id))
        return
    job = watch_one(database, enqueued.job_id, err if as_json else out)
    emit(document(job)) if as_json else show_job(job)
    if job.status != "succeeded":
        raise typer.Exit(FAILED)
