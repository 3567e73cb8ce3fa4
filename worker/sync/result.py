"""Counts the result of a sync from its rows (rules.md 30, 36). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from worker.jobs.states import AgentOutcome, ReasonCode
from worker.workspace.actions import WRITES

_NAMES_SHOWN = 3
_STRANGERS_SHOWN = 5


@dataclass(frozen=True)
class Row:
    """One agent's row in a sync that has ended."""

    agent_id: UUID
    agent_name: str | None
    board_id: UUID | None
    is_main: bool
    status: str
    phase: str | None
    reason: str | None
    warnings: Sequence[str]
    files: Mapping[str, Mapping[str, Any]]
    roster: Mapping[str, Any] | None
    outcome: str | None = None
    reason_code: str | None = None

    @property
    def paused(self) -> bool:
        """Whether the agent was skipped because its board is paused, which is no error (rules.md 32)."""
        return self.outcome == AgentOutcome.PAUSED

    @property
    def gone(self) -> bool:
        """Whether the agent was skipped because it was deleted or moved meanwhile, which is no error
        (rules.md 40)."""
        return self.outcome in (AgentOutcome.DELETED, AgentOutcome.MOVED)

    @property
    def unchanged(self) -> bool:
        """Whether the agent was synced and nothing had to be changed."""
        roster = (self.roster or {}).get("action", "unchanged")
        return self.status == "succeeded" and roster == "unchanged" and not self.count(*WRITES)

    @property
    def faulty(self) -> bool:
        """Whether the sync's result lists the agent among the errors."""
        return self.status in ("failed", "skipped") and not (self.paused or self.gone)

    def count(self, *actions: str) -> int:
        """How many of the agent's files have one of these actions."""
        return sum(file.get("action") in actions for file in self.files.values())


@dataclass(frozen=True)
class Ending:
    """How a sync ends. ``error``: why it did not succeed, None if it did; ``code``: ``error`` for
    programs."""

    status: str
    error: str | None
    result: Mapping[str, Any]
    warnings: Sequence[str]
    code: ReasonCode | None = None


def ending(
    gateway_id: UUID,
    gateway_name: str,
    options: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    without_board: Sequence[str] = (),
    cancelled: bool = False,
    stopped: str | None = None,
) -> Ending:
    """Work out from a sync's rows, all of which have ended, how the sync ends.

    ``without_board``: names of agents that have no board and are not the main agent; ``stopped``: why the
    sync ended early, if it did.
    """
    agents = [row for row in rows if not row.is_main]
    main = next((row for row in rows if row.is_main), None)
    include_main = options.get("include_main") is True
    errors = [_error(row) for row in rows if row.faulty]
    not_attempted = [row for row in agents if row.status == "not_attempted"]
    left = next((row for row in rows if row.status == "not_attempted"), None)
    if stopped is None and left is not None:
        stopped = left.reason
    if stopped is not None:
        errors.insert(0, _general(stopped))
    if include_main and main is None and not cancelled:
        errors.append(
            _general(
                f"Gateway {gateway_name!r} has no main agent: make one by tasks.provision_gateway_main"
                " (`provisioner main`), or sync with include_main false (`--no-main`)."
            )
        )
    warnings = _grouped(rows)
    if without_board:
        warnings.append(
            f"Left out, for they have no board and are not the main agent: {', '.join(without_board)}."
        )
    if strangers := _strangers(options, rows):
        shown = ", ".join(strangers[:_STRANGERS_SHOWN]) + (
            " and others" if strangers[_STRANGERS_SHOWN:] else ""
        )
        warnings.append(f"Left out, for no board of this sync has them (agent_ids): {shown}.")
    result = {
        "gateway_id": str(gateway_id),
        "include_main": include_main,
        "reset_sessions": options.get("reset_sessions") is True,
        "dry_run": options.get("dry_run") is True,
        "agents_updated": sum(row.status == "succeeded" for row in agents),
        "agents_unchanged": sum(row.unchanged for row in agents),
        "agents_skipped": sum(row.status == "skipped" for row in agents),
        "agents_failed": sum(row.status == "failed" for row in agents),
        "agents_cancelled": sum(row.status == "cancelled" for row in agents),
        "not_attempted": len(not_attempted),
        "main_updated": main is not None and main.status == "succeeded",
        "files_written": sum(row.count(*WRITES) for row in rows),
        "files_unchanged": sum(row.count("unchanged") for row in rows),
        "roster_changes": sum((row.roster or {}).get("action") in WRITES for row in rows),
        "errors": errors,
        "warnings": warnings,
    }
    status = _status(rows, errors, cancelled=cancelled, stopped=stopped is not None)
    code = None if status == "succeeded" else _code(rows, left, cancelled=cancelled)
    return Ending(status, _sentence(status, agents, errors), result, warnings, code)


