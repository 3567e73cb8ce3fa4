"""Reads a gateway's roster and plans how one agent's entry must change; writes nothing."""

from __future__ import annotations

from worker.agents.agent_context import AgentContext
from worker.errors import PermanentError
from worker.gateway.folders import workspace_changes
from worker.gateway.owner_settings import CRON_OFF, has_one_session, heartbeats_switched_off
from worker.gateway.roster_plan import RosterPlan, entry_fault
from worker.gateway.roster_reading import LiveRoster, read_roster
from worker.roster.circuit_breaker import refresh_one_session
from worker.roster.intents import Refusal
from worker.roster.rewrite_permission import predicted_refusal
from worker.roster.settings_check import check_settings, setting_refusal


def plan_entry(context: AgentContext) -> RosterPlan:
    """Plan the patch for the agent's entry. Raises TransientError, PermanentError."""
    return _plan(context, _read(context))


def preview_entry(context: AgentContext) -> tuple[RosterPlan, Refusal | None]:
    """Plan the patch for the agent's entry, for a dry run, and predict the refusal if it would be refused.

    Raises TransientError, PermanentError.
    """
    live = _read(context)
    plan, record = _plan(context, live), context.record
    if plan.changed and (fault := entry_fault(record.roster_entry, context.dialect)) is not None:
        raise PermanentError(fault)
    names = {record.openclaw_id: record.shown_name}
    for bad in check_settings(context.client, live, plan, names).values():
        raise PermanentError(bad.sentence, reason_code=bad.code)
    for note in plan.notes_on(record.openclaw_id):
        context.warn(note)
    refusal = predicted_refusal(context.services.engine, record.gateway, record.address, live, plan)
    change = workspace_changes(live, plan).get(record.openclaw_id)
    if refusal is None and change is not None:
        context.warn(change)
    return plan, refusal


def _read(context: AgentContext) -> LiveRoster:
    live = read_roster(
        context.dialect,
        lambda: context.services.retry_inline(lambda: context.client.call("config.get")),
        lambda: context.services.retry_inline(lambda: context.client.call("agents.list")),
    )
    config = live.answer.get("config")
    refresh_one_session(context.client, config)
    context.one_session = has_one_session(config)
    if heartbeats_switched_off(context.dialect, config):
        context.warn(CRON_OFF)
    return live


def _plan(context: AgentContext, live: LiveRoster) -> RosterPlan:
    keeps = context.services.settings.keep_default_heartbeat
    plan = live.plan([context.record.roster_entry], keep_others_beating=keeps)
    for fault in plan.faults.values():
        refusal = setting_refusal(context.record.shown_name, fault)
        raise PermanentError(refusal.sentence, reason_code=refusal.code)
    return plan
