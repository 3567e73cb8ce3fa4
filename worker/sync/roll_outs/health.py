"""Judges the agents of a ring by what they have and by their runs, and decides how to go on (rules.md 57)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from uuid import UUID

from sqlalchemy import Connection

from worker.errors import as_sentence
from worker.jobs.executor import Ended
from worker.jobs.requests import ROLL_OUT, RollbackJob
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode, RolloutState, Step
from worker.jobs.store import roll_outs
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.jobs import enqueue
from worker.jobs.store.roll_outs import Member, Standing
from worker.records.holds import (
    release_holds,
)
from worker.runtime.services import Services
from worker.sync.roll_outs.delivery import PAUSED_POLL_S, ROLLED_BACK
from worker.sync.roll_outs.ending import counted, first_reason, left_behind, write_end
from worker.sync.roll_outs.ring_health import look_at_ring
from worker.sync.roll_outs.rings import stand_in
from worker.sync.roll_outs.waiting import park_at

SHORTEST_LOOK_S, LONGEST_LOOK_S = 2.0, 30.0
"""Limits on the seconds between two looks at the runs of a ring's agents; within them a quarter of the time
for which they have had the change."""


def look_at_health(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Look at the ring's agents whose health is not known yet; go on once all are judged, or stop."""
    with services.engine.connect() as connection:
        members = roll_outs.members_of(connection, held.job_id, standing.ring)
        back = roll_outs.rolled_back(connection, held.job_id)
    unjudged = [each for each in members if each.state == RolloutState.DELIVERED]
    taken_back = {
        each.agent_id: (RolloutState.FAILED, ROLLED_BACK) for each in unjudged if each.agent_id in back
    }
    unjudged = [each for each in unjudged if each.agent_id not in taken_back]
    away: dict[UUID, str] = {}
    more = look_at_ring(services, held, unjudged, away) if unjudged else False
    with services.engine.begin() as connection:
        roll_outs.note_states(connection, held.job_id, taken_back)
        everybody = roll_outs.members_of(connection, held.job_id)
        if standing.waited_out and not more:
            _end_wait(connection, held, standing, everybody, away)
            everybody = roll_outs.members_of(connection, held.job_id)
        spent = _failed(held, everybody)
        if len(spent) >= int(held.options.get("max_failed") or 1):
            return _stop(connection, held, standing, everybody, spent)
        ring = [each for each in everybody if each.ring == standing.ring]
        left = [each for each in ring if each.state == RolloutState.DELIVERED]
        if left:
            reason = _waits(standing, ring, left)
            if away:
                reason += f"; a gateway cannot be asked now: {next(iter(away.values()))}"
            return park_at(connection, held, Step.HEALTH, 0.0 if more else _look_s(standing, left), reason)
        if any(each.state == RolloutState.WAITING for each in ring):
            roll_outs.pause(connection, held.job_id)
            roll_outs.enter_ring(connection, held.job_id, standing.ring)
            reason = (
                f"paused in ring {standing.ring} of {standing.rings}, for its sync was cancelled: resumed, it"
                " delivers again"
            )
            return park_at(connection, held, Step.DELIVER, PAUSED_POLL_S, reason, ReasonCode.PAUSED)
        if _replaced_gone(connection, held, standing, everybody):
            roll_outs.enter_ring(connection, held.job_id, standing.ring)
            reason = f"ring {standing.ring} of {standing.rings}: another agent stands in for one that is gone"
            return park_at(connection, held, Step.DELIVER, 0.0, reason)
        if standing.ring < standing.rings:
            roll_outs.enter_ring(connection, held.job_id, standing.ring + 1)
            reason = f"ring {standing.ring + 1} of {standing.rings} is next"
            return park_at(connection, held, Step.DELIVER, 0.0, reason)
        return _complete(connection, held, standing, everybody)


def _look_s(standing: Standing, left: Sequence[Member]) -> float:
    had_s = min(each.reached_s or 0.0 for each in left)
    look_s = min(LONGEST_LOOK_S, max(SHORTEST_LOOK_S, had_s / 4))
    return look_s if standing.wait_left_s is None else min(look_s, max(0.0, standing.wait_left_s))


