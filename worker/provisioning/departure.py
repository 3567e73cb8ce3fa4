"""Takes an agent off the places that it has left: another gateway, or an id it no longer has (behaviour 39).

It happens once the agent stands at its new place, so that it is never nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import PermanentError
from worker.jobs.ledger import park
from worker.jobs.outbox import Message
from worker.provisioning.file_records import forget_files
from worker.provisioning.intents import ROSTER_PATIENCE_S, Wish, look_again_s, record_intents, settled_intents
from worker.provisioning.work import Parked, Work
from worker.workspace.identity import openclaw_id

_WAIT = "waiting for the roster writer to remove the agent where it was before"
_OURS = ("mc-", "lead-")


@dataclass(frozen=True)
class Place:
    """Where an agent stood: a gateway, and its OpenClaw id there."""

    gateway_id: UUID
    openclaw_id: str


def leave(work: Work) -> Parked | None:
    """Ask for the agent's removal from the places it has left, and wait for it. A place that cannot be
    reached is a warning: the agent is well where it is now."""
    if work.held.phase == "wake":
        return None
    if work.held.phase != "leaving":
        return _ask(work) if _may_have_moved(work) else None
    with work.services.engine.begin() as connection:
        budget_s = work.services.settings.retry_budget_s
        wishes = settled_intents(connection, work.held.job_id, work.agent_id, "remove", budget_s)
        if any(wish.open for wish in wishes):
            park(connection, work.held, look_again_s(wishes, budget_s), _WAIT)
            return Parked(_WAIT)
        for place in left_places(connection, work):
            if place.gateway_id != work.record.gateway_id:
                forget_files(connection, work.agent_id, place.gateway_id)
    for wish in wishes:
        if wish.error is not None:
            work.warn(
                f"It could not be removed from gateway {wish.gateway_name!r} ({wish.openclaw_id} there):"
                f" {wish.error} Remove it there by hand."
            )
    return None


def _may_have_moved(work: Work) -> bool:
    """Whether anything but its own row's gateway and id is known of it: a statement spared for the others."""
    before = _id_before(work.record.stored_session_key) or work.record.openclaw_id
    return work.record.known_elsewhere or before != work.record.openclaw_id


def _ask(work: Work) -> Parked | None:
    with work.services.engine.begin() as connection:
        places = left_places(connection, work)
        if not places:
            return None
        work.advance(connection, "leaving", files=work.files, warnings=work.warnings)
        messages: list[Message] = []
        for place in places:
            wish = Wish(work.agent_id, place.openclaw_id, "remove")
            messages += record_intents(connection, place.gateway_id, work.held.job_id, wish)
        wait_s = min(ROSTER_PATIENCE_S, work.services.settings.retry_budget_s)
        park(connection, work.held, wait_s, _WAIT, "leaving")
    work.held = replace(work.held, phase="leaving")
    work.services.publish(messages)
    return Parked(_WAIT)


_GATEWAYS_BEFORE = text("""
    SELECT DISTINCT gateway_id FROM (
        SELECT gateway_id FROM provisioner.agent_credentials WHERE agent_id = :agent_id
        UNION ALL SELECT gateway_id FROM provisioner.agent_files WHERE agent_id = :agent_id
    ) known WHERE gateway_id IS NOT NULL AND EXISTS (SELECT FROM gateways WHERE id = gateway_id)
""")
_TAKEN_BY_ANOTHER = text("""
    SELECT EXISTS (
        SELECT FROM agents WHERE id <> :agent_id AND is_board_lead
          AND 'lead-' || board_id = :openclaw_id AND gateway_id = :gateway_id
    )
""")


def gateways_before(connection: Connection, agent_id: UUID) -> list[UUID]:
    """The gateways, of those that still exist, on which our records have the agent."""
    return [row.gateway_id for row in connection.execute(_GATEWAYS_BEFORE, {"agent_id": agent_id})]


def left_places(connection: Connection, work: Work) -> list[Place]:
    """Where the agent was according to our records and its last session key, and is not any more. An id that
    belongs to another agent by now is none of ours to remove."""
    record = work.record
    before = _id_before(record.stored_session_key) or record.openclaw_id
    known = gateways_before(connection, work.agent_id)
    here = Place(record.gateway_id, record.openclaw_id)
    places = sorted({Place(gateway_id, before) for gateway_id in known} - {here}, key=str)
    return [
        place
        for place in places
        if not connection.scalar(
            _TAKEN_BY_ANOTHER,
            {
                "agent_id": work.agent_id,
                "openclaw_id": place.openclaw_id,
                "gateway_id": place.gateway_id,
            },
        )
    ]


def _id_before(session_key: str | None) -> str | None:
    try:
        before = openclaw_id(session_key or "")
    except PermanentError:
        return None
    return before if before.startswith(_OURS) else None
