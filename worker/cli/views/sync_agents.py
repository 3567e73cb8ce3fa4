"""The outcome of each agent of a sync: in words, and as a table.

Agents that needed nothing are counted and not listed; many with the same outcome share a line.
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
from worker.workspace.actions import WRITES

MOST_LINES = 40
"""A page lists at most this many; ``--json`` has them all."""
_NAMES = 3
_SHARED = {"updated": 6, "failed": 12, "skipped": 12}
"""How many agents with the same outcome share one line, by status; two for every other status."""
_STYLES = {"failed": "red", "skipped": "yellow", "not attempted": "yellow", "cancelled": "yellow"}
_ORDER = ("failed", "skipped", "not attempted", "cancelled", "paused", "deleted", "updated")
_CAUSES: Mapping[str, str] = {
    "templates": "templates or facts",
    "agent": "on the gateway",
    "both": "both sides",
}


@dataclass(frozen=True)
class ChangedAgent:
    """An agent that was changed, or that did not succeed."""

    agent: str
    board: str
    status: str
    what: str


def changed_agents(job: JobSummary) -> list[ChangedAgent]:
    """The agents that were changed or did not succeed, the worst first, otherwise in the sync's order."""
    found = []
    for agent in job.agents:
        status = status_of(agent)
        if status is not None:
            board = "main agent" if agent.is_main else agent.board_name or ""
            found.append(ChangedAgent(agent.name, board, status, _what(agent, status, planned=job.dry_run)))
    return sorted(found, key=lambda item: _ORDER.index(item.status))


def status_of(agent: AgentSummary) -> str | None:
    """The word for how the agent ended; None if it needed nothing, or has not ended."""
    row = agent.row
    if agent.status == "succeeded":
        return None if row.unchanged else "updated"
    if agent.status == "skipped":
        return "paused" if row.paused else "deleted" if row.gone else "skipped"
    words = {"failed": "failed", "not_attempted": "not attempted", "cancelled": "cancelled"}
    return words.get(agent.status)


def changed_agents_table(job: JobSummary) -> Table | None:
    """A table of the changed agents, or None if there are none."""
    found = changed_agents(job)
    if not found:
        return None
    shown = lines()
    shown.show_header = True
    shown.header_style = "bold"
    shown.add_column("Agent", no_wrap=True, overflow="ellipsis", max_width=20)
    merged = list(_merged(found))
    boards = {item.board for item in merged} - {""}
    if len(boards) > 1:
        shown.add_column("Board", no_wrap=True, overflow="ellipsis", max_width=14)
    shown.add_column("Status", no_wrap=True)
    shown.add_column("What", overflow="fold")
    for item in islice(merged, MOST_LINES):
        word = "would change" if job.dry_run and item.status == "updated" else item.status
        cells: list[str | Text] = [plain(item.agent), Text(word, style=_STYLES.get(item.status, ""))]
        if len(boards) > 1:
            cells.insert(1, plain(item.board))
        shown.add_row(*cells, plain(item.what))
    if len(merged) > MOST_LINES:
        shown.add_row(f"and {len(merged) - MOST_LINES} more")
    return shown


def _merged(found: Sequence[ChangedAgent]) -> Iterator[ChangedAgent]:
    """One line for many agents with the same outcome, where the first of them stands."""
    same: dict[tuple[str, str], list[ChangedAgent]] = {}
    for item in found:
        same.setdefault((item.status, item.what), []).append(item)
    for (status, what), items in same.items():
        if len(items) < _SHARED.get(status, 2):
            yield from items
        else:
            boards = {item.board for item in items}
            yield ChangedAgent(f"{len(items)} agents", boards.pop() if len(boards) == 1 else "", status, what)


def _what(agent: AgentSummary, status: str, *, planned: bool) -> str:
    if status != "updated":
        return as_sentence(agent.reason or "")
    parts = list(_written(agent, planned=planned))
    roster = agent.roster or {}
    if roster.get("action") == "create":
        parts.append("registered")
    elif changes := list(roster_changes(roster.get("changes") or {})):
        more = f" and {len(changes) - _NAMES} more" if len(changes) > _NAMES else ""
        parts.append(", ".join(changes[:_NAMES]) + more)
    if any(file.get("token") not in (None, "reused") for file in agent.files.values()):
        parts.append("a new token")
    return "; ".join(parts)


def _written(agent: AgentSummary, *, planned: bool) -> Iterator[str]:
    """The files that were written; in a plan, with who made them differ."""
    by_cause: dict[str, list[str]] = {}
    for name, file in sorted(agent.files.items()):
        if file.get("action") in WRITES:
            cause = "not there" if file["action"] == "create" else _CAUSES.get(str(file.get("changed_by")))
            by_cause.setdefault(f" ({cause})" if planned and cause else "", []).append(name)
    for cause, names in by_cause.items():
        yield (", ".join(names) if len(names) <= _NAMES else f"{len(names)} files") + cause
