"""``provisioner adopt``: looks at agents that a gateway has already, and with --yes takes them under care."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from rich.table import Table
from rich.text import Text

from worker.cli.console import Json, counted, plain, say, table
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.cli.job_summary import JobSummary
from worker.cli.options import Make, command_line, from_request
from worker.cli.submit import NoWait, ask, ask_for_many
from worker.cli.views.files import show_diffs
from worker.cli.views.jobs import STYLES
from worker.jobs.requests import AdoptAgent, AdoptGateway, Name, Option


class Adoption(AdoptAgent):
    """What is typed: one agent, or, without an id, all that nobody cares for."""

    openclaw_id: Annotated[
        Name | None,
        Option("OPENCLAW_ID", "The agent's id on the gateway; if left out, all not yet under care."),
    ] = None  # type: ignore[assignment]


@from_request(Adoption)
def adopt(*, make: Make[Adoption], no_wait: NoWait = False, as_json: Json = False) -> None:
    """Adopt agents that a gateway already has: take them under care.

    Without --yes it only shows what that would do. Nothing that differs is written, unless --overwrite-file
    names it: an agent gets its token, and its roster entry, its files and its session stay as they are. Exits
    1 if an agent cannot be adopted.
    """
    with engine().connect() as connection:
        whole = make(connection).openclaw_id is None
    if not whole or no_wait:
        ask(lambda connection: _request(make(connection)), no_wait=no_wait, as_json=as_json)
        return
    ask_for_many(
        lambda connection: _request(make(connection)),
        children_of=_children_of,
        called="adoptions",
        show=_show,
        as_json=as_json,
    )


def _request(given: Adoption) -> AdoptAgent | AdoptGateway:
    """The request for what was typed. Raises WrongUseError."""
    if (given.agent_id is None) == (given.board_id is None):
        raise WrongUseError(
            "Give --agent for the agent that it becomes, or --board for the board that it joins as a new one."
        )
    values = given.model_dump()
    if given.openclaw_id is not None:
        return AdoptAgent(**values)
    if given.board_id is None:
        raise WrongUseError("--agent is for one agent: name it on the gateway too, behind the gateway.")
    return AdoptGateway(
        **{name: value for name, value in values.items() if name in AdoptGateway.model_fields}
    )


def _children_of(whole: JobSummary) -> list[UUID]:
    return [UUID(job["job_id"]) for job in (whole.result or {}).get("jobs") or ()]


def _show(whole: JobSummary, jobs: list[JobSummary]) -> None:
    """Print what became, or would become, of each agent, and how to go on."""
    if not jobs:
        say(f"Every agent of {plain(whole.gateway_name or 'the gateway')} is under care already.")
        return
    say(_list_of(jobs))
    refused = [f"{plain(_id_of(job))}: {plain(job.error)}" for job in jobs if job.error]
    if refused:
        say("", *refused)
    for job in jobs:
        show_diffs((job.result or {}).get("files") or {}, of=f"{_id_of(job)}: ")
    in_care = len((whole.result or {}).get("in_care") or ())
    if in_care:
        say("", f"{counted(in_care, 'agent')} under care already.")
    if whole.dry_run:
        say("", "Nothing was written. Do it:", f"  {command_line(whole, but={'dry_run', 'diff'})} --yes")


def _list_of(jobs: list[JobSummary]) -> Table:
    shown = table("Agent", "Status", "Token", "Identical", "Differs", "Ours", last="Theirs")
    for job in jobs:
        files = ((job.result or {}).get("files") or {}).values()
        counts = [sum(file.get("action") == name for file in files) for name in _ACTIONS]
        shown.add_row(
            plain(_id_of(job)),
            Text(job.status, style=STYLES.get(job.status, "")),
            str((job.result or {}).get("token") or ""),
            *([""] * len(counts) if job.error else map(str, counts)),
        )
    return shown


_ACTIONS = ("unchanged", "conflict", "absent", "theirs")


def _id_of(job: JobSummary) -> str:
    return str(job.options.get("openclaw_id"))
