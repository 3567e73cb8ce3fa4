"""doctor: agents that have a heartbeat block and no automation that runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from worker.cli.findings import Finding, named
from worker.gateway.answers import Answer
from worker.gateway.connection import GatewayConnection
from worker.gateway.heartbeats import AUTOMATIONS, FENCED, automation_key, beats
from worker.gateway.roster_reading import LiveRoster
from worker.provisioning.facts import AgentRecord

_MOST_PAGES = 50
_MAKING_S = 3.5
"""How long a release needs at most to make an automation (gateways.md 8: 3 s)."""


def check_automations(
    connection: GatewayConnection, live: LiveRoster, records: Sequence[AgentRecord], deadline_s: float
) -> Iterator[Finding]:
    """One finding for all agents that should beat and cannot, from one listing of the gateway's automations;
    a second one tells those whose automation is just being made. Raises GatewayError."""
    if not live.dialect.has_scratch:
        return
    should = [
        record
        for record in records
        if live.entries.get(record.openclaw_id, {}).get("heartbeat") and beats(record.heartbeat)
    ]
    still = should and _without(should, _declared(connection, deadline_s))
    if still:
        time.sleep(_MAKING_S)
        still = _without(still, _declared(connection, deadline_s))
    if still:
        names = [record.agent.name for record in still]
        yield Finding("heartbeats", "warning", f"{named(names)}: no heartbeat automation. {FENCED}", names)


def _without(records: Sequence[AgentRecord], declared: set[str]) -> list[AgentRecord]:
    return [record for record in records if automation_key(record.openclaw_id) not in declared]


def _declared(connection: GatewayConnection, deadline_s: float) -> set[str]:
    """The keys of all automations."""
    found: set[str] = set()
    offset = 0
    for _ in range(_MOST_PAGES):
        answer = Answer(
            connection.call("cron.list", {**AUTOMATIONS, "offset": offset}, deadline_s=deadline_s),
            "the gateway",
            "cron.list",
        )
        jobs = answer.records("jobs")
        found.update(str(job.value.get("declarationKey")) for job in jobs)
        offset += len(jobs)
        if not jobs or answer.value.get("hasMore") is not True:
            break
    return found
