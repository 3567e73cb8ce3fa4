"""Executes agents' rows in this process, each with the handler that its task hands over."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from sqlalchemy import text

from worker.agents import execution
from worker.agents.adopt_job import adopt
from worker.agents.agent_job import PROVISION, PROVISION_MAIN, SYNC, UPDATE, reconcile
from worker.agents.delete_job import delete
from worker.agents.export_job import export
from worker.agents.restore_job import restore
from worker.agents.rollback_job import roll_back
from worker.jobs.executor import Outcome
from worker.runtime.services import Services

HANDLERS: dict[str, execution.Handler] = {
    "provision_agent": partial(reconcile, profile=PROVISION),
    "update_agent": partial(reconcile, profile=UPDATE),
    "delete_agent": delete,
    "adopt_agent": adopt,
    "rollback": roll_back,
    "export_agent": export,
    "restore_agent": restore,
    "provision_gateway_main": partial(reconcile, profile=PROVISION_MAIN),
    "sync_gateway": partial(reconcile, profile=SYNC),
}
_KIND = text("SELECT kind FROM provisioner.jobs WHERE id = :id")


def execute_agent_row(services: Services, job_id: UUID, agent_id: UUID, kind: str | None = None) -> Outcome:
    """Execute an agent's row of a job of that kind; None looks it up, by a statement of its own."""
    if kind is None:
        with services.engine.connect() as connection:
            kind = str(connection.execute(_KIND, {"id": job_id}).scalar_one())
    return execution.execute_agent_row(services, job_id, agent_id, kind, HANDLERS[kind])
