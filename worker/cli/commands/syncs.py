"""``provisioner sync`` and ``provisioner heartbeats``: jobs about all agents of a gateway."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Connection

from worker.cli.console import Json
from worker.cli.errors import FAILED
from worker.cli.lookup import find
from worker.cli.submit import (
    REQUESTED_BY,
    Board,
    Diff,
    ForceBootstrap,
    NoMain,
    NoWait,
    Overwrite,
    RequestId,
    ResetSessions,
    RotateTokens,
    ask,
)
from worker.jobs.requests import SyncGateway, SyncHeartbeats
from worker.provisioning.sync.result import drifted


def sync(
    gateway: Annotated[str, typer.Argument(help="Name or id of a gateway.")],
    board: Board = None,
    no_main: NoMain = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what a run would change; exit code 1 if anything.")
    ] = False,
    diff: Diff = False,
    reset_sessions: ResetSessions = False,
    rotate_tokens: RotateTokens = False,
    force_bootstrap: ForceBootstrap = False,
    overwrite: Overwrite = False,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Bring all agents of a gateway to their templates and rows. Wakes nobody. Exit code 1 where not all came
    to it, and for a dry run that finds anything to change."""

    def make(connection: Connection) -> SyncGateway:
        return SyncGateway(
            gateway_id=find(connection, "gateway", gateway),
            board_id=None if board is None else find(connection, "board", board),
            include_main=not no_main,
            dry_run=dry_run,
            diff=diff,
            reset_sessions=reset_sessions,
            rotate_tokens=rotate_tokens,
            force_bootstrap=force_bootstrap,
            overwrite=overwrite,
            request_id=request,
            requested_by=REQUESTED_BY,
        )

    job = ask(make, request=request, no_wait=no_wait, as_json=as_json)
    if dry_run and not no_wait and drifted(job.result or {}):
        raise typer.Exit(FAILED)


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
