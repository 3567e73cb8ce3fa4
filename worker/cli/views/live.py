"""Jobs while they are waited for: a picture on a terminal, a line for each piece of news elsewhere."""

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

from worker.cli.console import counted, lines, marks, plain, say, took
from worker.cli.job_summary import AgentSummary, JobSummary, Named
from worker.cli.views.jobs import STYLES, phase_and_reason, removed, subject

NO_WORKER = "No worker has picked this up. Is `celery -A worker.app worker` running against this database?"
NO_WORKER_AFTER_S = 5.0
PHASES = ("intent", "roster", "files", "credentials", "wake")
"""The steps of a provision or an update, in order."""
_OTHER_STEPS: Mapping[str, Sequence[str]] = {"delete_agent": ("intent", "roster")}
_BESIDE: Mapping[str, str] = {"leaving": "credentials"}
"""Steps that few jobs have, and the one that each comes after."""
_MARKED = {"succeeded": "done", "failed": "failed", "cancelled": "failed", "not_attempted": "failed"}
_MOST_FAILURES = 1000
_NAMES = 3
_BAR = 30


def view_on(console: Console) -> LiveView | LineView:
    """The view that suits the console."""
    return LiveView(console) if console.is_terminal else LineView(console)


class LiveView:
    """A picture that is drawn anew in place. ``failures``: how many failures of a sync it shows."""

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
        self._live.update(picture(jobs, self._console), refresh=True)


def picture(jobs: Sequence[JobSummary], console: Console) -> RenderableType:
    """A bar for each sync, and one table of all other jobs."""
    others = [job for job in jobs if not job.is_sync]
    shown: list[RenderableType] = [sync_bar(job, console) for job in jobs if job.is_sync]
    if others:
        listed = live_table(others, console)
        if _without_worker(others):
            listed.caption = Text(NO_WORKER, style="yellow")
        shown.append(listed)
    return Group(*shown)


def live_table(jobs: Sequence[JobSummary], console: Console) -> Table:
    """Jobs about one agent: a row each, its steps as a bar."""
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
            plain(subject(job)) + (" (lead)" if agent and agent.is_board_lead else ""),
            Text(_bar(job, agent, sign.busy, sign.ahead), style="cyan"),
            took(job.took_s),
            Text(progress(job), style="red" if job.status == "failed" else "dim"),
        )
    return shown


def progress(job: JobSummary) -> str:
    """How far a job other than a sync is, in a few words."""
    if job.ended:
        return plain(job.error or _summary(job)).split("\n")[0]
    if not job.agents:
        return "waiting for a worker"
    if job.is_about_many:
        return f"{job.agents_done} of {job.agents_total} agents done"
    return plain(phase_and_reason(job.agents[0]))


def _summary(job: JobSummary) -> str:
    result = job.result or {}
    if "removed" in result and job.status == "succeeded":
        return f"removed {removed(job, 'its gateway')}" if result["removed"] else removed(job, "its gateway")
    if "updated" in result and job.status == "succeeded":
        return f"{counted(result['updated'], 'agent')} as their rows want them"
    if "created" in result:
        return "made" if result["created"] else "there was one"
    if result.get("dry_run"):
        return "planned, nothing written"
    actions = [str(file.get("action")) for agent in job.agents for file in agent.files.values()]
    written = sum(action in ("create", "update") for action in actions)
    parts = [f"{counted(written, 'file')} written" if written else "no file differed"]
    if result.get("woken"):
        parts.append("woken")
    if job.warnings:
        parts.append(counted(len(job.warnings), "warning"))
    return job.status if job.status != "succeeded" else ", ".join(parts)


def _bar(job: JobSummary, agent: AgentSummary | None, reached: str, ahead: str) -> str:
    steps = _OTHER_STEPS.get(job.kind, PHASES)
    if job.status == "succeeded":
        return reached * len(steps)
    phase = agent.phase if agent else None
    phase = _BESIDE.get(phase or "", phase)
    count = steps.index(phase) + 1 if phase in steps else 0
    return reached * count + ahead * (len(steps) - count)


def sync_bar(job: JobSummary, console: Console) -> RenderableType:
    """The bar with its counts; until the sync ends also who is at work and what failed last. No line is wider
    than the console and none is ever taken away, so that nothing jumps."""
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
    head.add_row(_line(_gateway(job), "bold"), bar, count, took(job.took_s))
    shown: list[RenderableType] = [head, _line(counts(job), "")]
    if job.ended:
        return Group(*shown)
    if _without_worker([job]):
        shown.append(_line(NO_WORKER, "yellow", wraps=True))
    else:
        what = doing(job)
        shown.append(_line(f"to be cancelled; {what}" if job.cancel_requested_at else what, "dim"))
    sign = marks(console).failed
    shown += [_line(f"{sign} {agent.name} {agent.status}: {agent.what}", "red") for agent in tally.failures]
    return Group(*shown)


