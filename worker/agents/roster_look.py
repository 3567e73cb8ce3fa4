"""Reads a gateway's roster and plans the change that one agent's entry needs; writes nothing."""

from __future__ import annotations

from worker.agents.context import Work
from worker.errors import PermanentError
from worker.gateway.owner_settings import CRON_OFF, has_one_session, heartbeats_switched_off
from worker.gateway.roster_plan import RosterPlan, entry_fault
from worker.gateway.roster_reading import LiveRoster, read_roster
from worker.roster.circuit_breaker import heed_one_session
from worker.roster.rewrite_permission import foreseen_refusal


def look(work: Work) -> RosterPlan:
    """Plan the patch that the agent's entry needs. Raises TransientError, PermanentError."""
    return _plan(work, _read(work))


def foresee(work: Work) -> tuple[RosterPlan, str | None]:
    """Plan the patch that the agent's entry needs, and say why it would be refused, if that is known.

    Raises TransientError, PermanentError.
    """
    live = _read(work)
    plan, record = _plan(work, live), work.record
    if plan.changed and (fault := entry_fault(record.roster_entry, work.dialect)) is not None:
        raise PermanentError(fault)
    return plan, foreseen_refusal(work.services.engine, record.gateway, record.address, live, plan)


def _read(work: Work) -> LiveRoster:
    live = read_roster(
        work.dialect,
        lambda: work.services.patiently(lambda: work.client.call("config.get")),
        lambda: work.services.patiently(lambda: work.client.call("agents.list")),
    )
    config = live.answer.get("config")
    heed_one_session(work.client, config)
    work.one_session = has_one_session(config)
    if heartbeats_switched_off(work.dialect, config):
        work.warn(CRON_OFF)
    return live


def _plan(work: Work, live: LiveRoster) -> RosterPlan:
    keeps = work.services.settings.keep_default_heartbeat
    return live.plan([work.record.roster_entry], keep_others_beating=keeps)
