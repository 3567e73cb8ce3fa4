"""Reads a gateway's config once for a whole sync, and plans which roster entries must change.

All changes are requested in one transaction, so that they become one config patch. Each workspace is read
later, when its agent's row is executed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.agents.agent_context import NOT_REGISTERED, render
from worker.agents.window_wait import disturbs, is_asked_rotation
from worker.database import DATABASE_AWAY
from worker.errors import PermanentError, TransientError, as_sentence, reason_of
from worker.gateway.dialect import Dialect
from worker.gateway.folders import workspace_changes
from worker.gateway.heartbeats import silenced_warning
from worker.gateway.owner_settings import CRON_OFF, heartbeats_switched_off
from worker.gateway.roster_plan import RosterEntry, RosterPlan, entry_fault
from worker.gateway.roster_reading import LiveRoster, read_roster
from worker.jobs.messages import Message
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode, Step, code_of
from worker.jobs.store.job_leases import JobClaim, park_job
from worker.jobs.store.sync_rows import ToCompare, settle_rows, store_agent_plans
from worker.records.agent_repository import load_agent
from worker.records.agent_settings import forget_fields
from worker.records.gateway_repository import GatewayRecord, require_gateway, wanted_entries
from worker.roster.batch import is_hidden, plan_without_faulty
from worker.roster.circuit_breaker import check_circuit, connect_and_record, refresh_one_session
from worker.roster.intents import ROSTER_RECHECK_S, Refusal, RosterChange, give_up_overdue, record_intents
from worker.roster.rewrite_permission import entry_stays, predicted_refusal, visibility_stays
from worker.roster.settings_check import check_settings, setting_refusal
from worker.runtime.services import Services

log = logging.getLogger(__name__)


@dataclass
class AgentPlan:
    """What a sync plans for one agent.

    ``position``: the agent's among the sync's rows, None for the main agent; ``phase``: the step at which
    the agent's row begins: ``files``; ``roster`` if the sync itself requests the change of the entry; or
    ``intent`` if the row requests it later, because another job holds the agent now.
    """

    agent_id: UUID
    position: int | None = None
    openclaw_id: str | None = None
    status: str = "pending"
    phase: str = "files"
    reason: str | None = None
    first_provision: bool | None = None
    roster: Mapping[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    reason_code: ReasonCode | None = None

    def end(self, status: str, reason: str, code: ReasonCode) -> None:
        """Plan to end the agent's row without touching the agent; ``code`` is the reason for programs."""
        self.status, self.reason, self.phase = status, as_sentence(reason), "looked"
        self.reason_code = code


@dataclass(frozen=True)
class Planned:
    """The plans of a sync that needs nothing written in the roster; they are not stored yet. ``read_at``:
    when the agents were read, as Unix time by the database's clock."""

    agents: Sequence[AgentPlan]
    read_at: float

    @property
    def to_compare(self) -> list[ToCompare]:
        """The agents, but for the main agent, whose rows go on."""
        return [
            ToCompare(
                agent.agent_id,
                agent.position,
                agent.openclaw_id,
                agent.roster,
                agent.warnings,
                agent.phase == "files" and not agent.first_provision,
                self.read_at,
            )
            for agent in self.agents
            if agent.position is not None and agent.status == "pending"
        ]

    def store(self, connection: Connection, held: JobClaim, but: Collection[UUID] = ()) -> None:
        """Store the plans, ``but`` for those of some agents. Raises LeaseLostError."""
        rest = [agent for agent in self.agents if agent.agent_id not in but]
        if rest:
            store_agent_plans(connection, held, [_stored(agent) for agent in rest], Step.COMPARE)


def _stored(agent: AgentPlan) -> dict[str, Any]:
    return {**vars(agent), "agent_id": str(agent.agent_id)}


def plan_agents(services: Services, held: JobClaim, reached: Reached) -> Snooze | Planned:
    """Read the roster and request the changes that it needs.

    Returns the snooze in which the sync then waits for the roster writer, or the plans if there are no
    changes and the sync goes on at once. Raises TransientError, WindowClosedError, PermanentError,
    LeaseLostError.
    """
    gateway, dialect = reached.gateway, reached.dialect
    with services.engine.connect() as connection:
        rows = connection.execute(_PENDING, {"job_id": held.job_id}).all()
        past = held.option("past_roll_outs") and held.option("dry_run")
        ids = [row.agent_id for row in rows]
        entries = wanted_entries(connection, gateway, ids, past_roll_outs=past)
    client = services.clients.client(gateway.address)
    live = read_roster(
        dialect,
        lambda: services.retry_inline(lambda: client.call("config.get")),
        lambda: services.retry_inline(lambda: client.call("agents.list")),
    )
    refresh_one_session(client, live.answer.get("config"))
    agents = [_plan_agent(row, entries, held, live.known) for row in rows]
    plan = _plan_roster(services, held, gateway, live, agents, entries)
    snooze = _request_changes(services, held, gateway, agents, plan, restarts=dialect.restarts)
    return snooze or Planned(agents, rows[0].read_at if rows else 0.0)


