"""Delivers to the agents of a ring, and has what they got read back (rules.md 56)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from worker.jobs.executor import Ended
from worker.jobs.messages import Message
from worker.jobs.requests import seconds_of
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import AgentOutcome, ReasonCode, RolloutState, Step
from worker.jobs.store import roll_outs
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.roll_outs import Member, Standing
from worker.records.holds import (
    release_holds,
)
from worker.runtime.services import Services
from worker.sync.result import Row
from worker.sync.roll_outs.ending import counted
from worker.sync.roll_outs.waiting import at_work, begin_syncs, by_gateway, hold, park_at
from worker.workspace.template_sources import sources_sha256

ROLLED_BACK = "Somebody has rolled it back meanwhile."
POLL_S = 1.0
"""Seconds after which a roll-out looks again whether its children have ended."""
WINDOW_POLL_S = 20.0
"""The same while all of them wait for a sync window."""
PAUSED_POLL_S = 60.0
"""Seconds after which a paused roll-out looks again unprompted; to resume it makes its row due."""


def deliver(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Begin a ring: its agents are held no longer, and one sync for each of its gateways brings them up to
    date."""
    messages: list[Message] = []
    with services.engine.begin() as connection:
        promoted = roll_outs.pause_if_promoted(connection, held.job_id)
        if standing.paused or promoted:
            reason = f"paused before ring {standing.ring} of {standing.rings}"
            if promoted:
                reason += ": templates were promoted meanwhile, which the rings before have not tried"
            return park_at(connection, held, Step.DELIVER, PAUSED_POLL_S, reason, ReasonCode.PAUSED)
        members = roll_outs.members_of(connection, held.job_id, standing.ring)
        waiting = [each for each in members if each.state == RolloutState.WAITING]
        release_holds(connection, [each.agent_id for each in waiting], job_id=held.job_id)
        back = roll_outs.rolled_back(connection, held.job_id)
        gone = [each for each in waiting if each.agent_id in back]
        waiting = [each for each in waiting if each not in gone]
        left = {each.agent_id: (RolloutState.GONE, ROLLED_BACK) for each in gone}
        roll_outs.note_states(connection, held.job_id, left)
        if not waiting:
            roll_outs.begin_wait(connection, held.job_id, 0.0)
            reason = f"ring {standing.ring} of {standing.rings}: nobody in it is left to deliver to"
            return park_at(connection, held, Step.HEALTH, 0.0, reason)
        messages = begin_syncs(connection, held, waiting, dry_run=False)
        noted = {each.agent_id: (RolloutState.DELIVERING, None) for each in waiting}
        roll_outs.note_states(connection, held.job_id, noted)
        reason = f"ring {standing.ring} of {standing.rings}: delivering to {counted(waiting)}"
        snooze = park_at(connection, held, Step.DELIVER, POLL_S, reason)
    services.publish(messages)
    return snooze


def note_delivered(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Record what became of the ring's agents, and have what they got read back."""
    with services.engine.begin() as connection:
        members = note_delivery(services, connection, held, standing)
        delivered = [each for each in members if each.state == RolloutState.DELIVERED]
        if not delivered:
            roll_outs.begin_wait(connection, held.job_id, 0.0)
            return park_at(connection, held, Step.HEALTH, 0.0, at_work(held, standing))
        messages = begin_syncs(connection, held, delivered, dry_run=True)
        reason = f"ring {standing.ring} of {standing.rings}: reading back what its agents have"
        snooze = park_at(connection, held, Step.CHECK, POLL_S, reason)
    services.publish(messages)
    return snooze


def note_delivery(
    services: Services, connection: Connection, held: JobClaim, standing: Standing
) -> list[Member]:
    """Record the states of the ring's agents after their delivery; those that did not get it are held again.
    Returns the ring's agents."""
    rows = {row.agent_id: row for row in roll_outs.child_rows(connection, standing.children)}
    members = roll_outs.members_of(connection, held.job_id, standing.ring)
    at_work = [each for each in members if each.state == RolloutState.DELIVERING]
    noted = {each.agent_id: _delivery(rows.get(each.agent_id)) for each in at_work}
    roll_outs.note_states(connection, held.job_id, noted)
    again = [
        each for each in at_work if noted[each.agent_id][0] in (RolloutState.FAILED, RolloutState.WAITING)
    ]
    sources = sources_sha256(services.settings.templates_dir)
    for gateway, agents in by_gateway(again).items():
        hold(connection, held, gateway, agents, sources)
    return roll_outs.members_of(connection, held.job_id, standing.ring)


def _delivery(row: Any) -> tuple[str, str | None]:
    """The state of an agent after its row in the ring's sync, None if it has none."""
    if row is None:
        return RolloutState.GONE, "It was deleted or moved meanwhile."
    if row.outcome in (AgentOutcome.DELETED, AgentOutcome.MOVED, AgentOutcome.PAUSED):
        return RolloutState.GONE, row.reason
    if row.status == "succeeded":
        return RolloutState.DELIVERED, None
    if row.status == "cancelled":
        return RolloutState.WAITING, None
    return RolloutState.FAILED, row.reason or row.status


def note_checked(services: Services, held: JobClaim, standing: Standing) -> Ended | Snooze:
    """Record which of the ring's agents do not have what was delivered; wait for the others' runs."""
    with services.engine.begin() as connection:
        rows = {row.agent_id: row for row in roll_outs.child_rows(connection, standing.children)}
        members = roll_outs.members_of(connection, held.job_id, standing.ring)
        noted = {}
        for each in members:
            if each.state == RolloutState.DELIVERED:
                checked = _checked(rows.get(each.agent_id))
                if checked is not None:
                    noted[each.agent_id] = checked
        roll_outs.note_states(connection, held.job_id, noted)
        roll_outs.begin_wait(connection, held.job_id, seconds_of(str(held.options["wait"])))
        reason = f"ring {standing.ring} of {standing.rings}: waiting for runs of its agents"
        return park_at(connection, held, Step.HEALTH, 0.0, reason)


def _checked(row: Any) -> tuple[str, str | None] | None:
    """The state of an agent whose row in the dry run after the delivery is not as it should be; None if it
    is."""
    state, reason = _delivery(row)
    if state == RolloutState.GONE:
        return state, reason
    if state != RolloutState.DELIVERED:
        return RolloutState.FAILED, f"What was delivered could not be read back: {reason or 'cancelled'}"
    seen = Row(
        row.agent_id,
        row.agent_name,
        row.board_id,
        row.is_main,
        row.status,
        None,
        None,
        (),
        row.files,
        row.roster,
    )
    if seen.unchanged:
        return None
    names = ", ".join(
        name for name, file in sorted(row.files.items()) if file.get("action") in ("create", "update")
    )
    return RolloutState.FAILED, f"What was delivered is not there: {names or 'its roster entry'}."
