"""Waits for a sync: one bar on a terminal, a line for every tenth and every failure elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from worker.cli.console import marks, plain, say, took
from worker.cli.run_progress import RunProgress, read_progress

POLL_S = 0.25
SHARE = 0.1
"""Of the time that a look may take: one that takes long comes the less often."""
NO_WORKER_AFTER_S = 5.0
NO_WORKER = "No worker has taken it yet: does `celery -A worker.app worker` run, with the same database?"
_MOST_TOLD = 1000
_NAMES = 3
_BAR = 30

Check = Callable[[], None]
"""Called at each look; raises what should end the waiting."""


def watch_run(engine: Engine, job_id: UUID, console: Console, *, check: Check = lambda: None) -> bool:
    """Look until the sync has ended. False, at once, where the job is none."""
    view: _LiveView | _PlainView = _LiveView(console) if console.is_terminal else _PlainView(console)

    def look() -> tuple[RunProgress | None, float]:
        began = time.monotonic()
        with engine.connect() as connection:
            run = read_progress(connection, job_id, failures=view.failures)
        return run, time.monotonic() - began

    run, cost_s = look()
    if run is None or run.ended:
        return run is not None
    with view:
        while run is not None:
            view.show(run)
            if run.ended:
                break
            check()
            time.sleep(max(POLL_S, cost_s / SHARE))
            run, cost_s = look()
    return True


def counts(run: RunProgress) -> str:
    """``30 need nothing, 3 changed, 1 failed``; zeros are left out, but something is always said."""
    if run.status == "queued":
        return "not begun yet"
    told = [
        (run.unchanged, "need nothing"),
        (run.changed, "would change" if run.dry_run else "changed"),
        (run.failed, "failed"),
        (run.skipped, "skipped"),
        (run.paused, "paused"),
        (run.not_attempted, "not attempted"),
        (run.cancelled, "cancelled"),
    ]
    return ", ".join(f"{count} {word}" for count, word in told if count) or "none done yet"


def doing(run: RunProgress) -> str:
    """Who is at work, or what the run waits for."""
    if run.status == "queued":
        waits = run.phase == "waiting"
        return "waits for another sync of this gateway" if waits else "waiting for a worker"
    if run.error:
        return run.error
    if run.phase == "look":
        return "looking at the gateway"
    if run.phase == "roster":
        return "waiting for the roster writer"
    named = ", ".join(f"{item.name} ({item.what})" for item in run.at_work)
    more = f" and {run.in_hand - len(run.at_work)} more" if run.in_hand > len(run.at_work) else ""
    if named:
        return f"at work: {named}{more}"
    if run.waiting:
        return f"{run.waiting} wait: {run.waits_for}"
    return "the main agent" if run.done >= run.total and run.main else ""


class _LiveView:
    failures = 3

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, run: RunProgress) -> None:
        self._live.update(picture(run, self._console), refresh=True)


def picture(run: RunProgress, console: Console) -> RenderableType:
    """The bar with its counts; while the run goes on also who is at work and what failed last. Every line is
    as wide as the console at most, and none is ever taken away, so that nothing jumps."""
    head = Table.grid(padding=(0, 2, 0, 0), expand=True)
    head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    head.add_column(width=_BAR)
    head.add_column(no_wrap=True, justify="right")
    head.add_column(no_wrap=True, justify="right", min_width=7)
    bar = ProgressBar(
        total=max(1, run.total), completed=run.done, width=_BAR, complete_style="cyan", finished_style="green"
    )
    count = f"{run.done} of {run.total}" if run.total else ""
    head.add_row(_line(run.gateway, "bold"), bar, count, took(run.took_s))
    shown: list[RenderableType] = [head, _line(counts(run), "")]
    if run.ended:
        return Group(*shown)
    what = doing(run)
    if run.status == "queued" and run.age_s > NO_WORKER_AFTER_S and run.phase != "waiting":
        shown += [_line(NO_WORKER, "yellow", wraps=True)]
    else:
        shown.append(_line(f"to be cancelled; {what}" if run.cancel_requested else what, "dim"))
    sign = marks(console).failed
    shown += [_line(f"{sign} {item.name} {item.status}: {item.what}", "red") for item in run.failures]
    return Group(*shown)


def _line(text: str, style: str, *, wraps: bool = False) -> Text:
    shown = Text("  " + plain(text).replace("\n", " "), style=style)
    if not wraps:
        shown.no_wrap, shown.overflow = True, "ellipsis"
    return shown


class _PlainView:
    failures = _MOST_TOLD

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tenth = -1
        self._told: set[UUID] = set()
        self._waits: str | None = None

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, run: RunProgress) -> None:
        self._tell_failures(run)
        if run.ended:
            self._say(run, f"{run.status}, {run.done} of {run.total} agents: {counts(run)}")
            return
        if run.total == 0 or run.done == 0:
            late = run.status == "queued" and run.age_s > NO_WORKER_AFTER_S and run.phase != "waiting"
            self._wait(run, NO_WORKER if late else doing(run))
            return
        if run.error:
            self._wait(run, run.error)
        tenth = run.done * 10 // run.total
        if tenth > self._tenth:
            self._tenth = tenth
            self._say(run, f"{run.done} of {run.total} agents: {counts(run)}")

    def _tell_failures(self, run: RunProgress) -> None:
        same: dict[tuple[str, str], list[str]] = {}
        for item in reversed(run.failures):
            if item.agent_id not in self._told:
                self._told.add(item.agent_id)
                same.setdefault((item.status, item.what), []).append(item.name)
        for (status, what), names in same.items():
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            self._say(run, f"{', '.join(names[:_NAMES])}{more} {status}: {what}")

    def _wait(self, run: RunProgress, what: str) -> None:
        # Who is at work changes all the time; that somebody is, is said once.
        news = "at work" if what.startswith("at work") else what
        if what and news != self._waits:
            self._waits = news
            self._say(run, f"{run.in_hand} at work" if news == "at work" else what)

    def _say(self, run: RunProgress, line: str) -> None:
        said = f"{datetime.now():%H:%M:%S}  {plain(run.gateway)}: {plain(line)}".replace("\n", " ")
        say(said, console=self._console)
