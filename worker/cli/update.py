"""``provisioner update``."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Connection

from worker.cli.ask import (
    REQUESTED_BY,
    Diff,
    ForceBootstrap,
    NoWait,
    NoWake,
    Overwrite,
    RequestId,
    RotateTokens,
    ask,
)
from worker.cli.console import Json
from worker.cli.lookup import find
from worker.jobs.requests import UpdateAgent


def update(
    agent: Annotated[str, typer.Argument(help="Name or id of an agent.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what a run would change, and change nothing.")
    ] = False,
    diff: Diff = False,
    rotate_tokens: RotateTokens = False,
    overwrite: Overwrite = False,
    force_bootstrap: ForceBootstrap = False,
    reset_session: Annotated[
        bool, typer.Option("--reset-session", help="Begin a new session: some releases show new files then.")
    ] = False,
    no_wake: NoWake = False,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Bring an agent's files and its roster entry up to date. Exit code 1 where that fails."""

    def make(connection: Connection) -> UpdateAgent:
        return UpdateAgent(
            agent_id=find(connection, "agent", agent),
            request_id=request,
            requested_by=REQUESTED_BY,
            dry_run=dry_run,
            diff=diff,
            rotate_tokens=rotate_tokens,
            overwrite=overwrite,
            force_bootstrap=force_bootstrap,
            reset_session=reset_session,
            wake=not no_wake,
        )

    ask(make, request=request, no_wait=no_wait, as_json=as_json)
