"""Makes a bundle of an agent, and changes nothing on its gateway or in its row (rules.md 52)."""

from __future__ import annotations

from worker.agents.bundle_reading import read_bundle, rows_alone
from worker.jobs.retry_policy import Snooze
from worker.jobs.store.job_agents import Claim, finish
from worker.records.agent_repository import load_agent
from worker.records.bundles import keep
from worker.records.gateway_repository import require_gateway
from worker.roster.circuit_breaker import check_circuit, connect_and_record
from worker.runtime.services import Services


def export(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
    """Keep a bundle of the agent; return None once its row of the job has succeeded, or the snooze in which
    it waits.

    Adds to ``warnings``. Raises TransientError, PermanentError, LeaseLostError.
    """
    with services.engine.connect() as connection:
        record = load_agent(connection, held.agent_id, main=True)
        gateway = require_gateway(connection, record.gateway_id)
    away = check_circuit(services, gateway)
    if away is not None:
        return away
    connect_and_record(services, gateway)
    bundle = read_bundle(services, held.agent_id, record.home, gateway)
    if not bundle.whole:
        warnings.append(rows_alone(bundle))
    with services.engine.begin() as connection:
        keys = services.settings.bundle_keys
        bundle_id = keep(connection, held.agent_id, bundle, "export", keys, job_id=held.job_id)
        result = {"bundle": str(bundle_id), "openclaw_id": record.openclaw_id}
        finish(connection, held, "succeeded", result=result, warnings=warnings, files={})
    return None
