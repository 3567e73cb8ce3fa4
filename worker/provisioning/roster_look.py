"""What a roster says of one agent, and what would have to change: one config.get, nothing written."""

from __future__ import annotations

from collections.abc import Mapping

from worker.gateway.roster import RosterEntry, RosterPlan, plan_roster
from worker.provisioning.work import Work


def look(work: Work) -> RosterPlan:
    """The patch that the agent's entry needs. Raises TransientError, PermanentError."""
    record = work.record
    config = work.services.patiently(lambda: work.client.call("config.get"))
    work.dialect.confirm(config)
    parsed = config.get("parsed")
    entry = RosterEntry(record.openclaw_id, record.agent.name, record.workspace, record.heartbeat)
    return plan_roster(work.dialect, parsed if isinstance(parsed, Mapping) else {}, [entry])
