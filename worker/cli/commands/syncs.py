"""``provisioner sync``, whose dry run exits 1 if it finds anything to change; with --canary a roll-out."""

from __future__ import annotations

import re
from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy import Connection

from worker.cli.console import Json
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.lookup import find
from worker.cli.options import Make, from_request
from worker.cli.submit import NoWait, ask
from worker.jobs.requests import BadRequestError, Option, RollOut, SyncGateway, Text, canary_of
from worker.sync.result import drifted


class TypedSync(RollOut):
    """What is typed: a sync of one gateway, or with a canary a roll-out."""

    canary: Annotated[
        Text | None,
        Option(
            "--canary",
            "Roll out in rings: first to 3 agents, 5%, or those named, then in steps of growing size.",
            "3|5%|NAMES",
        ),
    ] = None  # type: ignore[assignment]
    wait: Annotated[
        Text | None,
        Option("--wait", "How long each ring waits for a good run of each agent; 10m if left out.", "TIME"),
    ] = None  # type: ignore[assignment]
    max_failed: Annotated[
        Text | None, Option("--max-failed", "Stop once so many agents failed; 1 if left out.", "N")
    ] = None  # type: ignore[assignment]


ROLL_OUT_ONLY = tuple(name for name in RollOut.model_fields if name not in SyncGateway.model_fields)


def request_of(connection: Connection, typed: TypedSync) -> SyncGateway | RollOut:
    """The request for what was typed. Raises WrongUseError."""
    values = {name: value for name, value in typed.model_dump().items() if value is not None}
    if typed.canary is None:
        extra = [name for name in ROLL_OUT_ONLY if values.get(name)]
        if extra:
            named = ", ".join("further gateways" if name == "gateways" else _option(name) for name in extra)
            raise WrongUseError(f"For a roll-out alone: {named}. Say with --canary who comes first.")
        return SyncGateway(**{name: values[name] for name in SyncGateway.model_fields if name in values})
    try:
        canary_of(typed.canary)
    except ValueError:
        values["canary"] = _ids(connection, typed.canary)
    try:
        request, _ = RollOut.parse(values)
    except BadRequestError as error:
        raise WrongUseError(str(error).removeprefix(f"tasks.{RollOut.kind}: ")) from None
    return request


def _ids(connection: Connection, names: str) -> str:
    """The ids of the agents whose names stand there with commas in between. Raises WrongUseError."""
    given = [name.strip() for name in names.split(",")]
    if not all(given) or any(re.fullmatch(r"[-+%.\d]+", name) for name in given):
        raise WrongUseError(
            f"--canary {names!r}: say how many, from 1 to 99999, a part, like 5%, or name agents, with commas"
            " in between."
        )
    found: list[UUID] = [find(connection, "agent", name) for name in given]
    return ",".join(map(str, found))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@from_request(TypedSync)
def sync(*, make: Make[TypedSync], no_wait: NoWait = False, as_json: Json = False) -> None:
    """Bring all agents of a gateway up to date with templates and rows. Wakes none.

    With --canary, what changes reaches the agents of one or more gateways ring by ring, and that stops once
    too many have failed. Exits 1 if any agent was not synced, or if a dry run finds anything to change.
    """
    job = ask(lambda connection: request_of(connection, make(connection)), no_wait=no_wait, as_json=as_json)
    result: dict[str, Any] = dict(job.result or {})
    if job.dry_run and not no_wait and (drifted(result) or result.get("agents_total")):
        raise typer.Exit(FAILED)
