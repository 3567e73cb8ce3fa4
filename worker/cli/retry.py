"""``provisioner retry``."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.ask import REQUESTED_BY, NoWait, follow
from worker.cli.console import Json, emit, note, say, short
from worker.cli.environment import engine
from worker.cli.job_records import document, read_jobs
from worker.cli.lookup import find_job
from worker.jobs import retrying


def retry(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its first digits.")],
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Do again what an ended job left undone, as a new job. Of a sync: the agents that failed, were
    skipped for an error, not attempted or cancelled. Exit code 1 where that fails, or nothing is left."""
    database = engine()
    with database.connect() as connection:
        old = find_job(connection, identity)
    with database.begin() as connection:
        new = retrying.retry(connection, old, requested_by=REQUESTED_BY)
    note(f"Job {short(new)} does again what job {short(old)} left undone.")
    if not no_wait:
        follow(new, as_json=as_json)
        return
    with database.connect() as connection:
        job = read_jobs(connection, [new])[0]
    emit(document(job)) if as_json else say(str(new))
