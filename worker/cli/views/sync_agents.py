"""What became of each agent of a sync, in words, and the lines of a table that tell it.

Whoever needed nothing is counted and not listed; many whose news is the same share a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from rich.table import Table
from rich.text import Text

from worker.cli.console import lines, plain
from worker.cli.job_summary import AgentSummary, JobSummary
from worker.cli.views.plans import roster_changes
from worker.errors import as_sentence
from worker.provisioning.sync.result import Row

MOST_LINES = 40
"""No page lists more; ``--json`` has them all."""
_WRITES = ("create", "update")
_NAMES = 3
_SHARED = {"updated": 6, "failed": 12, "skipped": 12}
"""From so many agents on the same news is told in one line; paused and those left over, from two."""
_STYLES = {"failed": "red", "skipped": "yellow", "not attempted": "yellow", "cancelled": "yellow"}
_ORDER = ("failed", "skipped", "not attempted", "cancelled", "paused", "deleted", "updated")
_CAUSES: Mapping[str, str] = {
    "templates": "templates or facts",
    "agent": "on the gateway",
    "both": "both sides",
}


@dataclass(frozen=True)
class News:
    """One agent that is not as it was, or not as it should be."""

    agent: str
    board: str
    status: str
    what: str


@dataclass(frozen=True)
class Tally:
    """The agents of a run by how they fare, the main one aside; files and roster entries of all."""

    total: int
    updated: int
    unchanged: int
    skipped: int
    paused: int
    failed: int
    not_attempted: int
    cancelled: int
    written: int
    unchanged_files: int
    preserved: int
    unsupported: int
    roster: int

    @property
    def done(self) -> int:
        """Agents that are over with."""
        return self.updated + self.skipped + self.failed + self.not_attempted + self.cancelled


def row_of(record: AgentSummary) -> Row:
    """The record as the result's rules know it."""
    return Row(
        record.agent_id,
        record.name,
        record.board_id,
        record.is_main,
        record.status,
        record.phase,
        record.reason,
        record.warnings,
        record.files,
        record.roster,
    )


def tally(agents: Sequence[AgentSummary]) -> Tally:
    """Count, as the result does."""
    every = [row_of(record) for record in agents]
    rows = [row for row in every if not row.is_main]

    def having(status: str) -> int:
        return sum(row.status == status for row in rows)

    return Tally(
        total=len(rows),
        updated=having("succeeded"),
        unchanged=sum(row.unchanged for row in rows),
        skipped=having("skipped"),
        paused=sum(row.paused for row in rows),
        failed=having("failed"),
        not_attempted=having("not_attempted"),
        cancelled=having("cancelled"),
        written=sum(row.count(*_WRITES) for row in every),
        unchanged_files=sum(row.count("unchanged") for row in every),
        preserved=sum(row.count("preserved") for row in every),
        unsupported=sum(row.count("unsupported") for row in every),
        roster=sum((row.roster or {}).get("action") in _WRITES for row in every),
    )


def news(job: JobSummary) -> list[News]:
    """The agents that were changed or are not well, the worst first, else in the order of the run."""
    promised = job.options.get("dry_run") is True
    found = []
    for record in job.agents:
        status = status_of(record)
        if status is not None:
            board = "main agent" if record.is_main else record.board_name or ""
            found.append(News(record.name, board, status, _what(record, status, promised=promised)))
    return sorted(found, key=lambda item: _ORDER.index(item.status))


def status_of(record: AgentSummary) -> str | None:
    """The word for how it ended; None where it needed nothing, or is not over."""
    row = row_of(record)
    if record.status == "succeeded":
        return None if row.unchanged else "updated"
    if record.status == "skipped":
        return "paused" if row.paused else "deleted" if row.gone else "skipped"
    words = {"failed": "failed", "not_attempted": "not attempted", "cancelled": "cancelled"}
    return words.get(record.status)


def list_of_news(job: JobSummary) -> Table | None:
    """The table, None where there is nothing to tell."""
    found = news(job)
    if not found:
        return None
    shown = lines()
    shown.show_header = True
    shown.header_style = "bold"
    shown.add_column("Agent", no_wrap=True, overflow="ellipsis", max_width=20)
    told = list(_merged(found))
    boards = {item.board for item in told} - {""}
    if len(boards) > 1:
        shown.add_column("Board", no_wrap=True, overflow="ellipsis", max_width=14)
    shown.add_column("Status", no_wrap=True)
    shown.add_column("What", overflow="fold")
    promised = job.options.get("dry_run") is True
    for item in islice(told, MOST_LINES):
        word = "would change" if promised and item.status == "updated" else item.status
        cells: list[str | Text] = [plain(item.agent), Text(word, style=_STYLES.get(item.status, ""))]
        if len(boards) > 1:
            cells.insert(1, plain(item.board))
        shown.add_row(*cells, plain(item.what))
    if len(told) > MOST_LINES:
        shown.add_row(f"and {len(told) - MOST_LINES} more")
    return shown


def _merged(found: Sequence[News]) -> Iterator[News]:
    """What many share, once: told where the first of them stands."""
    same: dict[tuple[str, str], list[News]] = {}
    for item in found:
        same.setdefault((item.status, item.what), []).append(item)
    for (status, what), items in same.items():
        if len(items) < _SHARED.get(status, 2):
            yield from items
        else:
            boards = {item.board for item in items}
            yield News(f"{len(items)} agents", boards.pop() if len(boards) == 1 else "", status, what)


def _what(record: AgentSummary, status: str, *, promised: bool) -> str:
    if status != "updated":
        return as_sentence(record.reason or "")
    parts = list(_written(record, promised=promised))
    roster = record.roster or {}
    if roster.get("action") == "create":
        parts.append("registered")
    elif changes := list(roster_changes(roster.get("changes") or {})):
        more = f" and {len(changes) - _NAMES} more" if len(changes) > _NAMES else ""
        parts.append(", ".join(changes[:_NAMES]) + more)
    if any(file.get("token") not in (None, "reused") for file in record.files.values()):
        parts.append("a new token")
    return "; ".join(parts)


def _written(record: AgentSummary, *, promised: bool) -> Iterator[str]:
    """The files that are written; in a plan also who made them differ."""
    by_cause: dict[str, list[str]] = {}
    for name, file in sorted(record.files.items()):
        if file.get("action") in _WRITES:
            cause = "not there" if file["action"] == "create" else _CAUSES.get(str(file.get("changed_by")))
            by_cause.setdefault(f" ({cause})" if promised and cause else "", []).append(name)
    for cause, names in by_cause.items():
        yield (", ".join(names) if len(names) <= _NAMES else f"{len(names)} files") + cause
