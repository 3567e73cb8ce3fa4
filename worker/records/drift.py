"""What dry runs found to differ from templates and settings, by agent (rules.md 54).

The statement that ends an agent's row writes `provisioner.agent_drift`, so that it costs nothing extra.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.workspace.actions import WRITES

_ASKS_FOR_MORE = ("rotate_tokens", "force_bootstrap", "overwrite", "overwrite_files", "keep_files")
"""Options with which a dry run shows what was asked for, not only what differs."""
_LOOKS = ("sync_gateway", "update_agent")
"""The kinds whose dry runs tell what differs."""
_MOST_FIELDS = 20

_CAUSES = {
    "templates": "its template changed",
    "agent": "the agent changed it",
    "both": "its template and the agent changed it",
}


def what_differs(
    kind: str,
    options: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]],
    roster: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """What differs after a job of that kind with these options, for ``agent_drift.differs``; empty if nothing
    does.

    ``files``: the report of the job's files; ``roster``: what a dry run would change in the roster entry.
    After a job that wrote, only conflicts are left. None if the job does not tell: a dry run of an adoption
    or a rollback, or one with options that change more than what differs.
    """
    dry_run = options.get("dry_run") is True
    if dry_run and (kind not in _LOOKS or any(options.get(name) for name in _ASKS_FOR_MORE)):
        return None
    found: dict[str, Any] = {}
    telling = (*WRITES, "conflict") if dry_run else ("conflict",)
    shown = {
        name: {key: file[key] for key in ("action", "changed_by") if key in file}
        for name, file in files.items()
        if file.get("action") in telling
    }
    if roster is not None and roster.get("action") == "create":
        return {"registered": False}
    if shown:
        found["files"] = shown
    if roster is not None and roster.get("action") == "update":
        found["entry"] = sorted(_paths(roster.get("changes") or {}))[:_MOST_FIELDS]
    return found


def _paths(changes: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in changes.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{path}.")
        else:
            yield path


def in_words(differs: Mapping[str, Any]) -> list[str]:
    """What differs, as phrases for people, the most important first."""
    if differs.get("registered") is False:
        return ["it is not in its gateway's roster"]
    files: Mapping[str, Mapping[str, Any]] = differs.get("files") or {}
    said = [_of_file(name, file) for name, file in sorted(files.items(), key=_conflicts_first)]
    if (entry := differs.get("entry")) is not None:
        said.append(f"roster entry: {', '.join(entry)}" if entry else "roster entry")
    return said


def _conflicts_first(item: tuple[str, Mapping[str, Any]]) -> tuple[bool, str]:
    return item[1].get("action") != "conflict", item[0]


def _of_file(name: str, file: Mapping[str, Any]) -> str:
    cause = _CAUSES.get(str(file.get("changed_by")))
    if file.get("action") == "create":
        return f"{name} is missing"
    if file.get("action") == "conflict":
        return f"{name} is a conflict" + (f": {cause}" if cause else "")
    return f"{name}: {cause}" if cause else f"{name} differs"


@dataclass(frozen=True)
class DriftedAgent:
    """An agent that differs. ``since``: when that was first found; ``seen_at``: when it was last, by the dry
    run ``job_id``."""

    agent_id: UUID
    agent: str
    gateway_id: UUID
    gateway: str
    since: datetime
    seen_at: datetime
    job_id: UUID
    differs: Mapping[str, Any]


_DRIFTED = text("""
    SELECT d.agent_id, a.name AS agent, d.gateway_id, g.name AS gateway, d.since, d.seen_at, d.job_id,
        d.differs
    FROM provisioner.agent_drift d
    JOIN agents a ON a.id = d.agent_id AND a.gateway_id = d.gateway_id
    JOIN gateways g ON g.id = d.gateway_id
    WHERE CAST(:gateway_id AS uuid) IS NULL OR d.gateway_id = :gateway_id
    ORDER BY g.name, d.since, a.name
""")


def drifted_agents(connection: Connection, gateway_id: UUID | None = None) -> list[DriftedAgent]:
    """The agents that differ, of one gateway or of all, by gateway and the longest first. Agents that were
    deleted or moved since are left out."""
    rows = connection.execute(_DRIFTED, {"gateway_id": gateway_id})
    return [DriftedAgent(**row._mapping) for row in rows]
