"""Ends a roll-out, and says what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from worker.errors import as_sentence
from worker.jobs.executor import Ended
from worker.jobs.states import ReasonCode, RolloutState
from worker.jobs.store import roll_outs
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.roll_outs import Member, Standing
from worker.runtime.services import Services


def counted(members: Sequence[Member]) -> str:
    """The number of agents in words, as ``3 agents``."""
    return f"{len(members)} agent{'s' * (len(members) != 1)}"


def first_reason(failed: Sequence[Member]) -> str:
    """The first agent of a list, and why it is there."""
    return f"{failed[0].agent_name}: {closed(failed[0].reason or failed[0].state)}"


def closed(reason: str) -> str:
    """``reason`` as a sentence with its full stop, so that another one can follow."""
    return as_sentence(reason) if reason.endswith((".", "!", "?")) else f"{as_sentence(reason)}."


def left_behind(members: Sequence[Member]) -> str:
    """A sentence about the agents that were not reached, with a space before it; "" if all were."""
    left = sum(each.state == RolloutState.WAITING for each in members)
    if left == 1:
        return " 1 agent that was not reached keeps what it had."
    return f" {left} agents that were not reached keep what they had." if left else ""


def write_end(
    connection: Connection,
    held: JobClaim,
    standing: Standing,
    members: Sequence[Member],
    status: str,
    error: str | None,
    code: ReasonCode | None,
    rollback_job_id: UUID | None = None,
) -> None:
    """End the job with what came of its agents. ``rollback_job_id``: the job that takes its changes back.

    Raises LeaseLostError.
    """
    planned = dict(roll_outs.plan_of(connection, held.job_id))
    warnings = planned.pop("warnings", [])
    untold = Counter(each.reason for each in members if each.state == RolloutState.HEALTHY and each.reason)
    for reason, count in sorted(untold.items()):
        warnings.append(f"Well without a run, {count} of {len(members)}: {reason}")
    result = result_of(held, standing, members, {}, planned)
    if rollback_job_id is not None:
        result["rollback_job_id"] = str(rollback_job_id)
    roll_outs.end_roll_out(connection, held, status, result=result, warnings=warnings, error=error, code=code)


def result_of(
    held: JobClaim,
    standing: Standing,
    members: Sequence[Member],
    names: Mapping[UUID, str],
    planned: Mapping[str, Any],
) -> dict[str, Any]:
    """The job's result (interfaces.md 5). ``planned``: what the plan says of agents left out and of restarts;
    ``names``: the gateways' names, which only a plan shows."""

    def count(*states: RolloutState) -> int:
        return sum(each.state in states for each in members)

    rings = sorted({each.ring for each in members})
    return {
        "dry_run": held.option("dry_run"),
        "gateways": [str(gateway) for gateway in standing.gateways],
        "rings": [
            _ring_result(ring, [each for each in members if each.ring == ring], names) for ring in rings
        ],
        "agents_total": len(members),
        "agents_reached": len(members) - count(RolloutState.WAITING, RolloutState.GONE),
        "agents_healthy": count(RolloutState.HEALTHY),
        "agents_unknown": count(RolloutState.UNKNOWN),
        "agents_failed": count(RolloutState.FAILED),
        "agents_gone": count(RolloutState.GONE),
        "agents_left": count(RolloutState.WAITING),
        "left_out": [],
        "restarts": {},
        **planned,
        "errors": [
            {"agent_id": str(each.agent_id), "agent_name": each.agent_name, "message": each.reason}
            for each in members
            if each.state in (RolloutState.FAILED, RolloutState.UNKNOWN)
        ],
    }


def _ring_result(ring: int, members: Sequence[Member], names: Mapping[UUID, str]) -> dict[str, Any]:
    states = [each.state for each in members]
    found: dict[str, Any] = {
        "ring": ring,
        "agents": len(members),
        "changes": len({each.change for each in members}),
        "names": [each.agent_name for each in members],
        **{state.value: states.count(state) for state in RolloutState},
    }
    if names:
        found["gateways"] = sorted({names.get(each.gateway_id, str(each.gateway_id)) for each in members})
    return found


def end_with(
    services: Services,
    held: JobClaim,
    status: str,
    result: Mapping[str, Any],
    *,
    warnings: Sequence[str] = (),
    error: str | None = None,
    code: ReasonCode | None = None,
) -> Ended:
    """End the job in a transaction of its own. Raises LeaseLostError."""
    with services.engine.begin() as connection:
        roll_outs.end_roll_out(
            connection, held, status, result=result, warnings=warnings, error=error, code=code
        )
    return Ended(status, error)
