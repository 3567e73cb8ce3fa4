"""Syncs made by hand, to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from tests.unit.cli.views.test_jobs import JOB, ROW
from worker.cli.job_summary import AgentSummary, JobSummary, Tally
from worker.sync.result import ending

GATEWAY = UUID(int=9)
KEPT: Mapping[str, Mapping[str, Any]] = {
    "AGENTS.md": {"action": "unchanged"},
    "USER.md": {"action": "preserved"},
    "BOOT.md": {"action": "unsupported"},
}


def agent(number: int, status: str = "succeeded", **columns: Any) -> AgentSummary:
    """An agent of a sync; without more, one that needed nothing."""
    values = {
        "agent_id": UUID(int=number),
        "name": f"Agent {number:03}",
        "is_board_lead": False,
        "status": status,
        "phase": "ended",
        "in_hand": False,
        "files": KEPT,
        "board_id": UUID(int=1),
        "board_name": "Launch",
        "roster": {"action": "unchanged", "changes": {}},
        **columns,
    }
    return replace(ROW, **values)


def written(*names: str, by: str | None = "templates") -> dict[str, Any]:
    """The files of an agent of which these are written."""
    return {**KEPT, **{name: {"action": "update", "changed_by": by} for name in names}}


def sync_job(*agents: AgentSummary, **columns: Any) -> JobSummary:
    """A sync that has ended with these rows."""
    options = {"include_main": True, "dry_run": False, **columns.pop("options", {})}
    came_to = ending(GATEWAY, "my gateway", options, [record.row for record in agents])
    values = {
        "kind": "sync_gateway",
        "status": came_to.status,
        "error": came_to.error,
        "result": came_to.result,
        "warnings": came_to.warnings,
        "agent_id": None,
        "agent_name": None,
        "board_name": None,
        "gateway_id": GATEWAY,
        "options": options,
        "agents": agents,
        "tally": tally_of(agents),
        **columns,
    }
    return replace(JOB, **values)


def tally_of(agents: Sequence[AgentSummary]) -> Tally:
    """The figures of a sync that has ended, as the database counts them (tests/integration/cli)."""
    rows = [record.row for record in agents if not record.is_main]

    def having(status: str) -> int:
        return sum(row.status == status and not row.paused for row in rows)

    unchanged = sum(row.unchanged for row in rows)
    return Tally(
        total=len(rows),
        done=len(rows),
        unchanged=unchanged,
        changed=having("succeeded") - unchanged,
        failed=having("failed"),
        skipped=having("skipped"),
        paused=sum(row.paused for row in rows),
        not_attempted=having("not_attempted"),
        cancelled=having("cancelled"),
        main=next((record.status for record in agents if record.is_main), None),
    )


MAIN = agent(999, is_main=True, board_id=None, board_name=None, name="my gateway Gateway Agent")
