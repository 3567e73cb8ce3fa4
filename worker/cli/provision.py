"""``provisioner provision``."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Connection

from worker.cli.ask import REQUESTED_BY, NoWait, RequestId, ask
from worker.cli.lookup import find
from worker.cli.screen import Json
from worker.jobs.requests import ProvisionAgent


def provision(
    agent: Annotated[str, typer.Argument(help="Name or id of a board agent.")],
    no_wake: Annotated[bool, typer.Option("--no-wake", help="Do not wake the agent at the end.")] = False,
    no_reset: Annotated[bool, typer.Option("--no-reset", help="Keep the agent's session.")] = False,
    force_bootstrap: Annotated[
        bool, typer.Option("--force-bootstrap", help="Write BOOTSTRAP.md again.")
    ] = False,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Bring an agent to life on its gateway, and wait until it is. Exit code 1 where that fails."""

    def make(connection: Connection) -> ProvisionAgent:
        return ProvisionAgent(
            agent_id=find(connection, "agent", agent),
            request_id=request,
            requested_by=REQUESTED_BY,
            wake=not no_wake,
            reset_session=not no_reset,
            force_bootstrap=force_bootstrap,
        )

    ask(make, request=request, no_wait=no_wait, as_json=as_json)
