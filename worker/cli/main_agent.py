"""``provisioner main``: the agent of a gateway itself."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Connection

from worker.cli.ask import REQUESTED_BY, NoWait, RequestId, ask
from worker.cli.console import Json
from worker.cli.lookup import find
from worker.jobs.requests import ProvisionGatewayMain


def main_agent(
    gateway: Annotated[str, typer.Argument(help="Name or id of a gateway.")],
    rotate_tokens: Annotated[
        bool, typer.Option("--rotate-tokens", help="Give the agent a new token.")
    ] = False,
    no_wake: Annotated[bool, typer.Option("--no-wake", help="Do not wake the agent at the end.")] = False,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Make or repair the main agent of a gateway and bring it to life. Exit code 1 where that fails."""

    def make(connection: Connection) -> ProvisionGatewayMain:
        return ProvisionGatewayMain(
            gateway_id=find(connection, "gateway", gateway),
            request_id=request,
            requested_by=REQUESTED_BY,
            rotate_tokens=rotate_tokens,
            wake=not no_wake,
        )

    ask(make, request=request, no_wait=no_wait, as_json=as_json)
