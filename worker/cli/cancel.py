"""``provisioner cancel``."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.ask import NoWait, present
from worker.cli.console import Json, complain, emit, err, note, out, say, short
from worker.cli.environment import engine
from worker.cli.errors import FAILED
from worker.cli.job_records import document, read_jobs
from worker.cli.lookup import find_job
from worker.cli.watch import watch_one
from worker.jobs import cancelling


def cancel(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its first digits.")],
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Cancel a job: at once, or as soon as those at work on it are done. Exit code 1 where it came to another
    end."""
    database = engine()
    with database.connect() as connection:
        key = find_job(connection, identity)
    with database.begin() as connection:
        ended = cancelling.cancel(connection, key)
    if not ended and not no_wait:
        note(f"Job {short(key)} is to be cancelled: those at work on it come to their end first.")
        job = watch_one(database, key, err if as_json else out)
    else:
        with database.connect() as connection:
            job = read_jobs(connection, [key])[0]
    if as_json:
        emit(document(job))
    elif not job.ended:
        say(str(job.id))
    elif ended:
        say(f"Job {short(key)} is cancelled: nothing of it was at work.")
    else:
        present(job)
    if job.ended and job.status != "cancelled":
        complain("It had come to its end before the cancel took hold.")
        raise typer.Exit(FAILED)
