"""Jobs in progress: a live view on a terminal, elsewhere a line for each change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Self
from uuid import UUID

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.cli.console import lines, marks, plain, say, took
from worker.cli.job_summary import AgentSummary, JobSummary, Named
from worker.cli.views.jobs import STYLES, subject
from worker.cli.views.progress import (
    NO_WORKER,
    counts,
    doing,
    gateway_of,
    is_at_work,
    progress,
    without_worker,
)

PHASES = ("intent", "roster", "files", "credentials", "wake")
"""The steps of a provision or an update, in order."""
_OTHER_STEPS: Mapping[str, Sequence[str]] = {
    "delete_agent": ("intent", "roster"),
    "adopt_agent": ("files", "credentials"),
}
_BESIDE: Mapping[str, str] = {"leaving": "credentials"}
"""Rare steps, and the step that each comes after."""
_MARKED = {"succeeded": "done", "failed": "failed", "cancelled": "failed", "not_attempted": "failed"}
_MOST_FAILURES = 1000
_NAMES = 3
_BAR = 30


def view_on(console: Console) -> LiveView | LineView:
    """The view that suits the console."""
    return LiveView(console) if console.is_terminal else LineView(console)


class LiveView:
    """A view that is redrawn in place. ``failures``: how many failures of a sync it shows."""

    failures = 3

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, jobs: Sequence[JobSummary]) -> None:
        """Draw the jobs as they are now."""
        self._live.update(live_view(jobs, self._console), refresh=True)


def live_view(jobs: Sequence[JobSummary], console: Console) -> RenderableType:
    """A bar for each sync, and one table of all other jobs."""
    others = [job for job in jobs if not job.is_sync]
    shown: list[RenderableType] = [sync_bar(job, console) for job in jobs if job.is_sync]
    if others:
        listed = live_table(others, console)
        if without_worker(others):
            listed.caption = Text(NO_WORKER, style="yellow")
        shown.append(listed)
    return Group(*shown)


def live_table(jobs: Sequence[JobSummary], console: Console) -> Table:
    """One row for each job about an agent, with its steps as a bar."""
    sign = marks(console)
    shown = lines(pad=2)
    shown.expand = True
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True, overflow="ellipsis", max_width=28)
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True, justify="right", min_width=7)
    shown.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for job in jobs:
        agent = job.agents[0] if job.agents else None
        mark = getattr(sign, _MARKED.get(job.status, "busy" if agent else "ahead"))
        shown.add_row(
            Text(mark, style=STYLES.get(job.status, "dim")),
            plain(subject(job))
            + (" (lead)" if agent and agent.is_board_lead and not job.is_about_many else ""),
            Text(_bar(job, agent, sign.busy, sign.ahead), style="cyan"),
            took(job.took_s),
            Text(progress(job), style="red" if job.status == "failed" else "dim"),
        )
    return shown


def _bar(job: JobSummary, agent: AgentSummary | None, reached: str, ahead: str) -> str:
    steps = _OTHER_STEPS.get(job.kind, PHASES)
    if job.status == "succeeded":
        return reached * len(steps)
    phase = agent.phase if agent else None
    phase = _BESIDE.get(phase or "", phase)
    count = steps.index(phase) + 1 if phase in steps else 0
    return reached * count + ahead * (len(steps) - count)


def sync_bar(job: JobSummary, console: Console) -> RenderableType:
    """The bar with its counts; until the sync has ended, also which agents are at work and what failed last.

    Lines are no wider than the console, and none is ever removed, so that nothing jumps.
    """
    tally = job.tally
    head = Table.grid(padding=(0, 2, 0, 0), expand=True)
    head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    head.add_column(width=_BAR)
    head.add_column(no_wrap=True, justify="right")
    head.add_column(no_wrap=True, justify="right", min_width=7)
    bar = ProgressBar(
        total=max(1, tally.total),
        completed=tally.done,
        width=_BAR,
        complete_style="cyan",
        finished_style="green",
    )
    count = f"{tally.done} of {tally.total}" if tally.total else ""
    head.add_row(_line(gateway_of(job), "bold"), bar, count, took(job.took_s))
    shown: list[RenderableType] = [head, _line(counts(job), "")]
    if job.ended:
        return Group(*shown)
    if without_worker([job]):
        shown.append(_line(NO_WORKER, "yellow", wraps=True))
    else:
        what = doing(job)
        shown.append(_line(f"to be cancelled; {what}" if job.cancel_requested_at else what, "dim"))
    sign = marks(console).failed
    shown += [_line(f"{sign} {agent.name} {agent.status}: {agent.what}", "red") for agent in tally.failures]
    return Group(*shown)


def _line(text: str, style: str, *, wraps: bool = False) -> Text:
    shown = Text("  " + plain(text).replace("\n", " "), style=style)
    if not wraps:
        shown.no_wrap, shown.overflow = True, "ellipsis"
    return shown


class LineView:
    """Lines with the time of day, printed only when there is something new to say."""

    failures = _MOST_FAILURES

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: dict[UUID | None, str] = {}
        self._syncs: dict[UUID, _SyncLines] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, jobs: Sequence[JobSummary]) -> None:
        """Print what is new since the last call."""
        others = [job for job in jobs if not job.is_sync]
        for job in jobs:
            if job.is_sync:
                state = self._syncs.setdefault(job.id, _SyncLines())
                for line in state.lines(job):
                    self._say(f"{plain(gateway_of(job))}: {plain(line)}".replace("\n", " "))
            else:
                how = ", ".join(filter(None, [job.status if job.ended else "", progress(job)]))
                # A wait that only grows shorter is not news.
                self._say_once(job.id, how.split(", again in")[0], f"{plain(subject(job) or job.id)}: {how}")
        if without_worker(others):
            self._say_once(None, NO_WORKER, NO_WORKER)

    def _say_once(self, about: UUID | None, state: str, line: str) -> None:
        if self._printed.get(about) != state:
            self._printed[about] = state
            self._say(line)

    def _say(self, line: str) -> None:
        say(f"{datetime.now():%H:%M:%S}  {line}", console=self._console)


class _SyncLines:
    """The lines printed for one sync: one for every tenth of its agents, every failure and every wait."""

    def __init__(self) -> None:
        self._tenth = -1
        self._failed: set[UUID] = set()
        self._waits: str | None = None

    def lines(self, job: JobSummary) -> Iterator[str]:
        """What is new since the last call."""
        tally = job.tally
        yield from self._failures(tally.failures)
        if job.ended:
            yield f"{job.status}, {tally.done} of {tally.total} agents: {counts(job)}"
            return
        if tally.done == 0:
            if is_at_work(job):
                # The agents in hand change all the time: that there are some is said once.
                yield from self._wait(f"{tally.in_hand} at work", "at work")
            else:
                what = NO_WORKER if without_worker([job]) else doing(job)
                yield from self._wait(what, what)
            return
        if job.wait_reason:
            yield from self._wait(job.wait_reason, job.wait_reason)
        tenth = tally.done * 10 // tally.total
        if tenth > self._tenth:
            self._tenth = tenth
            yield f"{tally.done} of {tally.total} agents: {counts(job)}"

    def _failures(self, failures: Sequence[Named]) -> Iterator[str]:
        same: dict[tuple[str, str], list[str]] = {}
        for agent in reversed(failures):
            if agent.agent_id not in self._failed:
                self._failed.add(agent.agent_id)
                same.setdefault((agent.status, agent.what), []).append(agent.name)
        for (status, what), names in same.items():
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            yield f"{', '.join(names[:_NAMES])}{more} {status}: {what}"

    def _wait(self, what: str, state: str) -> Iterator[str]:
        """Say ``what``, unless ``state`` was said last."""
        if state and state != self._waits:
            self._waits = state
            yield what
