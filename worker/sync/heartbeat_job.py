"""Syncs the heartbeat settings of many agents in one config change (rules.md 42).

The job requests the changes of all entries at once. It holds no agent and talks to no gateway: the roster
writer computes the entries from the agents' rows when it writes the roster.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import reason_of
from worker.jobs.executor import Ended, Outcome
from worker.jobs.messages import Message
from worker.jobs.requests import BadRequestError, SyncHeartbeats
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import code_of
from worker.jobs.store.cancelling import withdraw
from worker.jobs.store.heartbeat_rows import end_if_done, end_settled, start_heartbeats
from worker.jobs.store.job_leases import JobClaim, park_job
from worker.jobs.store.jobs import ending_of
from worker.records.places import LIVE_PLACES, home_of, places_of
from worker.roster.intents import ROSTER_RECHECK_S, RosterChange, give_up_overdue, record_intents
from worker.runtime.services import Services
from worker.sync.own_row import execute_own_row


def begin(
    connection: Connection, job_id: UUID, request: SyncHeartbeats, budget_s: float = ROSTER_RECHECK_S
) -> list[Message]:
    """Create a row for each agent and request the roster changes. A job in which no agent's entry has to be
    written ends here.

    Returns the messages to send after the commit. Raises BadRequestError.
    """
    gateway = connection.execute(_GATEWAY, {"id": request.gateway_id}).one_or_none()
    if gateway is None:
        raise BadRequestError(f"There is no gateway with gateway_id {request.gateway_id}.")
    wanted = request.agent_ids
    rows = connection.execute(_AGENTS, {"gateway_id": request.gateway_id, "agents": wanted}).all()
    missing: Sequence[UUID] = sorted(set(wanted or ()) - {row.id for row in rows}, key=str)
    if missing:
        raise BadRequestError(f"agent_ids: gateway {gateway.name!r} has no agent {missing[0]}.")
    without_board = [row.id for row in rows if row.board_id is None and not row.is_main]
    places = {
        row.id: home_of(row, "", places_of(row.places)).openclaw_id
        for row in rows
        if row.id not in without_board
    }
    start_heartbeats(
        connection,
        job_id,
        gateway.organization_id,
        agents=[row.id for row in rows],
        without_board=without_board,
        recheck_s=min(ROSTER_RECHECK_S, budget_s),
    )
    changes = [RosterChange(agent_id, place, only_present=True) for agent_id, place in places.items()]
    messages = record_intents(connection, request.gateway_id, job_id, *changes)
    end_if_done(connection, job_id)
    return messages


def execute_heartbeats(services: Services, job_id: UUID) -> Outcome:
    """Claim the job's own row and end the agents' rows whose intents are settled; the job ends with the last
    of them.

    Intents that have been open for RETRY_TIMEOUT_S are refused. Raises only DATABASE_AWAY.
    """
    return execute_own_row(services, job_id, "sync_heartbeats", _settle, _fail, asks_gateway=False)


def _settle(services: Services, held: JobClaim) -> Ended | Snooze:
    budget_s = services.settings.retry_timeout_s
    with services.engine.begin() as connection:
        give_up_overdue(connection, held.job_id, budget_s)
        ended = _end_settled(connection, held)
        if ended is None:
            park_job(connection, held, min(ROSTER_RECHECK_S, max(1.0, budget_s / 10)))
    return ended or Snooze("waiting for the roster writer")


def _fail(services: Services, held: JobClaim, error: Exception) -> Ended | Snooze:
    """End the rows that the roster writer has not settled, and with them the job."""
    with services.engine.begin() as connection:
        withdraw(connection, held.job_id, reason_of(error), code_of(error))
        ended = _end_settled(connection, held)
    assert ended is not None
    return ended


def _end_settled(connection: Connection, held: JobClaim) -> Ended | None:
    end_settled(connection, held.job_id)
    end_if_done(connection, held.job_id)
    ending = ending_of(connection, held.job_id)
    return None if ending is None else Ended(*ending)


_GATEWAY = text("SELECT name, organization_id FROM gateways WHERE id = :id")
_AGENTS = text(f"""
    SELECT a.id, a.board_id, a.is_board_lead, a.gateway_id, {LIVE_PLACES} AS places,
        a.board_id IS NULL AND a.id = (
            SELECT id FROM agents WHERE gateway_id = :gateway_id AND board_id IS NULL
            ORDER BY created_at, id LIMIT 1
        ) AS is_main
    FROM agents a
    WHERE a.gateway_id = :gateway_id
      AND (CAST(:agents AS uuid[]) IS NULL OR a.id = ANY(CAST(:agents AS uuid[])))
""")