def _strangers(options: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """The ids in agent_ids that are no agents of the gateway, or of the board that was asked for."""
    served = {str(row.agent_id) for row in rows}
    return [key for key in map(str, options.get("agent_ids") or ()) if key not in served]


def drifted(result: Mapping[str, Any]) -> bool:
    """Whether the result of a dry run says that a sync would change something."""
    return bool(result.get("files_written") or result.get("roster_changes"))


def _code(rows: Sequence[Row], left: Row | None, *, cancelled: bool) -> ReasonCode:
    """Why the sync did not succeed: the reason that it was stopped early for, else the one that the agents
    that did not succeed share."""
    if cancelled:
        return ReasonCode.CANCELLED
    telling = [row for row in rows if row.faulty] if left is None else [left]
    codes = {row.reason_code for row in telling}
    code = codes.pop() if len(codes) == 1 else None
    return ReasonCode(code) if code is not None else ReasonCode.AGENTS_FAILED


def _status(rows: Sequence[Row], errors: Sequence[Any], *, cancelled: bool, stopped: bool) -> str:
    if cancelled:
        return "cancelled"
    applied = any(row.status == "succeeded" for row in rows)
    failed = stopped or any(row.status == "failed" for row in rows)
    if not errors and not failed:
        return "succeeded"
    return "failed" if not applied and (failed or not rows) else "partial"


def _sentence(status: str, agents: Sequence[Row], errors: Sequence[Mapping[str, Any]]) -> str | None:
    if status == "succeeded":
        return None
    if status == "cancelled":
        done = sum(row.status == "succeeded" for row in agents)
        return f"Cancelled on request: {done} of {len(agents)} agents were done."
    counts = [
        (sum(row.status == "failed" for row in agents), "failed"),
        (sum(row.status == "skipped" and row.faulty for row in agents), "skipped"),
        (sum(row.status == "not_attempted" for row in agents), "not attempted"),
    ]
    summary = ", ".join(f"{count} {what}" for count, what in counts if count)
    first = errors[0]
    who = f"{first['agent_name']}: " if first.get("agent_name") else ""
    plural = "s" * (len(agents) != 1)
    return f"{f'Of {len(agents)} agent{plural} {summary}. ' if summary else ''}{who}{first['message']}"


def _error(row: Row) -> dict[str, Any]:
    return {
        "agent_id": str(row.agent_id),
        "agent_name": row.agent_name,
        "board_id": str(row.board_id) if row.board_id else None,
        "message": row.reason or row.status,
    }


def _general(message: str) -> dict[str, Any]:
    return {"agent_id": None, "agent_name": None, "board_id": None, "message": message}


def _grouped(rows: Sequence[Row]) -> list[str]:
    """Each warning once, preceded by the names of its agents."""
    about: dict[str, list[str]] = {}
    for row in rows:
        for warning in row.warnings:
            about.setdefault(warning, []).append(row.agent_name or str(row.agent_id))
    return [f"{_names(names)}: {warning}" for warning, names in about.items()]


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
