"""Submits an operator's request as a job, waits for it, and shows how it gets on and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text
from sqlalchemy import Connection, Engine

from worker.cli.console import emit, err, note, out, plain, say, short
from worker.cli.environment import engine
from worker.cli.errors import FAILED, STOPPED, WrongUseError
from worker.cli.job_summary import JobSummary, document, read_jobs
from worker.cli.views.jobs import live_table, progress, show_job, subject
from worker.cli.views.live import NO_WORKER, NO_WORKER_AFTER_S, POLL_S, Check, watch_run
from worker.cli.views.plans import show_plan
from worker.cli.views.syncs import show_run
from worker.jobs.ledger import enqueue
from worker.jobs.requests import Request

REQUESTED_BY = "cli"

RequestId = Annotated[
    str | None,
    typer.Option("--request", metavar="ID", help="Make it once: the same ID again finds the same job."),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")]
Board = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Only this board's agents: its name or id.", show_default=False),
]
NoMain = Annotated[bool, typer.Option("--no-main", help="Leave the gateway's main agent out.")]
NoWake = Annotated[bool, typer.Option("--no-wake", help="Do not wake the agent at the end.")]
Diff = Annotated[
    bool,
    typer.Option(
        "--diff",
        help="Show differences line by line, credentials masked: with --dry-run of what would be written,"
        " without it of what was.",
    ),
]
RotateTokens = Annotated[
    bool, typer.Option("--rotate-tokens", help="Give new tokens, also to those whose own is right.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Also replace what is an agent's own: USER.md, MEMORY.md.")
]
ForceBootstrap = Annotated[bool, typer.Option("--force-bootstrap", help="Write BOOTSTRAP.md again.")]
ResetSessions = Annotated[bool, typer.Option("--reset-sessions", help="Begin a new session of every agent.")]


def ask(
    make: Callable[[Connection], Request], *, request: str | None, no_wait: bool, as_json: bool
) -> JobSummary:
    """Enqueue what ``make`` returns and wait for its end, unless ``no_wait``; show it.

    ``request``: the id that ``make`` gave it, checked here before anything is looked up. Ends the command
    with exit code 1 where the job does not succeed. Raises WrongUseError, RequestConflictError.
    """
    if request is not None and not request.strip():
        raise WrongUseError("--request needs an id that is not blank.")
    database = engine()
    with database.begin() as connection:
        enqueued = enqueue(connection, make(connection))
    if not enqueued.created:
        note(f"Request {request!r} was made before: this is its job.")
    if no_wait:
        with database.connect() as connection:
            job = read_jobs(connection, [enqueued.job_id])[0]
        emit(document(job)) if as_json else say(str(job.id))
        return job
    return follow(enqueued.job_id, as_json=as_json)


def follow(job_id: UUID, *, as_json: bool, quiet: bool = False) -> JobSummary:
    """Wait for the job's end and show it, unless ``quiet``. Ends the command with exit code 1 where it does
    not succeed."""
    job = watch_one(engine(), job_id, err if as_json else out)
    if as_json and not quiet:
        emit(document(job))
    elif not quiet:
        present(job)
    if job.status != "succeeded":
        raise typer.Exit(FAILED)
    return job


def present(job: JobSummary) -> None:
    """Show a job on a page; a dry run that came to its end as the plan that it made."""
    if job.kind == "sync_gateway":
        show_run(job)
    elif job.status == "succeeded" and (job.result or {}).get("dry_run") is True:
        show_plan(job)
    else:
        show_job(job)


def watch(
    engine: Engine, ids: Sequence[UUID], console: Console, *, check: Check = lambda: None
) -> list[JobSummary]:
    """Look until every job has ended; return them as they ended."""
    jobs = _read(engine, ids)
    if all(job.ended for job in jobs):
        return jobs
    view: _LiveView | _PlainView = _LiveView(console) if console.is_terminal else _PlainView(console)
    with view:
        while True:
            view.show(jobs)
            if all(job.ended for job in jobs):
                return jobs
            check()
            time.sleep(POLL_S)
            jobs = _read(engine, ids)


def watch_one(engine: Engine, job_id: UUID, console: Console) -> JobSummary:
    """Look until the job has ended. Ctrl-C ends the watching, not the job, and says so."""
    try:
        watch_run(engine, job_id, console)
        return watch(engine, [job_id], console)[0]
    except KeyboardInterrupt:
        note(f"Not watched any more; the job goes on: provisioner job {short(job_id)} --watch")
        raise typer.Exit(STOPPED) from None


def _read(engine: Engine, ids: Sequence[UUID]) -> list[JobSummary]:
    with engine.connect() as connection:
        return read_jobs(connection, ids)


def _without_worker(jobs: Sequence[JobSummary]) -> bool:
    return all(job.status == "queued" for job in jobs) and min(job.age_s for job in jobs) > NO_WORKER_AFTER_S


class _LiveView:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, jobs: Sequence[JobSummary]) -> None:
        shown = live_table(jobs, self._console)
        if _without_worker(jobs):
            shown.caption = Text(NO_WORKER, style="yellow")
        self._live.update(shown, refresh=True)


class _PlainView:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[UUID | None, str] = {}

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, jobs: Sequence[JobSummary]) -> None:
        for job in jobs:
            name = subject(job) or str(job.id)
            status = job.status if job.ended else None
            how = progress(job)
            self._say(job.id, f"{plain(name)}: {f'{status}, ' if status else ''}{how}", key=f"{status}{how}")
        if _without_worker(jobs):
            self._say(None, NO_WORKER)

    def _say(self, about: UUID | None, line: str, key: str | None = None) -> None:
        # A wait that only grows shorter is not news.
        news = (key or line).split(", again in")[0]
        if self._said.get(about) != news:
            self._said[about] = news
            say(f"{datetime.now():%H:%M:%S}  {line}", console=self._console)
