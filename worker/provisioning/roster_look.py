"""What a roster says of one agent, and what would have to change; nothing is written."""

from __future__ import annotations

from worker.gateway.roster import RosterPlan
from worker.gateway.roster_reading import read_roster
from worker.provisioning.work import Work


def look(work: Work) -> RosterPlan:
    """The patch that the agent's entry needs. Raises TransientError, PermanentError."""
    record = work.record
    live = read_roster(
        work.dialect,
        lambda: work.services.patiently(lambda: work.client.call("config.get")),
        lambda: work.services.patiently(lambda: work.client.call("agents.list")),
    )
    return live.plan([record.roster_entry])
