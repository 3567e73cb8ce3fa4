"""Heartbeat settings of many agents in one config change (behaviour 42).

Each agent is a row of the job; what they want of the roster meets in one batch of the roster writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import PermanentError
from worker.gateway.dialect import Dialect
from worker.jobs.ledger import Claim, advance, end_if_done, finish, park
from worker.jobs.requests import BadRequestError, SyncHeartbeats
from worker.provisioning.facts import load_agent
from worker.provisioning.gateway_door import greet, turned_away
from worker.provisioning.intents import record_intent, settled_intents
from worker.provisioning.roster_look import look
from worker.provisioning.services import Services
from worker.provisioning.work import ROSTER_PATIENCE_S, Parked, Verb, Work

HEARTBEATS = Verb("updating", "heartbeats", "updated", mints=False, serves_main=True)
_WAIT = "waiting for the roster writer"


def begin(connection: Connection, job_id: UUID, request: SyncHeartbeats) -> None:
    """Give the job a row for each agent, due now; a job without agents ends here. Raises BadRequestError."""
    gateway = connection.execute(_GATEWAY, {"id": request.gateway_id}).one_or_none()
    if gateway is None:
        raise BadRequestError(f"There is no gateway with gateway_id {request.gateway_id}.")
    wanted = request.agent_ids
    rows = connection.execute(_AGENTS, {"gateway_id": request.gateway_id, "agents": wanted}).all()
    missing: Sequence[UUID] = sorted(set(wanted or ()) - {row.id for row in rows}, key=str)
    if missing:
        raise BadRequestError(f"agent_ids: gateway {gateway.name!r} has no agent {missing[0]}.")
    connection.execute(
        _BEGIN,
        {
            "job_id": job_id,
            "total": len(rows),
            "organization_id": gateway.organization_id,
            "agents": [row.id for row in rows],
        },
    )
    end_if_done(connection, job_id)


def sync_heartbeat(services: Services, held: Claim) -> Parked | None:
    """One agent's turn: its entry is brought to its row, if the roster has one at all."""
    with services.engine.begin() as connection:
        record = load_agent(connection, held.agent_id, main=True)
        if held.phase == "roster":
            wish = settled_intents(connection, held.job_id, held.agent_id, "reconcile")[-1]
            if wish.error is not None:
                raise PermanentError(wish.error)
            if wish.open:
                park(connection, held, ROSTER_PATIENCE_S, _WAIT)
                return Parked(_WAIT)
            _end(connection, held)
            return None
        columns: dict[str, Any] = {"openclaw_id": record.openclaw_id}
        advance(connection, held, "intent", lease_s=services.settings.lease_s, **columns)
        held = replace(held, phase="intent")
    away = turned_away(services, record)
    if away is not None:
        return away
    hello = greet(services, record)
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    plan = look(Work(services, held, record, HEARTBEATS, dialect))
    if record.openclaw_id not in plan.present:
        raise PermanentError("It is not in its gateway's roster: provision it first.")
    with services.engine.begin() as connection:
        if plan.document is None:
            _end(connection, held)
            return None
        messages = record_intent(
            connection,
            gateway_id=record.gateway_id,
            agent_id=held.agent_id,
            job_id=held.job_id,
            change="reconcile",
            openclaw_id=record.openclaw_id,
        )
        park(connection, held, ROSTER_PATIENCE_S, _WAIT, "roster")
    services.publish(messages)
    return Parked(_WAIT)


def _end(connection: Connection, held: Claim) -> None:
    finish(connection, held, "succeeded", warnings=[], files={})
    end_if_done(connection, held.job_id)


_GATEWAY = text("SELECT name, organization_id FROM gateways WHERE id = :id")
_AGENTS = text("""
    SELECT id FROM agents
    WHERE gateway_id = :gateway_id AND (CAST(:agents AS uuid[]) IS NULL OR id = ANY(CAST(:agents AS uuid[])))
""")
_BEGIN = text("""
    WITH job AS (
        UPDATE provisioner.jobs
        SET status = 'running', started_at = now(), updated_at = now(), next_attempt_at = NULL,
            published_at = NULL, agents_total = :total, organization_id = :organization_id
        WHERE id = :job_id AND status = 'queued' RETURNING id
    )
    INSERT INTO provisioner.job_agents (job_id, agent_id, agent_name, board_id, next_attempt_at)
    SELECT job.id, a.id, a.name, a.board_id, now() FROM job, agents a WHERE a.id = ANY(:agents)
    ON CONFLICT DO NOTHING
""")