@dataclass(frozen=True)
class Reached:
    """A sync's gateway that has just answered. ``one_session``: it has one session for all agents."""

    gateway: GatewayRecord
    dialect: Dialect
    one_session: bool


def reach(services: Services, held: JobClaim) -> Reached | Snooze:
    """Connect to the sync's gateway, or return the snooze in which the sync waits for one that is down.

    Raises TransientError, PermanentError, and WindowClosedError for a sync that disturbs agents and has not
    begun.
    """
    with services.engine.connect() as connection:
        gateway = require_gateway(connection, held.gateway_id)
    if held.phase == Step.LOOK and disturbs(held.options):
        _require_window(gateway, held)
    away = check_circuit(services, gateway)
    if away is not None:
        return away
    hello = connect_and_record(services, gateway)
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    return Reached(gateway, dialect, hello.one_session)


def _require_window(gateway: GatewayRecord, held: JobClaim) -> None:
    """Raise WindowClosedError if the sync has to wait for a window of its gateway (rules.md 55)."""
    asked = is_asked_rotation(held.options, held.requested_by)
    gateway.windows.require_open(held.options, asked=asked)


def _plan_agent(
    row: Any, entries: Mapping[UUID, RosterEntry], held: JobClaim, present: frozenset[str]
) -> AgentPlan:
    agent = AgentPlan(row.agent_id, row.position)
    entry = entries.get(row.agent_id)
    if entry is None:
        return agent  # deleted, or on another gateway by now: its row's execution finds out which
    agent.openclaw_id = entry.openclaw_id
    agent.first_provision = entry.openclaw_id not in present
    if agent.first_provision and not held.option("rotate_tokens"):
        agent.end("skipped", NOT_REGISTERED, ReasonCode.NOT_REGISTERED)
    elif agent.first_provision and row.busy:
        agent.phase = "intent"
    return agent


def _plan_roster(
    services: Services,
    held: JobClaim,
    gateway: GatewayRecord,
    live: LiveRoster,
    agents: list[AgentPlan],
    entries: Mapping[UUID, RosterEntry],
) -> RosterPlan:
    """Plan one patch for all agents; the row of an agent that cannot be written ends here, before anything is
    touched."""

    def plan_all() -> RosterPlan:
        asked = {agent.openclaw_id: agent for agent in agents if agent.phase == "files" and agent.openclaw_id}
        keeps = services.settings.keep_default_heartbeat
        plan, refused = plan_without_faulty(
            lambda wanted: live.plan(wanted, keep_others_beating=keeps),
            [entries[agent.agent_id] for agent in asked.values()],
        )
        for openclaw_id, fault in plan.faults.items():
            refused[openclaw_id] = setting_refusal(entries[asked[openclaw_id].agent_id].name, fault)
        end_all(asked, refused)
        return plan

    def end_all(asked: Mapping[str, AgentPlan], refused: Mapping[str, Refusal]) -> None:
        for openclaw_id, refusal in refused.items():
            asked[openclaw_id].end("failed", refusal.sentence, refusal.code)

    for agent in agents:
        entry = entries.get(agent.agent_id)
        fault = entry_fault(entry, live.dialect) if entry is not None and agent.phase == "files" else None
        if fault is not None:
            agent.end("failed", fault, ReasonCode.PERMANENT_ERROR)
    plan = plan_all()
    for agent in agents:
        if agent.openclaw_id in plan.changed and agent.phase == "files":
            _require_rendering(services, held, live.dialect, agent)
    plan = plan_all()
    if held.option("dry_run"):  # else the roster writer does
        client = services.clients.client(gateway.address)
        names = {entry.openclaw_id: entry.name for entry in entries.values()}
        if refused := check_settings(client, live, plan, names):
            end_all({agent.openclaw_id: agent for agent in agents if agent.openclaw_id}, refused)
            plan = plan_all()
    differing = [agent for agent in agents if agent.openclaw_id in plan.changed and agent.phase == "files"]
    if plan.document is not None and not differing:
        # Only a setting of no agent differs (heartbeat visibility): one agent's intent has it written.
        differing = [agent for agent in agents if agent.phase == "files" and agent.openclaw_id][:1]
    for agent in agents:
        if agent.phase == "files" and agent.openclaw_id:
            agent.roster = plan.change_of(agent.openclaw_id)
            former = plan.former.get(agent.openclaw_id)
            if former is not None and held.option("past_roll_outs"):
                shown = {name: value for name, value in former.items() if not is_hidden(name, value)}
                agent.roster = {**agent.roster, "former": shown}
            if held.option("dry_run") or agent.openclaw_id not in plan.changed:
                agent.warnings += plan.notes_on(agent.openclaw_id)
    if held.option("dry_run"):
        refusal = predicted_refusal(services.engine, gateway.gateway, gateway.address, live, plan)
        if refusal is not None:
            _predict_refusal(refusal, plan, differing)
        else:
            _warn_of_write(live, plan, differing)
    if heartbeats_switched_off(live.dialect, live.answer.get("config")):
        for agent in agents:
            if agent.status == "pending":
                agent.warnings.append(CRON_OFF)
    if not held.option("dry_run"):
        for agent in differing:
            agent.phase = "roster"
    return plan


