"""``provisioner rollback``: brings back what a job replaced in agents' files."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Connection

from worker.cli.console import (
    Json,
    argument,
    plain,
    say,
    short,
    show_list,
    table,
)
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.cli.job_summary import JobSummary
from worker.cli.options import Make, from_request
from worker.cli.submit import NoWait, ask, ask_for_many
from worker.cli.views.rollbacks import name_of, rollbacks_of, show_rollbacks
from worker.jobs.requests import BadRequestError, Option, Rollback, RollbackJob
from worker.records.file_changes import agents_changed_by
from worker.records.holds import all_held


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
        children_of=rollbacks_of,
        called="rollbacks",
        show=show_rollbacks,
        as_json=as_json,
    )


def _say_released(job: JobSummary) -> None:
    name = plain(name_of(job))
    if (job.result or {}).get("released") is True:
        say(
            f"{name} follows its templates again. Deliver them:",
            f"  provisioner update {argument(name_of(job))}",
        )
    elif not job.dry_run and not job.every_warning:
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


def _list(*, as_json: bool) -> None:
    with engine().connect() as connection:
        rows = [dict(row._mapping) for row in all_held(connection)]
    shown = table("Gateway", "Agent", "Since (UTC)", "By", last="Files", folds=True)
    files: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        by = ", ".join(filter(None, [row["cause"].replace("_", "-"), row["held_by"], short(row["job_id"])]))
        gateway = row["gateway"] or short(row["gateway_id"])
        line = (gateway, row["agent"], f"{row['since']:%Y-%m-%d %H:%M}", by, str(row["agent_id"]))
        files.setdefault(line, []).append(row["name"])
    for (*cells, _), names in files.items():
        shown.add_row(*map(plain, cells), plain(", ".join(names)))
    show_list(rows, shown, nothing="No file is held.", as_json=as_json)
