"""Reads a gateway's config once for a whole sync and finds which roster entries differ or are missing.

All changes are asked for in one transaction, so that they become one config patch. The workspaces are read
later, each when its agent's row is executed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.agents.agent_context import NOT_REGISTERED, render
from worker.database import DATABASE_AWAY
from worker.errors import PermanentError, TransientError, as_sentence, reason_of
from worker.gateway.dialect import Dialect
from worker.gateway.heartbeats import silenced_warning
from worker.gateway.owner_settings import CRON_OFF, heartbeats_switched_off
from worker.gateway.roster_plan import RosterEntry, RosterPlan, entry_fault
from worker.gateway.roster_reading import LiveRoster, read_roster
from worker.jobs.messages import Message
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode, code_of
from worker.jobs.store.job_leases import JobClaim, park_job
from worker.jobs.store.sync_jobs import SWEEP_S
from worker.jobs.store.sync_rows import note_findings, open_next_rows, settle_rows
from worker.records.agent_repository import load_agent
from worker.records.gateway_repository import GatewayRecord, load_gateway, wanted_entries
from worker.roster.batch import plan_without_faulty
from worker.roster.circuit_breaker import greet, heed_one_session, wait_for_outage
from worker.roster.intents import ROSTER_RECHECK_S, Refusal, RosterChange, give_up_overdue, record_intents
from worker.roster.rewrite_permission import entry_stays, foreseen_refusal, visibility_stays
from worker.runtime.services import Services

log = logging.getLogger(__name__)


@dataclass
class Finding:
    """What was found out about one agent.

    ``phase``: the step at which its row begins: files, roster (the sync asks for the change of its entry), or
    intent (the row asks for it, once no other job holds the agent).
    """

    agent_id: UUID
    openclaw_id: str | None = None
    status: str = "pending"
    phase: str = "files"
    reason: str | None = None
    first_provision: bool | None = None
    roster: Mapping[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    reason_code: ReasonCode | None = None

    def end(self, status: str, reason: str, code: ReasonCode) -> None:
        """End the agent's row without touching the agent; ``code`` is the reason for programs."""
        self.status, self.reason, self.phase = status, as_sentence(reason), "looked"
        self.reason_code = code


def look(services: Services, held: JobClaim) -> Snooze | None:
    """Read the roster and ask for the changes that it needs; if it needs none, begin the agents.

    Snoozes while the gateway is away. Raises TransientError, PermanentError, LeaseLostError.
    """
    with services.engine.connect() as connection:
        gateway = load_gateway(connection, held.gateway_id)
        if gateway is None:
            raise PermanentError(f"Gateway {held.gateway_id} does not exist any more.")
        rows = connection.execute(_PENDING, {"job_id": held.job_id}).all()
        entries = wanted_entries(connection, gateway, [row.agent_id for row in rows])
    away = wait_for_outage(services, gateway)
    if away is not None:
        return away
    hello = greet(services, gateway)
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    client = services.clients.client(gateway.address)
    live = read_roster(
        dialect,
        lambda: services.patiently(lambda: client.call("config.get")),
        lambda: services.patiently(lambda: client.call("agents.list")),
    )
    heed_one_session(client, live.answer.get("config"))
    findings = [_find(row, entries, held, live.present) for row in rows]
    plan = _plan(services, held, gateway, live, findings, entries)
    return _note(services, held, gateway, findings, plan)


def _find(row: Any, entries: Mapping[UUID, RosterEntry], held: JobClaim, present: frozenset[str]) -> Finding:
    found = Finding(row.agent_id)
    entry = entries.get(row.agent_id)
    if entry is None:
        return found  # deleted, or on another gateway by now: its row's execution finds out which
    found.openclaw_id = entry.openclaw_id
    found.first_provision = entry.openclaw_id not in present
    if found.first_provision and not held.option("rotate_tokens"):
        found.end("skipped", NOT_REGISTERED, ReasonCode.NOT_REGISTERED)
    elif found.first_provision and row.busy:
        found.phase = "intent"
    return found


