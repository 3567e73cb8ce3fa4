"""``provisioner provision``."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Connection

from worker.cli.ask import REQUESTED_BY, ForceBootstrap, NoWait, NoWake, RequestId, ask
from worker.cli.console import Json
from worker.cli.lookup import find
from worker.jobs.requests import ProvisionAgent


def provision(
    agent: Annotated[str, typer.Argument(help="Name or id of a board agent.")],
    no_wake: NoWake = False,
    no_reset: Annotated[bool, typer.Option("--no-reset", help="Keep the agent's session.")] = False,
    force_bootstrap: ForceBootstrap = False,
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
