"""``provisioner sync``, whose dry run exits 1 if it finds anything to change."""

from __future__ import annotations

import typer

from worker.cli.console import Json
from worker.cli.errors import FAILED
from worker.cli.options import Make, from_request
from worker.cli.submit import NoWait, ask
from worker.jobs.requests import SyncGateway
from worker.sync.result import drifted


@from_request(SyncGateway)
def sync(*, make: Make[SyncGateway], no_wait: NoWait = False, as_json: Json = False) -> None:
    """Bring all agents of a gateway up to date with templates and rows. Wakes none.

    Exits 1 if any agent was not synced, or if a dry run finds anything to change.
    """
    job = ask(make, no_wait=no_wait, as_json=as_json)
    if job.dry_run and not no_wait and drifted(job.result or {}):
        raise typer.Exit(FAILED)