def _plan(
    services: Services,
    held: JobClaim,
    gateway: GatewayRecord,
    live: LiveRoster,
    findings: list[Finding],
    entries: Mapping[UUID, RosterEntry],
) -> RosterPlan:
    """Plan one patch for all agents; the row of an agent that cannot be written ends here, before anything is
    touched."""

    def plan_all() -> RosterPlan:
        asked = {f.openclaw_id: f for f in findings if f.phase == "files" and f.openclaw_id}
        keeps = services.settings.keep_default_heartbeat
        plan, refused = plan_without_faulty(
            lambda wanted: live.plan(wanted, keep_others_beating=keeps),
            [entries[found.agent_id] for found in asked.values()],
        )
        for openclaw_id, refusal in refused.items():
            asked[openclaw_id].end("failed", refusal.sentence, refusal.code)
        return plan

    for found in findings:
        entry = entries.get(found.agent_id)
        fault = entry_fault(entry, live.dialect) if entry is not None and found.phase == "files" else None
        if fault is not None:
            found.end("failed", fault, ReasonCode.PERMANENT_ERROR)
    plan = plan_all()
    for found in findings:
        if found.openclaw_id in plan.changed and found.phase == "files":
            _require_writable(services, held, live.dialect, found)
    plan = plan_all()
    differing = [f for f in findings if f.openclaw_id in plan.changed and f.phase == "files"]
    if plan.document is not None and not differing:
        # Only a setting of no agent differs (heartbeat visibility): one agent's intent has it written.
        differing = [f for f in findings if f.phase == "files" and f.openclaw_id][:1]
    for found in findings:
        if found.phase == "files" and found.openclaw_id:
            found.roster = plan.change_of(found.openclaw_id)
    if held.option("dry_run"):
        refusal = foreseen_refusal(services.engine, gateway.gateway, gateway.address, live, plan)
        if refusal is not None:
            _foretell(refusal, plan, differing)
        elif plan.silenced:
            differing[0].warnings.append(silenced_warning(live.dialect, plan.silenced))
    if heartbeats_switched_off(live.dialect, live.answer.get("config")):
        for found in findings:
            if found.status == "pending":
                found.warnings.append(CRON_OFF)
    if not held.option("dry_run"):
        for found in differing:
            found.phase = "roster"
    return plan


def _foretell(refusal: Refusal, plan: RosterPlan, differing: list[Finding]) -> None:
    """In a dry run, report for each agent what the sync would report when the patch is refused."""
    for found in differing:
        if not plan.changed:
            found.warnings.append(visibility_stays(refusal))
        elif found.first_provision:
            found.end("failed", refusal.sentence, refusal.code)
        else:
            found.warnings.append(entry_stays(refusal))


def _require_writable(services: Services, held: JobClaim, dialect: Dialect, found: Finding) -> None:
    """Render the agent's workspace before anything is touched; an error ends its row and no other."""
    user_id = held.options.get("user_id")
    try:
        with services.engine.connect() as connection:
            record = load_agent(connection, found.agent_id, UUID(user_id) if user_id else None, main=True)
        render(record, dialect, services.settings, skip_bad_overrides=held.option("rotate_tokens"))
    except PermanentError as error:
        found.end("failed", str(error), code_of(error))
    except (TransientError, *DATABASE_AWAY):
        raise
    except Exception as error:
        log.exception("agent %s: failed by a fault of our own", found.agent_id)
        found.end("failed", reason_of(error), code_of(error))


def _note(
    services: Services, held: JobClaim, gateway: GatewayRecord, findings: list[Finding], plan: RosterPlan
) -> Snooze:
    """Store the findings; then wait for the roster writer if it has work to do, else begin the agents."""
    asked = [found for found in findings if found.phase == "roster"]
    with services.engine.begin() as connection:
        rows = [{**vars(found), "agent_id": str(found.agent_id)} for found in findings]
        note_findings(connection, held.job_id, rows)
        changes = [
            RosterChange(found.agent_id, str(found.openclaw_id), only_present=not found.first_provision)
            for found in asked
        ]
        messages: list[Message] = record_intents(connection, gateway.gateway_id, held.job_id, *changes)
        if asked:
            park_job(connection, held, _roster_wait_s(services), "roster")
        else:
            messages += begin_agents(connection, held)
    services.publish(messages)
    return Snooze("waiting for the roster writer" if asked else "its agents are being worked at")


def begin_agents(connection: Connection, held: JobClaim) -> list[Message]:
    """Park the sync and open the rows of its first agents; returns messages to send after the commit.

    Raises LeaseLostError.
    """
    park_job(connection, held, SWEEP_S, "agents")
    return open_next_rows(connection, held.job_id)[0]


def settle(services: Services, held: JobClaim) -> Snooze:
    """Begin the agents once the roster writer is done; rows whose change it refused fail."""
    with services.engine.begin() as connection:
        give_up_overdue(connection, held.job_id, services.settings.retry_timeout_s)
        # Locked, so that a sync that parks because an intent is open is parked before the writer settles it.
        if connection.execute(_STILL_OPEN, {"job_id": held.job_id}).first() is not None:
            park_job(connection, held, _roster_wait_s(services))
            return Snooze("waiting for the roster writer")
        settle_rows(connection, held.job_id)
        messages = begin_agents(connection, held)
    services.publish(messages)
    return Snooze("its agents are being worked at")


def _roster_wait_s(services: Services) -> float:
    """Seconds after which a sync that waits for the roster writer looks again unprompted: a tenth of the
    retry timeout (1 to 60), so that it gives up soon after it."""
    return min(ROSTER_RECHECK_S, max(1.0, services.settings.retry_timeout_s / 10))


_PENDING = text("""
    SELECT r.agent_id, EXISTS (
        SELECT FROM provisioner.job_agents o WHERE o.agent_id = r.agent_id AND o.status = 'running'
    ) AS busy
    FROM provisioner.job_agents r WHERE r.job_id = :job_id AND r.status = 'pending'
    ORDER BY r.position NULLS LAST
""")
_STILL_OPEN = text("""
    SELECT id FROM provisioner.roster_intents
    WHERE job_id = :job_id AND applied_at IS NULL AND error IS NULL ORDER BY id FOR UPDATE
""")
