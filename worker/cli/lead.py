"""``provisioner lead``."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Connection

from worker.cli.ask import REQUESTED_BY, NoWait, RequestId, ask, follow
from worker.cli.console import Json
from worker.cli.lookup import find
from worker.jobs.requests import EnsureBoardLead


def lead(
    board: Annotated[str, typer.Argument(help="Name or id of a board.")],
    name: Annotated[str | None, typer.Option(help="What to call it, in place of 'Lead Agent'.")] = None,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Make or repair the lead of a board and bring it to life. Exit code 1 where that fails.

    A board has one lead. With --json: the job of the request; its result names the job that provisions.
    """

    def make(connection: Connection) -> EnsureBoardLead:
        return EnsureBoardLead(
            board_id=find(connection, "board", board),
            agent_name=name,
            request_id=request,
            requested_by=REQUESTED_BY,
        )

    job = ask(make, request=request, no_wait=no_wait, as_json=as_json)
    provision = (job.result or {}).get("provision_job_id")
    if provision and not no_wait:
        follow(UUID(str(provision)), as_json=as_json, quiet=as_json)
