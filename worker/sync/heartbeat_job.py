"""Syncs the heartbeat settings of many agents in one config change (rules.md 42).

The job requests the changes of all entries at once. It holds no agent: the roster writer computes the
entries from the agents' rows when it writes the roster. Only while a sync window is closed does the job ask
the gateway itself, whether such a change restarts it (rules.md 55).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import reason_of
from worker.gateway.dialect import Dialect
from worker.jobs.executor import Ended, Outcome
from worker.jobs.messages import Message
from worker.jobs.requests import BadRequestError, SyncHeartbeats
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode, Step, code_of
from worker.jobs.store.cancelling import withdraw
from worker.jobs.store.heartbeat_rows import end_absent, end_if_done, end_settled, start_heartbeats
from worker.jobs.store.job_leases import JobClaim, park_job
from worker.jobs.store.jobs import ending_of
from worker.jobs.store.sync_rows import end_pending
from worker.records.gateway_repository import require_gateway
from worker.records.places import LIVE_PLACES, home_of, places_of
from worker.records.sync_windows import GatewayWindows, WindowClosedError, windows_of, windows_sql
from worker.roster.circuit_breaker import check_circuit, connect_and_record
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
    places = _places(row for row in rows if row.id not in without_board)
    closed = _closed(windows_of(gateway.windows), request.options()) is not None
    start_heartbeats(
        connection,
        job_id,
        gateway.organization_id,
        agents=[row.id for row in rows],
        without_board=without_board,
        recheck_s=min(ROSTER_RECHECK_S, budget_s),
        phase=Step.LOOK if closed else Step.ROSTER,
    )
    messages = [] if closed else _ask(connection, request.gateway_id, job_id, places)
    end_if_done(connection, job_id)
    return messages


def _ask(connection: Connection, gateway_id: UUID, job_id: UUID, places: Mapping[UUID, str]) -> list[Message]:
    """Request the changes. ``places``: the agents' ids on their gateway."""
    changes = [RosterChange(agent_id, place, only_present=True) for agent_id, place in places.items()]
    return record_intents(connection, gateway_id, job_id, *changes)


def _places(rows: Iterable[Any]) -> dict[UUID, str]:
    return {row.id: home_of(row, "", places_of(row.places)).openclaw_id for row in rows}


def _closed(windows: GatewayWindows, options: Mapping[str, Any]) -> WindowClosedError | None:
    try:
        windows.require_open(options, asked=False)
    except WindowClosedError as closed:
        return closed
    return None


def execute_heartbeats(services: Services, job_id: UUID) -> Outcome:
    """Claim the job's own row and end the agents' rows whose intents are settled; the job ends with the last
    of them.

    Intents that have been open for RETRY_TIMEOUT_S are refused. Raises only DATABASE_AWAY.
    """
    return execute_own_row(services, job_id, "sync_heartbeats", _step, _fail, asks_gateway=True)


def _step(services: Services, held: JobClaim) -> Ended | Snooze:
    return _look(services, held) if held.phase == Step.LOOK else _settle(services, held)


def _look(services: Services, held: JobClaim) -> Ended | Snooze:
    """Request the changes, unless they would restart the gateway while its window is closed."""
    with services.engine.connect() as connection:
        gateway = require_gateway(connection, held.gateway_id)
    closed = _closed(gateway.windows, held.options)
    if closed is not None:
        away = check_circuit(services, gateway)
        if away is not None:
            return away
        hello = connect_and_record(services, gateway)
        if not Dialect.from_hello(hello.server_version, hello.methods).restarts:
            closed = None
    with services.engine.begin() as connection:
        if closed is not None:
            reason, code = str(closed), ReasonCode.WAITING_FOR_WINDOW
            park_job(connection, held, closed.wait_from_now(connection), reason=reason, code=code)
            return Snooze(reason, code=code)
        waiting = connection.execute(_WAITING, {"job_id": held.job_id}).scalars().all()
        parameters = {"gateway_id": held.gateway_id, "agents": waiting}
        places = _places(connection.execute(_AGENTS, parameters))
        end_absent(connection, held.job_id, list(places))
        messages = _ask(connection, held.gateway_id, held.job_id, places)
        park_job(connection, held, ROSTER_RECHECK_S, Step.ROSTER)
    services.publish(messages)
    return Snooze("waiting for the roster writer")


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
        if held.phase == Step.LOOK:
            end_pending(connection, held.job_id, "failed", reason_of(error), code=code_of(error))
        ended = _end_settled(connection, held)
    assert ended is not None
    return ended


def _end_settled(connection: Connection, held: JobClaim) -> Ended | None:
    end_settled(connection, held.job_id)
    end_if_done(connection, held.job_id)
    ending = ending_of(connection, held.job_id)
    return None if ending is None else Ended(*ending)


_GATEWAY = text(f"""
    SELECT g.name, g.organization_id, {windows_sql("SELECT g.id")} AS windows FROM gateways g WHERE g.id = :id
""")
_WAITING = text("SELECT agent_id FROM provisioner.job_agents WHERE job_id = :job_id AND status = 'pending'")
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
