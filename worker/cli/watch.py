"""Waits for jobs and shows how they get on: a live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text
from sqlalchemy import Engine

from worker.cli.console import note, plain, say, short
from worker.cli.errors import STOPPED
from worker.cli.job_records import JobRecord, read_jobs
from worker.cli.job_view import live_table, progress, subject
from worker.cli.run_watch import NO_WORKER, NO_WORKER_AFTER_S, POLL_S, Check, watch_run


def watch(
    engine: Engine, ids: Sequence[UUID], console: Console, *, check: Check = lambda: None
) -> list[JobRecord]:
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


def watch_one(engine: Engine, job_id: UUID, console: Console) -> JobRecord:
    """Look until the job has ended. Ctrl-C ends the watching, not the job, and says so."""
    try:
        watch_run(engine, job_id, console)
        return watch(engine, [job_id], console)[0]
    except KeyboardInterrupt:
        note(f"Not watched any more; the job goes on: provisioner job {short(job_id)} --watch")
        raise typer.Exit(STOPPED) from None


def _read(engine: Engine, ids: Sequence[UUID]) -> list[JobRecord]:
    with engine.connect() as connection:
        return read_jobs(connection, ids)


def _without_worker(jobs: Sequence[JobRecord]) -> bool:
    return all(job.status == "queued" for job in jobs) and min(job.age_s for job in jobs) > NO_WORKER_AFTER_S


class _LiveView:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, jobs: Sequence[JobRecord]) -> None:
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

    def show(self, jobs: Sequence[JobRecord]) -> None:
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
