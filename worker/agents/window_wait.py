"""Has a change that restarts a gateway, or disturbs an agent, wait for the gateway's sync windows (rules.md
55). It waits before anything is touched: what has begun is finished, even if a window closes meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.agents.agent_context import JobProfile
from worker.jobs.requests import ROLL_OUT, SCHEDULE, RestoreAgent
from worker.jobs.store.job_agents import Claim
from worker.records.agent_repository import AgentRecord

_DISTURBING = ("wake", "reset_session", "reset_sessions", "rotate_tokens", "in_window")
"""Options with which a job wakes an agent, or ends what it is doing."""


def disturbs(options: Mapping[str, Any]) -> bool:
    """Whether a job with these options disturbs its agents, whatever it finds to change."""
    return any(options.get(name) is True for name in _DISTURBING)


def is_asked_rotation(options: Mapping[str, Any], requested_by: str | None) -> bool:
    """Whether it is a rotation of tokens that somebody asked for, and that no schedule or roll-out began."""
    return options.get("rotate_tokens") is True and requested_by not in (SCHEDULE, ROLL_OUT)


def require_window_to_begin(held: Claim, record: AgentRecord, profile: JobProfile) -> None:
    """Raise WindowClosedError if the job disturbs the agent or takes it off a former place, has not begun,
    and a window of one of the gateways is closed."""
    if held.files or held.phase not in _not_begun(held):
        return
    asked = _is_asked(held, record, profile)
    if record.former_places:
        record.windows.require_open(held.options, asked=asked)
    elif asked or disturbs(held.options):
        record.windows.require_open(held.options, asked=asked, of=[record.gateway_id])


def require_window_to_restart(held: Claim, record: AgentRecord, profile: JobProfile) -> None:
    """Raise WindowClosedError if the gateway may not be restarted now for this job."""
    if held.phase in _not_begun(held):
        asked = _is_asked(held, record, profile)
        record.windows.require_open(held.options, asked=asked, of=[record.gateway_id])


def _not_begun(held: Claim) -> tuple[str | None, ...]:
    """The steps at which a row can still be set back."""
    if held.kind == RestoreAgent.kind:
        return (None,)  # its agent has a row from its first step on
    return (None, "intent") if held.single else (None, "intent", "files")


def _is_asked(held: Claim, record: AgentRecord, profile: JobProfile) -> bool:
    first = profile.mints and not record.provisioned_before
    return first or is_asked_rotation(held.options, held.requested_by)