def _warn_of_write(live: LiveRoster, plan: RosterPlan, differing: list[AgentPlan]) -> None:
    """In a dry run, warn of the side effects of which the roster writer would warn."""
    if plan.silenced:
        differing[0].warnings.append(silenced_warning(live.dialect, plan.silenced))
    changes = workspace_changes(live, plan)
    for agent in differing:
        if (change := changes.get(str(agent.openclaw_id))) is not None:
            agent.warnings.append(change)


def _predict_refusal(refusal: Refusal, plan: RosterPlan, differing: list[AgentPlan]) -> None:
    """In a dry run, report for each agent what the sync would report when the patch is refused."""
    for agent in differing:
        if not plan.changed:
            agent.warnings.append(visibility_stays(refusal))
        elif agent.first_provision:
            agent.end("failed", refusal.sentence, refusal.code)
        else:
            agent.warnings.append(entry_stays(refusal))


def _require_rendering(services: Services, held: JobClaim, dialect: Dialect, agent: AgentPlan) -> None:
    """Render the agent's workspace before anything is touched; an error ends its row and no other."""
    user_id = held.options.get("user_id")
    try:
        with services.engine.connect() as connection:
            record = load_agent(connection, agent.agent_id, UUID(user_id) if user_id else None, main=True)
        render(record, dialect, services.settings, skip_bad_overrides=held.option("rotate_tokens"))
    except PermanentError as error:
        agent.end("failed", str(error), code_of(error))
    except (TransientError, *DATABASE_AWAY):
        raise
    except Exception as error:
        log.exception("agent %s: failed by a fault of our own", agent.agent_id)
        agent.end("failed", reason_of(error), code_of(error))


def _request_changes(
    services: Services,
    held: JobClaim,
    gateway: GatewayRecord,
    agents: list[AgentPlan],
    plan: RosterPlan,
    *,
    restarts: bool,
) -> Snooze | None:
    """Request the roster changes, store the plans, and wait for the roster writer; None if it has nothing to
    write.

    ``restarts``: what the writer writes restarts the gateway, or may.
    """
    over = {} if held.option("dry_run") else plan.over
    asked = [agent for agent in agents if agent.phase == "roster"]
    if not asked:
        if over:
            with services.engine.begin() as connection:
                forget_fields(connection, gateway.gateway_id, over)
        return None
    if restarts:
        _require_window(gateway, held)
    with services.engine.begin() as connection:
        store_agent_plans(connection, held, [_stored(agent) for agent in agents], Step.ROSTER)
        changes = [
            RosterChange(agent.agent_id, str(agent.openclaw_id), only_present=not agent.first_provision)
            for agent in asked
        ]
        forget_fields(connection, gateway.gateway_id, over)
        messages: list[Message] = record_intents(connection, gateway.gateway_id, held.job_id, *changes)
        park_job(connection, held, _roster_wait_s(services))
    services.publish(messages)
    return Snooze("waiting for the roster writer")


def resume_after_writer(services: Services, held: JobClaim) -> Snooze | None:
    """Go on if the roster writer has settled all intents of the sync, else return the snooze in which it
    waits. Agents whose change was refused fail."""
    with services.engine.begin() as connection:
        give_up_overdue(connection, held.job_id, services.settings.retry_timeout_s)
        # Locked, so that a sync that parks because an intent is open is parked before the writer settles it.
        if connection.execute(_STILL_OPEN, {"job_id": held.job_id}).first() is not None:
            park_job(connection, held, _roster_wait_s(services))
            return Snooze("waiting for the roster writer")
        settle_rows(connection, held, Step.COMPARE)
    return None


def _roster_wait_s(services: Services) -> float:
    """Seconds after which a sync that waits for the roster writer looks again unprompted: a tenth of the
    retry timeout (1 to 60), so that it gives up soon after it."""
    return min(ROSTER_RECHECK_S, max(1.0, services.settings.retry_timeout_s / 10))


_PENDING = text("""
    SELECT r.agent_id, r.position, extract(epoch FROM now())::float AS read_at, EXISTS (
        SELECT FROM provisioner.job_agents o WHERE o.agent_id = r.agent_id AND o.status = 'running'
    ) AS busy
    FROM provisioner.job_agents r WHERE r.job_id = :job_id AND r.status = 'pending'
    ORDER BY r.position NULLS LAST
""")
_STILL_OPEN = text("""
    SELECT id FROM provisioner.roster_intents
    WHERE job_id = :job_id AND applied_at IS NULL AND error IS NULL ORDER BY id FOR UPDATE
""")
