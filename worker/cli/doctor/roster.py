"""Compares the gateway's roster and heartbeat automations with the agents' rows."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.cli.console import argument, counted, named
from worker.cli.doctor.fleet import Fleet
from worker.cli.doctor.orphans import by_hand, of_another_place, without_agent
from worker.cli.doctor.report import Finding
from worker.gateway.answers import Answer
from worker.gateway.connection import GatewayConnection
from worker.gateway.dialect import Dialect
from worker.gateway.heartbeats import AUTOMATIONS_QUERY, FENCED_HINT, automation_key, heartbeat_enabled
from worker.gateway.roster_plan import plan_roster, roster_entries
from worker.gateway.roster_reading import LiveRoster
from worker.records.agent_repository import AgentRecord
from worker.workspace.identity import derived_id

_CHECK = "roster"
_MOST_PAGES = 50
_MAKING_S = 3.5
"""A release makes an automation within this time (gateways.md 8: 3 s)."""


def check_roster(
    dialect: Dialect, parsed: Mapping[str, Any], fleet: Fleet, gateway: str
) -> Iterator[Finding]:
    """One finding for each kind of difference. ``parsed``: from config.get; ``gateway``: its name."""
    plan = plan_roster(dialect, parsed, [record.roster_entry for record in fleet.records])
    for sentence in fleet.refused:
        yield Finding(_CHECK, "fault", sentence)
    by_id = {record.openclaw_id: record.shown_name for record in fleet.records}
    for key, fault in plan.faults.items():
        yield Finding(_CHECK, "fault", f"Agent {by_id[key]!r}: {fault}", [by_id[key]])
    missing = [record for record in fleet.records if record.openclaw_id not in plan.present]
    yield from _missing(missing)
    yield from _moving(fleet, plan.patches, roster_entries(dialect, parsed))
    differing = _differing(fleet, plan.patches, plan.present)
    for keys, names in differing.items():
        yield Finding(
            _CHECK,
            "warning",
            f"{named(names)}: {keys} not as in the {'rows' if len(names) > 1 else 'row'}:"
            " `provisioner update NAME` puts it right,"
            f" `provisioner heartbeats {argument(gateway)}` heartbeats alone",
            names,
        )
    orphans = [key for key in without_agent(plan.present, fleet) if derived_id(key) is not None]
    yield from (_orphan(key, fleet, gateway) for key in orphans)
    if not (missing or differing or orphans or fleet.refused or plan.faults):
        yield Finding(_CHECK, "ok", f"agrees with the rows of {counted(len(fleet.records), 'agent')}")


def _missing(records: list[AgentRecord]) -> Iterator[Finding]:
    gone = [record.shown_name for record in records if record.provisioned_before]
    never = [record.shown_name for record in records if not record.provisioned_before]
    if gone:
        says = f"was provisioned but is not there any more: {named(gone)}; `provisioner provision NAME`"
        yield Finding(_CHECK, "fault", says, gone)
    if never:
        says = f"not there yet: {named(never)}; `provisioner provision NAME` provisions an agent"
        yield Finding(_CHECK, "warning", says, never)


def _moving(
    fleet: Fleet, patches: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    """The agents whose next roster write gives them another folder: no release moves their files there."""
    for record in fleet.records:
        patch, entry = patches.get(record.openclaw_id, {}), entries.get(record.openclaw_id)
        if "workspace" in patch and entry is not None:
            before = entry.get("workspace") or "the default folder"
            says = (
                f"{record.shown_name} has its notes and its token in {before}, and the next roster write will"
                f" point it to {patch['workspace']}, as gateways.workspace_root says: move the files there"
                " first, or set workspace_root back"
            )
            yield Finding(_CHECK, "warning", says, [record.shown_name])


def _differing(
    fleet: Fleet, patches: Mapping[str, Mapping[str, Any]], present: frozenset[str]
) -> dict[str, list[str]]:
    """The names of agents by the keys of their entries that differ, such as ``heartbeat.every``."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for record in fleet.records:
        if record.openclaw_id in present and record.openclaw_id in patches:
            found[" and ".join(_keys(patches[record.openclaw_id]))].append(record.shown_name)
    return dict(found)


def _keys(patch: Mapping[str, Any]) -> Iterator[str]:
    for key, value in patch.items():
        inner = [f"{key}.{name}" for name in value] if isinstance(value, Mapping) else []
        yield from inner or [key]


def _orphan(key: str, fleet: Fleet, gateway: str) -> Finding:
    """The finding for an entry that no agent should have. If its agent has a row, `provisioner delete` is not
    the cure, because it would delete the row too."""
    made = derived_id(key)
    says = of_another_place(key, fleet)
    if says is None and made is not None and made.role == "mc":
        cure = f"`provisioner delete {made.key} --gateway {argument(gateway)}` takes it away"
        says = f"{key} has no row, so nobody looks after it: {cure}"
    elif says is None:
        says = f"{key} has no row, so nobody looks after it: {by_hand(key)}"
    return Finding(_CHECK, "warning", says, [key])


def check_automations(
    connection: GatewayConnection, live: LiveRoster, records: Sequence[AgentRecord], deadline_s: float
) -> Iterator[Finding]:
    """One finding for all agents with a heartbeat block but no automation that runs it. Raises GatewayError.

    The gateway's automations are listed a second time if any is missing: it may not have been created yet.
    """
    if not live.dialect.has_scratch:
        return
    should = [
        record
        for record in records
        if live.entries.get(record.openclaw_id, {}).get("heartbeat") and heartbeat_enabled(record.heartbeat)
    ]
    still = should and _without(should, _declared(connection, deadline_s))
    if still:
        time.sleep(_MAKING_S)
        still = _without(still, _declared(connection, deadline_s))
    if still:
        names = [record.agent.name for record in still]
        yield Finding(
            "heartbeats", "warning", f"{named(names)}: no heartbeat automation. {FENCED_HINT}", names
        )


def _without(records: Sequence[AgentRecord], declared: set[str]) -> list[AgentRecord]:
    return [record for record in records if automation_key(record.openclaw_id) not in declared]


def _declared(connection: GatewayConnection, deadline_s: float) -> set[str]:
    """The declaration keys of all automations of the gateway."""
    found: set[str] = set()
    offset = 0
    for _ in range(_MOST_PAGES):
        answer = Answer(
            connection.call("cron.list", {**AUTOMATIONS_QUERY, "offset": offset}, deadline_s=deadline_s),
            "the gateway",
            "cron.list",
        )
        jobs = answer.records("jobs")
        found.update(str(job.value.get("declarationKey")) for job in jobs)
        offset += len(jobs)
        if not jobs or answer.value.get("hasMore") is not True:
            break
    return found