def counts(job: JobSummary) -> str:
    """``30 need nothing, 3 changed, 1 failed``; zeros are left out, but something is always said."""
    if job.status == "queued":
        return "not begun yet"
    tally = job.tally
    told = [
        (tally.unchanged, "need nothing"),
        (tally.changed, "would change" if job.dry_run else "changed"),
        (tally.failed, "failed"),
        (tally.skipped, "skipped"),
        (tally.paused, "paused"),
        (tally.not_attempted, "not attempted"),
        (tally.cancelled, "cancelled"),
    ]
    return ", ".join(f"{count} {word}" for count, word in told if count) or "none done yet"


def doing(job: JobSummary) -> str:
    """Who is at work on a sync, or what it waits for."""
    tally = job.tally
    if job.status == "queued":
        waits = job.phase == "waiting"
        return "waits for another sync of this gateway" if waits else "waiting for a worker"
    if job.error:
        return job.error
    if job.phase == "look":
        return "looking at the gateway"
    if job.phase == "roster":
        return "waiting for the roster writer"
    if tally.at_work:
        names = ", ".join(f"{agent.name} ({agent.what})" for agent in tally.at_work)
        more = tally.in_hand - len(tally.at_work)
        return f"at work: {names}{f' and {more} more' if more > 0 else ''}"
    if tally.waiting:
        return f"{tally.waiting} wait: {tally.waits_for}"
    return "the main agent" if tally.done >= tally.total and tally.main else ""


def _line(text: str, style: str, *, wraps: bool = False) -> Text:
    shown = Text("  " + plain(text).replace("\n", " "), style=style)
    if not wraps:
        shown.no_wrap, shown.overflow = True, "ellipsis"
    return shown


class LineView:
    """Lines with the time of day: each says something that none said before."""

    failures = _MOST_FAILURES

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[UUID | None, str] = {}
        self._syncs: dict[UUID, _SyncNews] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, jobs: Sequence[JobSummary]) -> None:
        """Say what is new since the last call."""
        others = [job for job in jobs if not job.is_sync]
        for job in jobs:
            if job.is_sync:
                news = self._syncs.setdefault(job.id, _SyncNews())
                for line in news.lines(job):
                    self._say(f"{plain(_gateway(job))}: {plain(line)}".replace("\n", " "))
            else:
                how = ", ".join(filter(None, [job.status if job.ended else "", progress(job)]))
                # A wait that only grows shorter is not news.
                self._say_once(job.id, how.split(", again in")[0], f"{plain(subject(job) or job.id)}: {how}")
        if _without_worker(others):
            self._say_once(None, NO_WORKER, NO_WORKER)

    def _say_once(self, about: UUID | None, news: str, line: str) -> None:
        if self._said.get(about) != news:
            self._said[about] = news
            self._say(line)

    def _say(self, line: str) -> None:
        say(f"{datetime.now():%H:%M:%S}  {line}", console=self._console)


class _SyncNews:
    """What was said of one sync: a line for every tenth of its agents, for every failure and every wait."""

    def __init__(self) -> None:
        self._tenth = -1
        self._failed: set[UUID] = set()
        self._waits: str | None = None

    def lines(self, job: JobSummary) -> Iterator[str]:
        """What is new."""
        tally = job.tally
        yield from self._failures(tally.failures)
        if job.ended:
            yield f"{job.status}, {tally.done} of {tally.total} agents: {counts(job)}"
            return
        if tally.done == 0:
            yield from self._wait(job, NO_WORKER if _without_worker([job]) else doing(job))
            return
        if job.error:
            yield from self._wait(job, job.error)
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

    def _wait(self, job: JobSummary, what: str) -> Iterator[str]:
        # Who is at work changes all the time; that somebody is, is said once.
        news = "at work" if what.startswith("at work") else what
        if what and news != self._waits:
            self._waits = news
            yield f"{job.tally.in_hand} at work" if news == "at work" else what


def _gateway(job: JobSummary) -> str:
    return job.gateway_name or str(job.gateway_id or "")


def _without_worker(jobs: Sequence[JobSummary]) -> bool:
    """Whether no worker has begun any of them for long enough to be told."""
    return bool(jobs) and all(
        job.status == "queued" and job.phase != "waiting" and job.age_s > NO_WORKER_AFTER_S for job in jobs
    )
