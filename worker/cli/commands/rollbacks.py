"""``provisioner rollback``: brings back what a job replaced in agents' files."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection

from worker.cli.console import (
    Json,
    argument,
    counted,
    note,
    plain,
    say,
    short,
    show_list,
    table,
)
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.cli.job_summary import JobSummary
from worker.cli.options import Make, command_line, from_request
from worker.cli.submit import NoWait, ask, ask_for_many
from worker.cli.views.files import show_diffs
from worker.cli.views.jobs import STYLES
from worker.jobs.requests import BadRequestError, Option, Rollback, RollbackJob
from worker.records.file_changes import agents_changed_by
from worker.records.holds import all_held
from worker.workspace.actions import WRITES


class TypedRollback(Rollback):
    """What is typed: an agent, or, without one, the job whose agents are all rolled back."""

    agent_id: Annotated[
        UUID | None, Option("AGENT", "Name or id of an agent; if left out, all that --job changed.")
    ] = None  # type: ignore[assignment]


@from_request(TypedRollback)
def rollback(
    *,
    make: Make[TypedRollback],
    held: Annotated[
        bool, typer.Option("--list", help="List the files that are held, and do nothing.")
    ] = False,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Take an agent back to what it was before a job changed it.

    Its files and its roster entry are meant. Without --job, what changed it last is taken back. What the
    agent has written since is merged, or kept and reported. All that is then held: it stays so, whatever
    templates and settings say, until --release, or until a newer version of the template is promoted.
    """
    if held:
        _list(as_json=as_json)
        return
    with engine().connect() as connection:
        given = make(connection)
    if given.agent_id is not None:
        job = ask(lambda connection: _one(make(connection)), no_wait=no_wait, as_json=as_json)
        if given.release and job.ended and not as_json:
            _say_released(job)
        return
    if given.undo_job_id is None:
        raise WrongUseError("Name an agent to roll back, or the job whose agents all are, with --job.")
    if no_wait:
        ask(lambda connection: _all_of(connection, make(connection)), no_wait=True, as_json=as_json)
        return
    ask_for_many(
        lambda connection: _all_of(connection, make(connection)),
        children_of=_children_of,
        called="rollbacks",
        show=_show,
        as_json=as_json,
    )


def _say_released(job: JobSummary) -> None:
    name = plain(_name(job))
    if (job.result or {}).get("released") is True:
        say(
            f"{name} follows its templates again. Deliver them:",
            f"  provisioner update {argument(_name(job))}",
        )
    elif not job.dry_run:
        say(f"No file of {name} was held.")


def _one(given: TypedRollback) -> Rollback:
    return Rollback(**given.model_dump())


def _all_of(connection: Connection, given: TypedRollback) -> RollbackJob:
    """The request for all agents of a job. Raises WrongUseError."""
    assert given.undo_job_id is not None
    try:
        changed = agents_changed_by(connection, given.undo_job_id)
    except BadRequestError as error:
        raise WrongUseError(str(error)) from None
    values = {name: value for name, value in given.model_dump().items() if name in RollbackJob.model_fields}
    return RollbackJob(**values, gateway_id=changed[0].gateway_id)


def _children_of(whole: JobSummary) -> list[UUID]:
    return [UUID(job) for job in (whole.result or {}).get("jobs") or ()]


def _show(whole: JobSummary, jobs: list[JobSummary]) -> None:
    """Print what became, or would become, of each agent."""
    say(_table_of(jobs))
    refused = [f"{plain(_name(job))}: {plain(job.error)}" for job in jobs if job.error]
    if refused:
        say("", *refused)
    for job in jobs:
        show_diffs((job.result or {}).get("files") or {}, of=f"{_name(job)}: ")
    for left in (whole.result or {}).get("left_out") or ():
        note(f"{plain(left['agent_name'] or short(left['agent_id']))} was left out: {left['reason']}.")
    if whole.dry_run:
        say("", "Nothing was written. Do it:", f"  {_again(whole)}")
    else:
        done = counted(len(jobs) - len(refused), "agent")
        if whole.options.get("release") is True:
            say("", f"{done} released: their templates count again from the next update or sync on.")
        else:
            say("", f"{done} rolled back, and held so until --release.")


def _again(whole: JobSummary) -> str:
    words = (command_line(whole, but={"dry_run", "diff", "gateway_id"}) or "").split()
    return " ".join(words)


def _table_of(jobs: list[JobSummary]) -> Table:
    shown = table("Agent", "Status", "Written", "The agent's own", last="Conflicts")
    for job in jobs:
        files = ((job.result or {}).get("files") or {}).values()
        counts = [
            sum(file.get("action") in actions for file in files)
            for actions in (WRITES, ("preserved",), ("conflict",))
        ]
        shown.add_row(
            plain(_name(job)),
            Text(job.status, style=STYLES.get(job.status, "")),
            *([""] * len(counts) if job.error else map(str, counts)),
        )
    return shown


def _name(job: JobSummary) -> str:
    return job.agent_name or str(job.agent_id)


def _list(*, as_json: bool) -> None:
    with engine().connect() as connection:
        rows = [dict(row._mapping) for row in all_held(connection)]
    shown = table("Gateway", "Agent", "File", "Since (UTC)", last="By", folds=True)
    for row in rows:
        by = ", ".join(filter(None, [row["cause"].replace("_", "-"), row["held_by"], short(row["job_id"])]))
        gateway = plain(row["gateway"] or short(row["gateway_id"]))
        shown.add_row(gateway, plain(row["agent"]), plain(row["name"]), f"{row['since']:%Y-%m-%d %H:%M}", by)
    show_list(rows, shown, nothing="No file is held.", as_json=as_json)
