"""Removes an agent from places where it no longer belongs: another gateway, or a former id (rules.md 39).

The removal begins once the agent is set up at its new place, so that it is always on some gateway.
"""

from __future__ import annotations

from dataclasses import replace

from worker.agents.agent_context import AgentContext
from worker.jobs.messages import Message
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode
from worker.jobs.store.job_agents import park
from worker.records.file_records import forget_files
from worker.roster.intents import ROSTER_RECHECK_S, RosterChange, intent_states, recheck_in_s, record_intents

_WAIT = "waiting for the roster writer to remove the agent where it was before"


def remove_from_former_places(context: AgentContext) -> Snooze | None:
    """Ask the roster writer to remove the agent from its former places; return the snooze until that is
    settled, or None if there is nothing left to wait for.

    A failed removal is only a warning, because the agent is already set up at its new place.
    """
    if context.held.phase == "wake":
        return None
    if context.held.phase != "leaving":
        return _ask(context) if context.record.former_places else None
    with context.services.engine.begin() as connection:
        budget_s = context.services.settings.retry_timeout_s
        intents = intent_states(connection, context.held.job_id, context.agent_id, "remove", budget_s)
        if any(intent.open for intent in intents):
            wait_s = recheck_in_s(intents, budget_s)
            park(connection, context.held, wait_s, _WAIT, code=ReasonCode.WAITING_FOR_ROSTER)
            return Snooze(_WAIT)
        for gateway_id in {intent.gateway_id for intent in intents} - {context.record.gateway_id}:
            forget_files(connection, context.agent_id, gateway_id)
    for intent in intents:
        if intent.warning is not None:
            context.warn(intent.warning)
        if intent.error is not None:
            context.warn(
                f"It could not be removed from gateway {intent.gateway_name!r} ({intent.openclaw_id} there):"
                f" {intent.error} Remove it there by hand."
            )
    return None


def _ask(context: AgentContext) -> Snooze:
    with context.services.engine.begin() as connection:
        context.advance(connection, "leaving", files=context.files, warnings=context.warnings)
        messages: list[Message] = []
        for place in context.record.former_places:
            change = RosterChange(
                context.agent_id, place.openclaw_id, "remove", delete_files=not place.adopted
            )
            messages += record_intents(connection, place.gateway_id, context.held.job_id, change)
        wait_s = min(ROSTER_RECHECK_S, context.services.settings.retry_timeout_s)
        park(connection, context.held, wait_s, _WAIT, "leaving", code=ReasonCode.WAITING_FOR_ROSTER)
    context.held = replace(context.held, phase="leaving")
    context.services.publish(messages)
    return Snooze(_WAIT)
