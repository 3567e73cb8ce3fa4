"""What happened to one agent, job after job: from the record that Postgres kept of the rows, and from the
calls that went through the gateway's proxy. Neither is told by the code under test."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.acceptance.proxy import Frame
from tests.acceptance.row_watch import CommittedStep

_ENDS = frozenset(f"row {status}" for status in ("succeeded", "skipped", "failed", "cancelled"))


@dataclass
class Execution:
    """The time in which one job had the agent, from its first claim to its end, in seconds since the epoch;
    ``frames``: the calls about the agent that the gateway saw meanwhile."""

    job_id: UUID
    began: float
    ended: float = float("inf")
    frames: list[Frame] = field(default_factory=list)

    def holds(self, frame: Frame) -> bool:
        """Whether the call was made within the execution, and answered, unless a restart lost the answer."""
        return self.began < frame.at and (frame.answered_at or frame.at) < self.ended


def executions_of(agent_id: UUID, noted: Iterable[CommittedStep]) -> list[Execution]:
    """The executions of all jobs that claimed the agent, by their beginning."""
    executions: dict[UUID, Execution] = {}
    for step in noted:
        if step.agent_id != agent_id or step.job_id is None:
            continue
        if step.step == "claimed":
            executions.setdefault(step.job_id, Execution(step.job_id, step.at))
        elif step.step in _ENDS and step.job_id in executions:
            executions[step.job_id].ended = step.at
    return sorted(executions.values(), key=lambda execution: execution.began)


def overlapping(executions: Sequence[Execution]) -> list[tuple[UUID, UUID]]:
    """Jobs of which one had the agent while another did."""
    return [
        (one.job_id, other.job_id)
        for one, other in itertools.pairwise(executions)
        if other.began <= one.ended
    ]


def is_about(openclaw_id: str, params: Mapping[str, Any]) -> bool:
    """Whether a call names the agent, or its session."""
    if params.get("agentId") == openclaw_id:
        return True
    return f"agent:{openclaw_id}:" in str(params.get("key") or params.get("sessionKey") or "")


def share_out(openclaw_id: str, executions: Sequence[Execution], frames: Iterable[Frame]) -> list[Frame]:
    """Give every execution the calls about the agent that fall into it; return those that fall into none."""
    stray: list[Frame] = []
    for frame in frames:
        if is_about(openclaw_id, frame.params):
            execution = next((execution for execution in executions if execution.holds(frame)), None)
            (stray if execution is None else execution.frames).append(frame)
    return stray
