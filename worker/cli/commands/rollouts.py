"""``provisioner rollout status|pause|resume|abort``."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Connection

from worker.cli.commands import jobs
from worker.cli.console import Json, complain, emit, say, short
from worker.cli.environment import engine
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.job_summary import JobSummary, document, read_jobs
from worker.cli.lookup import find_job
from worker.cli.submit import NoWait, present
from worker.jobs.requests import RollOut
from worker.jobs.store import roll_outs

app = typer.Typer(
    help="Roll-outs, which `sync --canary` begins: where they stand, and to pause, resume or end them.",
    no_args_is_help=True,
)

Identity = Annotated[str, typer.Argument(metavar="JOB", help="The roll-out's job id, or its first digits.")]


@app.command("status")
def status(identity: Identity, as_json: Json = False) -> None:
    """Show where a roll-out stands: its rings, and how their agents are."""
    with engine().connect() as connection:
        job = read_jobs(connection, [_find(connection, identity)])[0]
    emit(document(job)) if as_json else present(job)


@app.command("pause")
def pause(identity: Identity, as_json: Json = False) -> None:
    """Have no further ring begin. The one that is under way is finished."""
    _change(identity, paused=True, as_json=as_json)


@app.command("resume")
def resume(identity: Identity, as_json: Json = False) -> None:
    """Go on with a paused roll-out."""
    _change(identity, paused=False, as_json=as_json)


@app.command("abort")
def abort(identity: Identity, no_wait: NoWait = False, as_json: Json = False) -> None:
    """End a roll-out. Agents that it has not reached keep what they had; `rollback --job` undoes the rest."""
    with engine().connect() as connection:
        key = _find(connection, identity)
    jobs.cancel(str(key), no_wait=no_wait, as_json=as_json)


def _find(connection: Connection, identity: str) -> UUID:
    key = find_job(connection, identity)
    job = read_jobs(connection, [key])[0]
    if job.kind != RollOut.kind:
        raise WrongUseError(
            f"Job {short(key)} is no roll-out, but of kind {job.kind}: `provisioner job` shows it."
        )
    return key


def _change(identity: str, *, paused: bool, as_json: bool) -> None:
    with engine().begin() as connection:
        key = _find(connection, identity)
        changed = (roll_outs.pause if paused else roll_outs.resume)(connection, key)
        job = read_jobs(connection, [key])[0]
    if as_json:
        emit(document(job))
    elif changed:
        say(_said(job, paused=paused))
    if not changed:
        complain(_unchanged(job, paused=paused))
        raise typer.Exit(FAILED)


def _said(job: JobSummary, *, paused: bool) -> str:
    if paused:
        return f"Roll-out {short(job.id)} begins no further ring: provisioner rollout resume {short(job.id)}"
    return f"Roll-out {short(job.id)} goes on: provisioner job {short(job.id)} --watch"


def _unchanged(job: JobSummary, *, paused: bool) -> str:
    what = f"Roll-out {short(job.id)}"
    if job.ended:
        return f"{what} has ended: {job.status}."
    if job.rollout is None:
        return f"{what} has not begun."
    return f"{what} {'was paused before' if paused else 'is not paused'}."
