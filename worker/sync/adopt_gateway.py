"""Adopts all agents of a gateway that nobody cares for: reads its roster once, and enqueues a job for each
(rules.md 48)."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from sqlalchemy import Connection, text

from worker.agents.execution import in_slot
from worker.agents.found_agent import look_at_roster
from worker.errors import reason_of
from worker.gateway.dialect import Dialect
from worker.jobs.executor import Ended, Outcome
from worker.jobs.messages import kind_message
from worker.jobs.requests import AdoptAgent, AdoptGateway, BadRequestError
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode, code_of
from worker.jobs.store.adoptions import end_adoption, start_adoption
from worker.jobs.store.cancelling import CANCELLED
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.jobs import enqueue
from worker.records.adoption import ids_in_care, require_board
from worker.records.gateway_repository import require_gateway
from worker.roster.circuit_breaker import check_circuit, connect_and_record
from worker.runtime.services import Services
from worker.sync.own_row import execute_own_row


def begin(connection: Connection, job_id: UUID, request: AdoptGateway) -> None:
    """Start the queued job. Raises BadRequestError for a gateway or board that cannot be meant."""
    gateway = connection.execute(_GATEWAY, {"id": request.gateway_id}).one_or_none()
    if gateway is None:
        raise BadRequestError(f"There is no gateway with gateway_id {request.gateway_id}.")
    require_board(connection, request.board_id, request.gateway_id, gateway.name)
    start_adoption(connection, job_id, request, gateway.organization_id)


def execute_adoption(services: Services, job_id: UUID, gateway_id: UUID | None) -> Outcome:
    """Claim the job's own row, look at the gateway, and enqueue the jobs that adopt its agents, if this
    process has a free slot for the gateway; None needs none. Raises only DATABASE_AWAY."""
    message = kind_message(AdoptGateway.kind, job_id, gateway_id)
    of_gateway = services.for_gateway(gateway_id, in_sync=False)
    work = partial(execute_own_row, of_gateway, job_id, AdoptGateway.kind, _look, _fail, asks_gateway=True)
    return in_slot(services, gateway_id, message, work)


def _look(services: Services, held: JobClaim) -> Ended | Snooze:
    if held.cancel_requested:
        return _end(services, held, "cancelled", CANCELLED, ReasonCode.CANCELLED)
    with services.engine.connect() as connection:
        gateway = require_gateway(connection, held.gateway_id)
    away = check_circuit(services, gateway)
    if away is not None:
        return away
    hello = connect_and_record(services, gateway)
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    roster = look_at_roster(services, services.clients.client(gateway.address), dialect)
    with services.engine.begin() as connection:
        in_care = ids_in_care(connection, gateway) & roster.live.known
        jobs = [
            {"openclaw_id": key, "job_id": str(_enqueue(connection, held, key))}
            for key in sorted(roster.live.known - in_care)
        ]
        result = {"dry_run": held.option("dry_run"), "jobs": jobs, "in_care": sorted(in_care)}
        end_adoption(connection, held, "succeeded", result=result)
    return Ended("succeeded")


def _enqueue(connection: Connection, held: JobClaim, openclaw_id: str) -> UUID:
    """Enqueue the job that adopts one agent, with the options of the whole job."""
    options = {name: value for name, value in held.options.items() if name in AdoptAgent.model_fields}
    options |= {"gateway_id": held.gateway_id, "openclaw_id": openclaw_id}
    return enqueue(connection, AdoptAgent.model_validate(options), parent=held.job_id).job_id


def _fail(services: Services, held: JobClaim, error: Exception) -> Ended:
    return _end(services, held, "failed", reason_of(error), code_of(error))


def _end(services: Services, held: JobClaim, status: str, reason: str, code: ReasonCode) -> Ended:
    with services.engine.begin() as connection:
        end_adoption(connection, held, status, error=reason, code=code)
    return Ended(status, reason)


_GATEWAY = text("SELECT name, organization_id FROM gateways WHERE id = :id")
