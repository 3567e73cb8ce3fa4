"""Removes an agent from the places that it has left: another gateway, or a former id (rules.md 39).

That happens once the agent is at its new place, so that it is always on some gateway.
"""

from __future__ import annotations

from dataclasses import replace

from worker.agents.context import Work
from worker.jobs.messages import Message
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode
from worker.jobs.store.job_agents import park
from worker.records.file_records import forget_files
from worker.roster.intents import ROSTER_PATIENCE_S, Wish, look_again_s, record_intents, settled_intents

_WAIT = "waiting for the roster writer to remove the agent where it was before"


def leave(work: Work) -> Snooze | None:
    """Ask for the agent's removal from the places it has left, and wait until it is removed.

    Returns the snooze while it waits. A removal that fails is only a warning: the agent is at its new place.
    """
    if work.held.phase == "wake":
        return None
    if work.held.phase != "leaving":
        return _ask(work) if work.record.left else None
    with work.services.engine.begin() as connection:
        budget_s = work.services.settings.retry_timeout_s
        wishes = settled_intents(connection, work.held.job_id, work.agent_id, "remove", budget_s)
        if any(wish.open for wish in wishes):
            wait_s = look_again_s(wishes, budget_s)
            park(connection, work.held, wait_s, _WAIT, code=ReasonCode.WAITING_FOR_ROSTER)
            return Snooze(_WAIT)
        for gateway_id in {wish.gateway_id for wish in wishes} - {work.record.gateway_id}:
            forget_files(connection, work.agent_id, gateway_id)
    for wish in wishes:
        if wish.warning is not None:
            work.warn(wish.warning)
        if wish.error is not None:
            work.warn(
                f"It could not be removed from gateway {wish.gateway_name!r} ({wish.openclaw_id} there):"
                f" {wish.error} Remove it there by hand."
            )
    return None


def _ask(work: Work) -> Snooze:
    with work.services.engine.begin() as connection:
        work.advance(connection, "leaving", files=work.files, warnings=work.warnings)
        messages: list[Message] = []
        for place in work.record.left:
            wish = Wish(work.agent_id, place.openclaw_id, "remove")
            messages += record_intents(connection, place.gateway_id, work.held.job_id, wish)
        wait_s = min(ROSTER_PATIENCE_S, work.services.settings.retry_timeout_s)
        park(connection, work.held, wait_s, _WAIT, "leaving", code=ReasonCode.WAITING_FOR_ROSTER)
    work.held = replace(work.held, phase="leaving")
    work.services.publish(messages)
    return Snooze(_WAIT)