def _end_wait(
    connection: Connection,
    held: JobClaim,
    standing: Standing,
    members: Sequence[Member],
    away: Mapping[UUID, str],
) -> None:
    """Judge those of the ring of which nothing was heard in time: where their release would tell, that is
    unknown; where it cannot, they had that time for somebody to look at them, and count as well.

    ``away``: why gateways cannot be asked now, by id.
    """
    noted = {
        each.agent_id: (RolloutState.HEALTHY, each.reason)
        if each.untold
        else (RolloutState.UNKNOWN, _unheard(held, away.get(each.gateway_id)))
        for each in members
        if each.ring == standing.ring and each.state == RolloutState.DELIVERED
    }
    roll_outs.note_states(connection, held.job_id, noted)


def _unheard(held: JobClaim, away: str | None) -> str:
    unheard = f"No run of it that ended was seen within {held.options['wait']}."
    return unheard if away is None else f"{unheard} Its gateway cannot be asked now: {as_sentence(away)}"


def _waits(standing: Standing, ring: Sequence[Member], left: Sequence[Member]) -> str:
    until = f" until {standing.wait_until.astimezone(UTC):%H:%M:%S} UTC" if standing.wait_until else ""
    well = sum(each.state == RolloutState.HEALTHY for each in ring)
    untold = sum(each.untold for each in left)
    waits = [f"waiting for runs of {len(left) - untold}"] if untold < len(left) else []
    if untold:
        waits.append(f"nothing tells of runs of {untold}, which somebody should look at")
    return f"ring {standing.ring} of {standing.rings}: {well} of {len(ring)} well, {', '.join(waits)}{until}"


def _failed(held: JobClaim, members: Sequence[Member]) -> list[Member]:
    """The agents that count as failed."""
    states = [RolloutState.FAILED] + ([] if held.option("accept_unknown") else [RolloutState.UNKNOWN])
    return [each for each in members if each.state in states]


def _replaced_gone(
    connection: Connection, held: JobClaim, standing: Standing, members: Sequence[Member]
) -> bool:
    """Have another agent stand in for each of the first ring that is gone, if one gets the same change and
    nobody in the ring has shown it to be well; if all of that ring are gone, some other. Returns whether one
    does."""
    if standing.ring != 1:
        return False
    first = [each for each in members if each.ring == 1]
    seen = {each.change for each in first if each.state != RolloutState.GONE}
    waiting = [each for each in members if each.ring > 1 and each.state == RolloutState.WAITING]
    replaced = False
    for gone in first:
        other = stand_in(gone.change, waiting) if gone.state == RolloutState.GONE else None
        if other is not None and gone.change not in seen:
            seen.add(gone.change)
            roll_outs.put_into_ring(connection, held.job_id, other.agent_id, 1)
            replaced = True
    if waiting and not replaced and all(each.state == RolloutState.GONE for each in first):
        roll_outs.put_into_ring(connection, held.job_id, waiting[0].agent_id, 1)
        replaced = True
    return replaced


def _complete(connection: Connection, held: JobClaim, standing: Standing, members: Sequence[Member]) -> Ended:
    """End a roll-out that has reached all its agents: nothing is held for it any more."""
    release_holds(connection, [each.agent_id for each in members], job_id=held.job_id)
    failed = _failed(held, members)
    status, error, code = "succeeded", None, None
    if failed:
        status, code = "partial", ReasonCode.AGENTS_FAILED
        error = f"All rings were reached, and {counted(failed)} failed: {first_reason(failed)}"
    write_end(connection, held, standing, members, status, error, code)
    return Ended(status, error)


def _stop(
    connection: Connection,
    held: JobClaim,
    standing: Standing,
    members: Sequence[Member],
    failed: Sequence[Member],
) -> Ended:
    """End a roll-out whose error budget is spent; those that it has not reached keep what they have."""
    error = (
        f"Stopped in ring {standing.ring} of {standing.rings}, for {counted(failed)} failed, and it stops at"
        f" {int(held.options.get('max_failed') or 1)}: {first_reason(failed)}{left_behind(members)}"
    )
    back = _roll_back(connection, held) if held.option("rollback_on_failure") else None
    write_end(connection, held, standing, members, "failed", error, ReasonCode.BUDGET_SPENT, back)
    return Ended("failed", error)


def _roll_back(connection: Connection, held: JobClaim) -> UUID:
    """Enqueue the job that takes back what the roll-out has changed."""
    request = RollbackJob(
        gateway_id=held.gateway_id, undo_job_id=held.job_id, requested_by=ROLL_OUT, now=True
    )
    return enqueue(connection, request, parent=held.job_id).job_id
