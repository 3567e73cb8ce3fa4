"""What a roster says of one agent, and what would have to change; nothing is written."""

from __future__ import annotations

from worker.gateway.roster import RosterPlan, plan_roster
from worker.gateway.roster_reading import read_roster
from worker.provisioning.work import Work


def look(work: Work) -> RosterPlan:
    """The patch that the agent's entry needs. Raises TransientError, PermanentError."""
    record = work.record
    live = read_roster(work.dialect, lambda method: work.services.patiently(lambda: work.client.call(method)))
    return plan_roster(work.dialect, live.document, [record.roster_entry])
