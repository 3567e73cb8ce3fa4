"""What a roster says of one agent, and what would have to change; nothing is written."""

from __future__ import annotations

from worker.gateway.owner_settings import CRON_OFF, has_one_session, heartbeats_stand_still
from worker.gateway.roster import RosterPlan
from worker.gateway.roster_reading import read_roster
from worker.provisioning.gateway_door import heed_one_session
from worker.provisioning.work import Work


def look(work: Work) -> RosterPlan:
    """The patch that the agent's entry needs. Raises TransientError, PermanentError."""
    record = work.record
    live = read_roster(
        work.dialect,
        lambda: work.services.patiently(lambda: work.client.call("config.get")),
        lambda: work.services.patiently(lambda: work.client.call("agents.list")),
    )
    config = live.answer.get("config")
    heed_one_session(work.client, config)
    work.one_session = has_one_session(config)
    if heartbeats_stand_still(work.dialect, config):
        work.warn(CRON_OFF)
    keeps = work.services.settings.keep_default_heartbeat
    return live.plan([record.roster_entry], keeps_beating=keeps)
