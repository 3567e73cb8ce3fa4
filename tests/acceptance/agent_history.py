"""What happened to one agent, job after job: from the record that Postgres kept of the rows, and from the
calls that went through the gateway's door. Neither is told by the code under test."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.acceptance.ledger_watch import Noted
from tests.acceptance.proxy import Frame

_ENDS = frozenset(f"row {status}" for status in ("succeeded", "skipped", "failed", "cancelled"))


@dataclass
class Turn:
    """The time in which one job had the agent, from its first claim to its end, in seconds since the epoch;
    ``frames``: the calls about the agent that the gateway saw meanwhile."""

    job_id: UUID
    began: float
    ended: float = float("inf")
    frames: list[Frame] = field(default_factory=list)

    def holds(self, frame: Frame) -> bool:
        """Whether the call was made within the turn, and answered, unless a restart lost the answer."""
        return self.began < frame.at and (frame.answered_at or frame.at) < self.ended


def turns_of(agent_id: UUID, noted: Iterable[Noted]) -> list[Turn]:
    """The turns of all jobs that claimed the agent, by their beginning."""
    turns: dict[UUID, Turn] = {}
    for step in noted:
        if step.agent_id != agent_id or step.job_id is None:
            continue
        if step.step == "claimed":
            turns.setdefault(step.job_id, Turn(step.job_id, step.at))
        elif step.step in _ENDS and step.job_id in turns:
            turns[step.job_id].ended = step.at
    return sorted(turns.values(), key=lambda turn: turn.began)


def overlapping(turns: Sequence[Turn]) -> list[tuple[UUID, UUID]]:
    """Jobs of which one had the agent while another did."""
    return [
        (one.job_id, other.job_id) for one, other in itertools.pairwise(turns) if other.began <= one.ended
    ]


def is_about(openclaw_id: str, params: Mapping[str, Any]) -> bool:
    """Whether a call names the agent, or its session."""
    if params.get("agentId") == openclaw_id:
        return True
    return f"agent:{openclaw_id}:" in str(params.get("key") or params.get("sessionKey") or "")


def share_out(openclaw_id: str, turns: Sequence[Turn], frames: Iterable[Frame]) -> list[Frame]:
    """Give every turn the calls about the agent that fall into it; return those that fall into none."""
    stray: list[Frame] = []
    for frame in frames:
        if is_about(openclaw_id, frame.params):
            turn = next((turn for turn in turns if turn.holds(frame)), None)
            (stray if turn is None else turn.frames).append(frame)
    return stray
