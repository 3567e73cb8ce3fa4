"""``provisioner heartbeats``."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Connection

from worker.cli.ask import REQUESTED_BY, NoWait, RequestId, ask
from worker.cli.console import Json
from worker.cli.lookup import find
from worker.jobs.requests import SyncHeartbeats


def heartbeats(
    gateway: Annotated[str, typer.Argument(help="Name or id of a gateway.")],
    agents: Annotated[
        list[str] | None,
        typer.Argument(metavar="[AGENT]...", help="Names or ids; without any, all.", show_default=False),
    ] = None,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Bring the heartbeat settings of a gateway's agents to their rows, in one config change."""

    def make(connection: Connection) -> SyncHeartbeats:
        ids = [find(connection, "agent", agent) for agent in agents or ()]
        return SyncHeartbeats(
            gateway_id=find(connection, "gateway", gateway),
            agent_ids=ids or None,
            request_id=request,
            requested_by=REQUESTED_BY,
        )

    ask(make, request=request, no_wait=no_wait, as_json=as_json)
